"""The routes: who may, in which order things are asked, and what each answer looks like."""

import asyncio
import json
import re
from typing import Any

import pytest

from host_agent.api.app import create_app
from host_agent.api.routes import ROUTES, Route
from host_agent.errors import (
    HostFailedError,
    InvalidIdentityError,
    RateLimitedError,
    StoreUnavailableError,
)
from host_agent.http.exchange import Send
from host_agent.requests.model import GrantTerms
from tests.support.asgi import EXCHANGE_ID, Reply, ask, peer
from tests.support.fake_pipeline import DIGEST, FakeAgent

STATUS = {"operation": "git.status", "params": {"repository": "/srv/app"}}
PULL = {"operation": "git.pull", "params": {"repository": "/srv/app"}, "reason": "new release"}


class Door:
    """An application and who asks it."""

    def __init__(self) -> None:
        self.agent = FakeAgent()
        self.app = create_app(self.agent)

    async def __call__(
        self, method: str, target: str, cn: str | None = "librarian", **more: Any
    ) -> Reply:
        who = None if cn is None else peer(cn)
        return await ask(self.app, method, target, **{"who": who, **more})

    async def held(self) -> str:
        """Have a request held, and return its id."""
        reply = await self("POST", "/host/op", body=PULL)
        assert reply.status == 202
        return str(reply.json["request_id"])


@pytest.fixture
def door() -> Door:
    return Door()


# -- asking ------------------------------------------------------------------------------------


async def test_a_read_answers_200(door: Door) -> None:
    reply = await door("POST", "/host/op", body=STATUS)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["state"] == "succeeded"
    seen = door.agent.pipeline.asks[0]
    assert (seen.operation, seen.params) == ("git.status", STATUS["params"])
    assert (seen.exchange_id, seen.reason, seen.idempotency_key) == (EXCHANGE_ID, None, None)
    assert len(seen.body_sha256) == 64
    assert not door.agent.pipeline.refusals


async def test_a_held_request_answers_202_with_where_to_look(door: Door) -> None:
    reply = await door("POST", "/host/op", body=PULL, headers={"idempotency-key": "k-1"})
    assert reply.status == 202
    assert reply.headers["location"] == f"/requests/{reply.json['request_id']}"
    assert reply.headers["retry-after"] == "5"
    seen = door.agent.pipeline.asks[0]
    assert (seen.reason, seen.idempotency_key) == ("new release", "k-1")


async def test_the_older_form_is_the_same_ask(door: Door) -> None:
    older = {
        "kind": "git",
        "resource": "/srv/app",
        "args": ["pull"],
        "metadata": {"reason": "new release", "approval_token": "AAAA"},
    }
    await door("POST", "/host/op", body=older)
    await door("POST", "/host/op", body=PULL)
    first, second = door.agent.pipeline.asks
    assert (first.operation, first.params, first.reason) == (
        second.operation,
        second.params,
        second.reason,
    )


BAD_ASKS: list[tuple[str, dict[str, Any], int, str]] = [
    ("unknown operation", {"operation": "git.clone"}, 404, "request:unknown-operation"),
    (
        "unknown verb",
        {"kind": "git", "args": ["clone"], "resource": "/"},
        404,
        "request:unknown-operation",
    ),
    ("no parameters", {"operation": "git.status"}, 400, "request:invalid-parameter"),
    (
        "too many args",
        {"kind": "pct", "args": ["list", "1"]},
        400,
        "request:invalid-parameter",
    ),
    (
        "true for a number",
        {"operation": "git.status", "params": {"repository": "/a", "limit": True}},
        400,
        "request:invalid-parameter",
    ),
    (
        "text for a number",
        {"operation": "git.status", "params": {"repository": "/a", "limit": "1"}},
        400,
        "request:invalid-parameter",
    ),
    (
        "list for a text",
        {"operation": "git.status", "params": {"repository": ["/a"]}},
        400,
        "request:invalid-parameter",
    ),
    (
        "unknown parameter",
        {"operation": "git.status", "params": {"repository": "/a", "argv": []}},
        400,
        "request:invalid-parameter",
    ),
    ("approved", {**STATUS, "approved": True}, 400, "request:malformed"),
    ("user", {**STATUS, "user": "root"}, 400, "request:malformed"),
    ("agent_id", {**STATUS, "agent_id": "alice"}, 400, "request:malformed"),
]


@pytest.mark.parametrize(("body", "status", "code"), [row[1:] for row in BAD_ASKS])
async def test_c19_bad_asks_are_refused_and_recorded(
    door: Door, body: dict[str, Any], status: int, code: str
) -> None:
    reply = await door("POST", "/host/op", body=body)
    assert (reply.status, reply.code) == (status, code)
    assert not door.agent.pipeline.asks
    refusal = door.agent.pipeline.refusals[0]
    assert (refusal.code, refusal.caller, refusal.exchange_id) == (code, "librarian", EXCHANGE_ID)
    assert refusal.operation in {None, "git.status", "pct.list"}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"operation":NaN}', b"[" * 100_000])
async def test_c18_a_body_that_is_no_json_object_is_malformed(door: Door, data: bytes) -> None:
    headers = {"content-type": "application/json"}
    reply = await door("POST", "/host/op", body=data, headers=headers)
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert (await door("POST", "/host/op", body=STATUS)).status == 200


@pytest.mark.parametrize("key", ["", "a b", "a" * 65, "ä", "a\tb"])
async def test_a_bad_idempotency_key_is_malformed(door: Door, key: str) -> None:
    reply = await door(
        "POST", "/host/op", body=STATUS, headers={"idempotency-key": key.encode().decode("latin1")}
    )
    assert (reply.status, reply.code) == (400, "request:malformed")


@pytest.mark.parametrize("key", ["a", "!" * 64, "~"])
async def test_a_good_idempotency_key_reaches_the_pipeline(door: Door, key: str) -> None:
    await door("POST", "/host/op", body=STATUS, headers={"idempotency-key": key})
    assert door.agent.pipeline.asks[0].idempotency_key == key


# -- who, and in which order -------------------------------------------------------------------


async def test_every_route_refuses_who_is_not_registered(door: Door) -> None:
    for route in ROUTES:
        target = route.rule.replace("<request_id>", "abc")
        reply = await door(route.method, target, "stranger")
        assert (reply.status, reply.code) == (403, "identity:unknown"), route
    assert {refusal.caller for refusal in door.agent.pipeline.refusals} == {"stranger"}
    assert len(door.agent.pipeline.refusals) == len(ROUTES)


async def test_a_revoked_identity_is_refused_on_its_next_request(door: Door) -> None:
    assert (await door("GET", "/health")).status == 200
    door.agent.pipeline.revoked.add("librarian")
    reply = await door("GET", "/health")
    assert (reply.status, reply.code) == (403, "identity:revoked")


async def test_a_certificate_of_a_wrong_shape_is_refused(door: Door) -> None:
    wrong = InvalidIdentityError("It is a CA's.")
    for _ in range(2):
        reply = await door("POST", "/host/op", who=wrong, body=STATUS)
        assert (reply.status, reply.code) == (403, "identity:invalid")
    assert wrong.__traceback__ is None
    assert len(door.agent.pipeline.refusals) == 2


async def test_no_certificate_at_all_is_refused(door: Door) -> None:
    reply = await door("GET", "/health", None)
    assert (reply.status, reply.code) == (403, "identity:invalid")


async def test_roles_are_asked_before_the_body(door: Door) -> None:
    for cn, target in [
        ("alice", "/host/op"),
        ("librarian", "/requests/abc/decision"),
        ("librarian", "/approve"),
    ]:
        reply = await door("POST", target, cn, body=b"{", headers={"content-type": "text/plain"})
        assert (reply.status, reply.code) == (403, "identity:role-required")


async def test_rates_are_asked_before_size_type_and_syntax(door: Door) -> None:
    huge = {"content-length": "9999999999", "content-type": "text/plain"}
    door.agent.pipeline.limited.add("librarian")
    reply = await door("POST", "/host/op", body=[b"{"], headers=huge)
    assert (reply.status, reply.code) == (429, "rate:limited")
    assert reply.headers["retry-after"] == "1"
    door.agent.pipeline.limited.clear()
    assert (await door("POST", "/host/op", body=[b"{"], headers=huge)).status == 413
    plain = {"content-type": "text/plain"}
    assert (await door("POST", "/host/op", body=b"{", headers=plain)).status == 415
    gzip = {"content-type": "application/json", "content-encoding": "gzip"}
    assert (await door("POST", "/host/op", body=b"\x1f\x8b", headers=gzip)).status == 415
    assert not door.agent.pipeline.asks


async def test_a_foreign_origin_is_refused(door: Door) -> None:
    for origin in ("https://evil.test", "null", "http://agent.test", "https://agent.test:1", ""):
        reply = await door("POST", "/host/op", body=STATUS, headers={"origin": origin})
        assert (reply.status, reply.code) == (403, "request:foreign-origin")
    assert not door.agent.pipeline.asks
    own = {"origin": "https://agent.test"}
    assert (await door("POST", "/host/op", body=STATUS, headers=own)).status == 200


# -- routes that are not -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "target", ["/", "/nope", "/host/op/", "//host/op", "/requests/", "/requests/a/b", "/host"]
)
async def test_unknown_paths_are_problems_and_never_redirects(door: Door, target: str) -> None:
    for method in ("GET", "POST"):
        reply = await door(method, target)
        assert (reply.status, reply.code) == (404, "route:not-found")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.rule)
async def test_other_methods_are_problems_that_name_the_right_one(door: Door, route: Route) -> None:
    target = route.rule.replace("<request_id>", "abc")
    for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}:
        if method == route.method:
            continue
        reply = await door(method, target)
        assert (reply.status, reply.code) == (405, "route:method-not-allowed"), method
        assert reply.headers["allow"] == route.method


async def test_get_never_changes_anything(door: Door) -> None:
    request_id = await door.held()
    for target in (
        f"/requests/{request_id}/decision?decision=approve",
        "/approve?token=a",
        "/host/op",
    ):
        assert (await door("GET", target, "alice")).status == 405
    assert door.agent.pipeline.requests[request_id]["state"] == "pending"


# -- requests ----------------------------------------------------------------------------------


async def test_a_request_is_shown_to_its_caller(door: Door) -> None:
    request_id = await door.held()
    reply = await door("GET", f"/requests/{request_id}")
    assert (reply.status, reply.json["state"]) == (200, "pending")


@pytest.mark.parametrize("name", ["nope", "..", "%00", "a" * 65, "a b", "\u0430", "a'--"])
async def test_no_such_request_is_404(door: Door, name: str) -> None:
    reply = await door("GET", f"/requests/{name}")
    assert (reply.status, reply.code) == (404, "request:not-found")


@pytest.mark.parametrize("wait", ["61", "-1", "1.5", "", "a", "1e1", "\u0661", "0060000"])
async def test_a_bad_wait_is_400(door: Door, wait: str) -> None:
    request_id = await door.held()
    reply = await door("GET", f"/requests/{request_id}?wait={wait}")
    assert (reply.status, reply.code) == (400, "request:invalid-parameter")


@pytest.mark.parametrize("query", ["waiting=1", "wait=1&wait=1", "wait=1&x=", "wait=0&wait=0"])
async def test_unknown_or_repeated_query_parameters_are_400(door: Door, query: str) -> None:
    request_id = await door.held()
    reply = await door("GET", f"/requests/{request_id}?{query}")
    assert (reply.status, reply.code) == (400, "request:invalid-parameter")


async def test_queries_are_refused_where_none_are_taken(door: Door) -> None:
    for route in ROUTES:
        target = re.sub("<[a-z_]+>", "abc", route.rule)
        cn = {"decide": "alice", "approve": "alice", "admin_pending": "root-admin"}
        cn |= {"grants": "alice", "revoke_grant": "alice", "approvers": "root-admin"}
        cn |= {"enrol": "root-admin", "release": "root-admin"}
        cn |= {"bridged_decision": "chat-bridge", "bridged_signal": "chat-bridge"}
        cn |= {"sudoers": "root-admin", "warn_permissions": "root-admin"}
        reply = await door(route.method, f"{target}?user=root", cn.get(route.name, "librarian"))
        assert (reply.status, reply.code) == (400, "request:invalid-parameter"), route


async def until_waiting(door: Door) -> None:
    while not door.agent.pipeline.waiting:
        await asyncio.sleep(0)


async def test_a_long_poll_returns_on_a_change(door: Door) -> None:
    request_id = await door.held()
    target = f"/requests/{request_id}?wait=60"
    forever: asyncio.Event = asyncio.Event()
    poll = asyncio.ensure_future(waiting_ask(door, target, forever))
    await until_waiting(door)
    door.agent.pipeline.requests[request_id]["state"] = "approved"
    door.agent.pipeline.changed.set()
    assert (await poll).json["state"] == "approved"
    assert door.agent.pipeline.waiting == 0


async def test_a_long_poll_ends_when_its_peer_leaves(door: Door) -> None:
    request_id = await door.held()
    leaves: asyncio.Event = asyncio.Event()
    poll = asyncio.ensure_future(waiting_ask(door, f"/requests/{request_id}?wait=60", leaves))
    await until_waiting(door)
    leaves.set()
    assert (await poll).json["state"] == "pending"  # who ended the own half only reads it
    assert door.agent.pipeline.waiting == 0


async def test_a_long_poll_of_a_revoked_identity_is_refused(door: Door) -> None:
    request_id = await door.held()
    forever: asyncio.Event = asyncio.Event()
    poll = asyncio.ensure_future(waiting_ask(door, f"/requests/{request_id}?wait=60", forever))
    await until_waiting(door)
    door.agent.pipeline.revoked.add("librarian")
    door.agent.pipeline.changed.set()
    reply = await poll
    assert (reply.status, reply.code) == (403, "identity:revoked")


async def waiting_ask(door: Door, target: str, leaves: asyncio.Event) -> Reply:
    """Send a GET whose peer stays until `leaves`."""

    async def app(scope: dict[str, Any], receive: object, send: Send) -> None:
        told: list[bool] = []

        async def staying() -> dict[str, Any]:
            if not told:
                told.append(True)
                return {"type": "http.request", "body": b"", "more_body": False}
            await leaves.wait()
            return {"type": "http.disconnect"}

        await door.app(scope, staying, send)

    return await ask(app, "GET", target, who=peer("librarian"))


async def test_lists_are_own_or_all(door: Door) -> None:
    request_id = await door.held()
    for target, cn in [
        ("/requests", "librarian"),
        ("/requests?state=pending&limit=1", "alice"),
        ("/pending", "librarian"),
        ("/admin/pending", "root-admin"),
    ]:
        reply = await door("GET", target, cn)
        assert [row["request_id"] for row in reply.json["requests"]] == [request_id], target
        assert reply.json["next_cursor"] is None
    assert (await door("GET", "/pending", "alice")).json["requests"] == []


async def test_all_pending_requests_are_for_admins(door: Door) -> None:
    for cn in ("librarian", "alice"):
        reply = await door("GET", "/admin/pending", cn)
        assert (reply.status, reply.code) == (403, "identity:role-required")


@pytest.mark.parametrize("limit", ["a", "-1", "", "1.0", "\u0661", "1234567"])
async def test_a_bad_limit_is_400(door: Door, limit: str) -> None:
    reply = await door("GET", f"/requests?limit={limit}")
    assert (reply.status, reply.code) == (400, "request:invalid-parameter")


# -- decisions ---------------------------------------------------------------------------------


async def test_an_approval_repeats_the_digest(door: Door) -> None:
    target = f"/requests/{await door.held()}/decision"
    wrong = {"decision": "approve", "digest": "sha256:" + "0" * 64}
    reply = await door("POST", target, "alice", body=wrong)
    assert (reply.status, reply.code) == (409, "approval:digest-mismatch")
    reply = await door("POST", target, "alice", body={"decision": "approve"})
    assert (reply.status, reply.code) == (400, "request:invalid-parameter")
    reply = await door("POST", target, "alice", body={"decision": "approve", "digest": DIGEST})
    assert (reply.status, reply.json["state"]) == (200, "approved")
    reply = await door("POST", target, "alice", body={"decision": "deny"})
    assert (reply.status, reply.code) == (409, "approval:already-decided")
    assert reply.json["request"]["state"] == "approved"


async def test_a_decision_names_no_approver(door: Door) -> None:
    request_id = await door.held()
    for extra in ({"approver": "root-admin"}, {"grant": {"to": "alice"}}, {"force": True}):
        body = {"decision": "approve", "digest": DIGEST, **extra}
        reply = await door("POST", f"/requests/{request_id}/decision", "alice", body=body)
        assert (reply.status, reply.code) == (400, "request:malformed")
    assert door.agent.pipeline.requests[request_id]["state"] == "pending"


async def test_an_approval_may_carry_a_grant(door: Door) -> None:
    request_id = await door.held()
    body = {"decision": "approve", "digest": DIGEST, "grant": {"count": 3, "resource": "/srv/.*"}}
    reply = await door("POST", f"/requests/{request_id}/decision", "alice", body=body)
    assert (reply.status, reply.json["state"]) == (200, "approved")
    assert door.agent.pipeline.granted == [GrantTerms(count=3, resource="/srv/.*")]


@pytest.mark.parametrize(
    "grant",
    [
        *({"count": 0}, {"count": 1001}, {"count": True}, {"count": "3"}),
        *({"for_seconds": 59}, {"for_seconds": 86_401}, {"count": 1, "resource": ""}),
        *({"count": 1, "resource": "a" * 257}, [], "3", 3),
    ],
)
async def test_a_grant_out_of_bounds_is_refused_with_its_approval(
    door: Door, grant: object
) -> None:
    request_id = await door.held()
    body = {"decision": "approve", "digest": DIGEST, "grant": grant}
    reply = await door("POST", f"/requests/{request_id}/decision", "alice", body=body)
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert door.agent.pipeline.requests[request_id]["state"] == "pending"


async def test_a_denial_grants_nothing(door: Door) -> None:
    request_id = await door.held()
    body = {"decision": "deny", "grant": {"count": 1}}
    reply = await door("POST", f"/requests/{request_id}/decision", "alice", body=body)
    assert (reply.status, reply.code) == (400, "request:invalid-parameter")
    assert door.agent.pipeline.requests[request_id]["state"] == "pending"


async def test_grants_are_listed_and_revoked_by_approvers_and_admins(door: Door) -> None:
    for cn in ("alice", "root-admin"):
        assert (await door("GET", "/grants", cn)).json == {"grants": []}
        assert (await door("POST", "/grants/abc/revoke", cn)).status == 200
    assert door.agent.pipeline.administered == [("revoke", "abc")] * 2


async def test_enrolments_and_releases_are_the_admins(door: Door) -> None:
    body = {"channel": "signal"}
    reply = await door("POST", "/approvers/alice@home/enrol", "root-admin", body=body)
    assert (reply.status, reply.json["code"]) == (200, "ABCDEFGHJKLMNPQR")
    assert (await door("GET", "/approvers", "root-admin")).json == {"approvers": []}
    reply = await door("POST", "/identities/librarian/release", "root-admin")
    assert reply.json == {"cn": "librarian", "released": True}
    assert door.agent.pipeline.administered == [
        ("enrol", "alice@home", "signal"),
        ("release", "librarian"),
    ]


@pytest.mark.parametrize(
    ("method", "target", "cn"),
    [
        ("GET", "/approvers", "alice"),
        ("POST", "/approvers/alice/enrol", "alice"),
        ("POST", "/identities/librarian/release", "alice"),
        ("POST", "/identities/librarian/release", "librarian"),
        ("GET", "/grants", "librarian"),
        ("POST", "/grants/abc/revoke", "librarian"),
    ],
)
async def test_nobody_else_administers_anything(
    door: Door, method: str, target: str, cn: str
) -> None:
    body = {"channel": "signal"} if target.endswith("enrol") else None
    reply = await door(method, target, cn, **({} if body is None else {"body": body}))
    assert (reply.status, reply.code) == (403, "identity:role-required")
    assert not door.agent.pipeline.administered


@pytest.mark.parametrize("target", ["/grants/abc/revoke", "/identities/librarian/release"])
async def test_what_the_path_says_takes_no_body(door: Door, target: str) -> None:
    reply = await door("POST", target, "root-admin", body={"cn": "deployer"})
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert not door.agent.pipeline.administered


@pytest.mark.parametrize("body", [{}, {"channel": 1}, {"channel": "signal", "owner": "bob"}])
async def test_an_enrolment_names_its_channel_and_nothing_else(
    door: Door, body: dict[str, object]
) -> None:
    reply = await door("POST", "/approvers/alice/enrol", "root-admin", body=body)
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert not door.agent.pipeline.administered


async def test_the_older_approval_takes_the_digest_as_token(door: Door) -> None:
    request_id = await door.held()
    body = {"approval_id": request_id, "token": "guess"}
    assert (await door("POST", "/approve", "alice", body=body)).status == 409
    body = {"approval_id": request_id, "token": DIGEST}
    reply = await door("POST", "/approve", "alice", body=body)
    assert (reply.status, reply.json["state"]) == (200, "approved")


async def test_cancel_needs_no_body_and_no_type(door: Door) -> None:
    request_id = await door.held()
    reply = await door("POST", f"/requests/{request_id}/cancel")
    assert (reply.status, reply.json["state"], reply.json["reason"]) == (200, "cancelled", None)


async def test_cancel_takes_a_reason_as_json_only(door: Door) -> None:
    target = f"/requests/{await door.held()}/cancel"
    reply = await door("POST", target, body=b"{}", headers={"content-type": "text/plain"})
    assert (reply.status, reply.code) == (415, "request:not-json")
    reply = await door("POST", target, body={"why": "x"})
    assert (reply.status, reply.code) == (400, "request:malformed")
    reply = await door("POST", target, body={"reason": "changed my mind"})
    assert (reply.status, reply.json["reason"]) == (200, "changed my mind")


# -- failures ----------------------------------------------------------------------------------


async def test_a_refusal_of_the_pipeline_is_a_problem(door: Door) -> None:
    door.agent.pipeline.fault = HostFailedError("It failed.", members={"outcome": {"exit_code": 3}})
    reply = await door("POST", "/host/op", body=STATUS)
    assert (reply.status, reply.code) == (502, "host:failed")
    assert reply.json["outcome"] == {"exit_code": 3}
    assert door.agent.pipeline.refusals[0].operation == "git.status"


async def test_retry_after_reaches_the_peer(door: Door) -> None:
    door.agent.pipeline.fault = RateLimitedError("Later.", retry_after_seconds=2.1)
    reply = await door("POST", "/host/op", body=STATUS)
    assert (reply.headers["retry-after"], reply.json["retry_after_seconds"]) == ("3", 3)


async def test_a_defect_is_500_and_says_nothing_of_the_inside(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    door.agent.pipeline.fault = KeyError("secret-of-the-inside")
    reply = await door("POST", "/host/op", body=STATUS)
    assert (reply.status, reply.code) == (500, "internal")
    assert b"secret" not in reply.body
    assert door.agent.pipeline.refusals[0].code == "internal"
    assert EXCHANGE_ID in caplog.text
    assert "secret-of-the-inside" in caplog.text


# -- the agent itself --------------------------------------------------------------------------


async def test_health_ready_and_operations(door: Door) -> None:
    assert (await door("GET", "/health")).json["status"] == "ok"
    assert (await door("GET", "/ready")).json == {"store": "ok", "audit": "ok", "crl": "ok"}
    door.agent.parts["audit"] = "cannot be written"
    reply = await door("GET", "/ready")
    assert (reply.status, reply.code) == (503, "audit:unavailable")
    assert reply.json["audit"] == "cannot be written"
    assert not door.agent.pipeline.refusals
    assert (await door("GET", "/whoami")).json == {
        "cn": "librarian",
        "owner": "librarian",
        "roles": ["caller"],
        "autonomy": "supervised",
        "host": "fake",
    }
    names = [row["name"] for row in (await door("GET", "/host/operations")).json["operations"]]
    assert names == ["git.status", "git.pull", "pct.list"]


async def test_a_broken_store_is_503(door: Door) -> None:
    door.agent.pipeline.fault = StoreUnavailableError("The store cannot be read.")
    reply = await door("POST", "/host/op", body=PULL)
    assert (reply.status, reply.code) == (503, "store:unavailable")


async def test_the_interface_describes_itself(door: Door) -> None:
    reply = await door("GET", "/openapi.json")
    assert reply.status == 200
    assert json.loads(reply.body)["openapi"] == "3.1.0"
