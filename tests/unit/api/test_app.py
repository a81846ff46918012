"""The routes: who may, in which order things are asked, and what each answer looks like."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.api.route import Route
from host_agent.api.routes import ROUTES
from host_agent.errors import InvalidIdentityError, StoreUnavailableError
from host_agent.http.exchange import Send
from host_agent.identity.registry import Role
from tests.support.api import LOOK, PULL, Api, api
from tests.support.asgi import EXCHANGE_ID, Reply, ask
from tests.support.patience import PATIENCE
from tests.support.people import PEOPLE
from tests.support.pipeline import REPOSITORY, output, serial_of

ROLES = {
    "deployer": Role.CALLER,
    "alice": Role.APPROVER,
    "root-admin": Role.ADMIN,
    "chat-bridge": Role.BRIDGE,
}


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Api]:
    async with api(tmp_path) as opened:
        yield opened


def target_of(route: Route[Any]) -> str:
    return re.sub("<[a-z_]+>", "abc", route.rule)


# -- asking ------------------------------------------------------------------------------------


async def test_a_read_answers_200(door: Api) -> None:
    reply = await door("POST", "/host/op", body=LOOK)
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert (reply.json["state"], reply.json["request_id"]) == ("succeeded", EXCHANGE_ID)
    assert door.bench.host.ran == [("status", REPOSITORY)]
    assert not door.refusals()


async def test_a_held_request_answers_202_with_where_to_look(door: Api) -> None:
    reply = await door("POST", "/host/op", body=PULL, headers={"idempotency-key": "k-1"})
    assert reply.status == 202
    assert reply.headers["location"] == f"/requests/{EXCHANGE_ID}"
    assert reply.headers["retry-after"] == "5"
    assert (await door.bench.request(EXCHANGE_ID)).reason == "new release"
    again = await door("POST", "/host/op", body=PULL, headers={"idempotency-key": "k-1"})
    assert again.json["request_id"] == EXCHANGE_ID


async def test_the_older_form_is_the_same_ask(door: Api) -> None:
    older = {
        "kind": "git",
        "resource": REPOSITORY,
        "args": ["pull", "origin", "main"],
        "metadata": {"reason": "new release", "approval_token": "AAAA"},
    }
    first = await door("POST", "/host/op", body=older)
    second = await door("POST", "/host/op", body=PULL)
    assert first.json == second.json
    assert (await door.bench.request(EXCHANGE_ID)).reason == "new release"


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
        {"operation": "git.log", "params": {"repository": "/a", "limit": True}},
        400,
        "request:invalid-parameter",
    ),
    (
        "text for a number",
        {"operation": "git.log", "params": {"repository": "/a", "limit": "1"}},
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
    ("approved", {**LOOK, "approved": True}, 400, "request:malformed"),
    ("user", {**LOOK, "user": "root"}, 400, "request:malformed"),
    ("agent_id", {**LOOK, "agent_id": "alice"}, 400, "request:malformed"),
]


@pytest.mark.promise("c19")
@pytest.mark.parametrize(("body", "status", "code"), [row[1:] for row in BAD_ASKS])
async def test_bad_asks_are_refused_and_recorded(
    door: Api, body: dict[str, Any], status: int, code: str
) -> None:
    reply = await door("POST", "/host/op", body=body)
    assert (reply.status, reply.code) == (status, code)
    assert await door.is_untouched()
    (refusal,) = door.refusals()
    assert refusal[:2] == (code, "deployer")
    assert refusal[2] in {None, "git.status", "git.log", "pct.list"}
    assert door.bench.records()[-1]["exchange_id"] == EXCHANGE_ID


@pytest.mark.promise("c18")
@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"operation":NaN}', b"[" * 100_000])
async def test_a_body_that_is_no_json_object_is_malformed(door: Api, data: bytes) -> None:
    headers = {"content-type": "application/json"}
    reply = await door("POST", "/host/op", body=data, headers=headers)
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert await door.is_untouched()
    assert (await door("POST", "/host/op", body=LOOK)).status == 200


@pytest.mark.parametrize("key", ["", "a b", "a" * 65, "ä", "a\tb"])
async def test_a_bad_idempotency_key_is_malformed(door: Api, key: str) -> None:
    reply = await door(
        "POST", "/host/op", body=LOOK, headers={"idempotency-key": key.encode().decode("latin1")}
    )
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert await door.is_untouched()


@pytest.mark.parametrize("key", ["a", "!" * 64, "~"])
async def test_a_good_idempotency_key_holds_its_body(door: Api, key: str) -> None:
    headers = {"idempotency-key": key}
    assert (await door("POST", "/host/op", body=LOOK, headers=headers)).status == 200
    reply = await door("POST", "/host/op", body=PULL, headers=headers)
    assert (reply.status, reply.code) == (409, "request:idempotency-conflict")
    again = await door("POST", "/host/op", body=LOOK, headers=headers)
    assert again.status == 200
    assert len(door.bench.host.ran) == 1


# -- who, and in which order -------------------------------------------------------------------


async def test_every_route_refuses_who_is_not_registered(door: Api) -> None:
    for route in ROUTES:
        reply = await door(route.method, target_of(route), "stranger")
        assert (reply.status, reply.code) == (403, "identity:unknown"), route
        door.bench.clock.advance(seconds=1)
    assert door.refusals() == [("identity:unknown", "stranger", None)] * len(ROUTES)


async def test_a_revoked_identity_is_refused_on_its_next_request(door: Api) -> None:
    assert (await door("GET", "/health")).status == 200
    door.bench.revocations.revoked.add(serial_of("deployer"))
    reply = await door("GET", "/health")
    assert (reply.status, reply.code) == (403, "identity:revoked")


async def test_a_certificate_of_a_wrong_shape_is_refused(door: Api) -> None:
    wrong = InvalidIdentityError("It is a CA's.")
    for _ in range(2):
        reply = await door("POST", "/host/op", who=wrong, body=LOOK)
        assert (reply.status, reply.code) == (403, "identity:invalid")
    assert wrong.__traceback__ is None
    assert door.refusals() == [("identity:invalid", None, None)] * 2
    assert await door.is_untouched()


async def test_no_certificate_at_all_is_refused(door: Api) -> None:
    reply = await door("GET", "/health", None)
    assert (reply.status, reply.code) == (403, "identity:invalid")


async def test_roles_are_asked_before_the_body(door: Api) -> None:
    text = {"content-type": "text/plain"}
    for route in ROUTES:
        for cn, role in ROLES.items():
            if not route.roles or role in route.roles:
                continue
            sent = {"body": b"{", "headers": text} if route.method == "POST" else {}
            reply = await door(route.method, target_of(route), cn, **sent)
            assert (reply.status, reply.code) == (403, "identity:role-required"), (route, cn)
            door.bench.clock.advance(seconds=1)
    assert await door.is_untouched()


async def test_rates_are_asked_before_size_type_and_syntax(tmp_path: Path) -> None:
    huge = {"content-length": "9999999999", "content-type": "text/plain"}
    async with api(tmp_path, limits="ask_burst = 1\nasks_per_second = 1") as door:
        assert (await door("POST", "/host/op", body=[b"{"], headers=huge)).status == 413
        reply = await door("POST", "/host/op", body=[b"{"], headers=huge)
        assert (reply.status, reply.code) == (429, "rate:limited")
        assert reply.headers["retry-after"] == "1"
        for sent, status in (
            ({"content-type": "text/plain"}, 415),
            ({"content-type": "application/json", "content-encoding": "gzip"}, 415),
        ):
            door.bench.clock.advance(seconds=1)
            assert (await door("POST", "/host/op", body=b"{", headers=sent)).status == status
        assert await door.is_untouched()


async def test_a_foreign_origin_is_refused(door: Api) -> None:
    for origin in ("https://evil.test", "null", "http://agent.test", "https://agent.test:1", ""):
        reply = await door("POST", "/host/op", body=LOOK, headers={"origin": origin})
        assert (reply.status, reply.code) == (403, "request:foreign-origin")
    assert await door.is_untouched()
    own = {"origin": "https://agent.test"}
    assert (await door("POST", "/host/op", body=LOOK, headers=own)).status == 200


# -- routes that are not -----------------------------------------------------------------------


async def test_unknown_paths_are_problems_and_never_redirects(door: Api) -> None:
    paths = ["/", "/nope", "/host/op/", "//host/op", "/requests/", "/requests/a/b", "/host"]
    for target in paths:
        for method in ("GET", "POST"):
            reply = await door(method, target)
            assert (reply.status, reply.code) == (404, "route:not-found"), target


async def test_other_methods_are_problems_that_name_the_right_one(door: Api) -> None:
    every = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"}
    for route in ROUTES:
        there = ["GET", "HEAD"] if route.method == "GET" else [route.method]
        for method in (every | {"FROB", "get", "post"}) - set(there):
            reply = await door(method, target_of(route))
            assert (reply.status, reply.code) == (405, "route:method-not-allowed"), method
            assert reply.headers["allow"] == ", ".join(there)


async def test_get_never_changes_anything(door: Api) -> None:
    request_id = (await door.held())["request_id"]
    for target in (
        f"/requests/{request_id}/decision?decision=approve",
        "/approve?token=a",
        "/host/op",
    ):
        assert (await door("GET", target, "alice")).status == 405
    assert await door.state(request_id) == "pending"


# -- requests ----------------------------------------------------------------------------------


async def test_a_request_is_shown_to_its_caller(door: Api) -> None:
    request_id = (await door.held())["request_id"]
    reply = await door("GET", f"/requests/{request_id}")
    assert (reply.status, reply.json["state"]) == (200, "pending")


async def test_no_such_request_is_404(door: Api) -> None:
    for name in ["nope", "..", "%00", "a" * 65, "a b", "\u0430", "a'--"]:
        reply = await door("GET", f"/requests/{name}")
        assert (reply.status, reply.code) == (404, "request:not-found"), name


async def test_a_bad_wait_is_400(door: Api) -> None:
    request_id = (await door.held())["request_id"]
    for wait in ["61", "-1", "1.5", "", "a", "1e1", "\u0661", "0060000"]:
        reply = await door("GET", f"/requests/{request_id}?wait={wait}")
        assert (reply.status, reply.code) == (400, "request:invalid-parameter"), wait


async def test_unknown_or_repeated_query_parameters_are_400(door: Api) -> None:
    request_id = (await door.held())["request_id"]
    for query in ["waiting=1", "wait=1&wait=1", "wait=1&x=", "wait=0&wait=0"]:
        reply = await door("GET", f"/requests/{request_id}?{query}")
        assert (reply.status, reply.code) == (400, "request:invalid-parameter"), query


async def test_queries_are_refused_where_none_are_taken(door: Api) -> None:
    for route in ROUTES:
        cn = next(cn for cn, role in ROLES.items() if not route.roles or role in route.roles)
        reply = await door(route.method, f"{target_of(route)}?user=root", cn)
        assert (reply.status, reply.code) == (400, "request:invalid-parameter"), route


async def until_waiting(door: Api) -> None:
    async with asyncio.timeout(PATIENCE):
        while not door.bench.pipeline.views._polls:
            await asyncio.sleep(0)


async def test_a_long_poll_returns_on_a_change(door: Api) -> None:
    held = await door.held()
    target = f"/requests/{held['request_id']}?wait=60"
    forever: asyncio.Event = asyncio.Event()
    poll = asyncio.ensure_future(waiting_ask(door, target, forever))
    await until_waiting(door)
    await door("POST", f"/requests/{held['request_id']}/decision", "alice", body=DENIED)
    assert (await poll).json["state"] == "denied"
    assert not door.bench.pipeline.views._polls


async def test_a_long_poll_ends_when_its_peer_leaves(door: Api) -> None:
    request_id = (await door.held())["request_id"]
    leaves: asyncio.Event = asyncio.Event()
    poll = asyncio.ensure_future(waiting_ask(door, f"/requests/{request_id}?wait=60", leaves))
    await until_waiting(door)
    leaves.set()
    assert (await poll).json["state"] == "pending"  # who ended the own half only reads it
    assert not door.bench.pipeline.views._polls


async def test_a_long_poll_of_a_revoked_identity_is_refused(door: Api) -> None:
    request_id = (await door.held())["request_id"]
    forever: asyncio.Event = asyncio.Event()
    poll = asyncio.ensure_future(waiting_ask(door, f"/requests/{request_id}?wait=60", forever))
    await until_waiting(door)
    door.bench.revocations.revoked.add(serial_of("deployer"))
    door.bench.context.changes.tell_all()
    reply = await poll
    assert (reply.status, reply.code) == (403, "identity:revoked")


async def waiting_ask(door: Api, target: str, leaves: asyncio.Event) -> Reply:
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

    return await ask(app, "GET", target, who=door.bench.certificate("deployer"))


async def test_lists_are_own_or_all(door: Api) -> None:
    request_id = (await door.held())["request_id"]
    for target, cn in [
        ("/requests", "deployer"),
        ("/requests?state=pending&limit=1", "alice"),
        ("/pending", "deployer"),
        ("/admin/pending", "root-admin"),
    ]:
        reply = await door("GET", target, cn)
        assert [row["request_id"] for row in reply.json["requests"]] == [request_id], target
        assert reply.json["next_cursor"] is None
    assert (await door("GET", "/pending", "alice")).json["requests"] == []


async def test_all_pending_requests_are_for_admins(door: Api) -> None:
    for cn in ("deployer", "alice"):
        reply = await door("GET", "/admin/pending", cn)
        assert (reply.status, reply.code) == (403, "identity:role-required")


async def test_a_bad_limit_is_400(door: Api) -> None:
    for limit in ["a", "-1", "", "1.0", "\u0661", "1234567", "0", "201"]:
        reply = await door("GET", f"/requests?limit={limit}")
        assert (reply.status, reply.code) == (400, "request:invalid-parameter"), limit


# -- decisions ---------------------------------------------------------------------------------

DENIED = {"decision": "deny"}


async def test_an_approval_repeats_the_digest(door: Api) -> None:
    held = await door.held()
    target = f"/requests/{held['request_id']}/decision"
    wrong = {"decision": "approve", "digest": "sha256:" + "0" * 64}
    reply = await door("POST", target, "alice", body=wrong)
    assert (reply.status, reply.code) == (409, "approval:digest-mismatch")
    reply = await door("POST", target, "alice", body={"decision": "approve"})
    assert (reply.status, reply.code) == (400, "request:invalid-parameter")
    assert await door.state(held["request_id"]) == "pending"
    reply = await door("POST", target, "alice", body=approval(held))
    assert reply.status == 200
    await door.bench.settle()
    reply = await door("POST", target, "alice", body=DENIED)
    assert (reply.status, reply.code) == (409, "approval:already-decided")
    assert reply.json["request"]["state"] == "succeeded"


def approval(held: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"decision": "approve", "digest": held["digest"], **more}


async def test_a_decision_names_no_approver(door: Api) -> None:
    held = await door.held()
    target = f"/requests/{held['request_id']}/decision"
    for extra in ({"approver": "root-admin"}, {"grant": {"to": "alice"}}, {"force": True}):
        reply = await door("POST", target, "alice", body=approval(held, **extra))
        assert (reply.status, reply.code) == (400, "request:malformed")
    assert await door.state(held["request_id"]) == "pending"


async def test_an_approval_may_carry_a_grant(door: Api) -> None:
    held = await door.held()
    body = approval(held, grant={"count": 3, "resource": "/srv/.*"})
    reply = await door("POST", f"/requests/{held['request_id']}/decision", "alice", body=body)
    assert reply.status == 200
    await door.bench.settle()
    grants = (await door("GET", "/grants", "alice")).json["grants"]
    assert [grant["resource"] for grant in grants] == ["/srv/.*"]
    assert (grants[0]["uses_left"], grants[0]["given_by"]) == (3, ["alice"])


async def test_a_grant_out_of_bounds_is_refused_with_its_approval(door: Api) -> None:
    held = await door.held()
    bad: tuple[object, ...] = (
        *({"count": 0}, {"count": 1001}, {"count": True}, {"count": "3"}),
        *({"for_seconds": 59}, {"for_seconds": 86_401}, {"count": 1, "resource": ""}),
        *({"count": 1, "resource": "a" * 257}, [], "3", 3),
    )
    for grant in bad:
        body = approval(held, grant=grant)
        reply = await door("POST", f"/requests/{held['request_id']}/decision", "alice", body=body)
        assert (reply.status, reply.code) == (400, "request:malformed"), grant
    assert await door.state(held["request_id"]) == "pending"
    assert (await door("GET", "/grants", "alice")).json == {"grants": []}


async def test_a_denial_grants_nothing(door: Api) -> None:
    held = await door.held()
    body = {"decision": "deny", "grant": {"count": 1}}
    reply = await door("POST", f"/requests/{held['request_id']}/decision", "alice", body=body)
    assert (reply.status, reply.code) == (400, "request:invalid-parameter")
    assert await door.state(held["request_id"]) == "pending"


@pytest.mark.parametrize("cn", ["alice", "root-admin"])
async def test_grants_are_listed_and_revoked_by_approvers_and_admins(door: Api, cn: str) -> None:
    held = await door.held()
    body = approval(held, grant={"count": 3})
    await door("POST", f"/requests/{held['request_id']}/decision", "alice", body=body)
    await door.bench.settle()
    grants = (await door("GET", "/grants", cn)).json["grants"]
    reply = await door("POST", f"/grants/{grants[0]['grant_id']}/revoke", cn)
    assert (reply.status, reply.json["is_live"], reply.json["revoked_by"]) == (200, False, cn)


async def test_enrolments_and_releases_are_the_admins(door: Api) -> None:
    carol = '[[approvers]]\nowner = "carol@home"\nchannels = ["signal"]\n'
    await door.bench.reload(people=PEOPLE + carol)
    body = {"channel": "signal"}
    reply = await door("POST", "/approvers/carol@home/enrol", "root-admin", body=body)
    assert (reply.status, reply.json["owner"]) == (200, "carol@home")
    assert len(reply.json["code"]) == 16
    listed = (await door("GET", "/approvers", "root-admin")).json["approvers"]
    assert [row["owner"] for row in listed] == ["alice", "erin", "bob", "carol@home"]
    reply = await door("POST", "/identities/deployer/release", "root-admin")
    assert reply.json == {"cn": "deployer", "released": True}
    assert door.bench.events() == ["enrolment.offered", "identity.released"]


async def test_what_the_path_says_takes_no_body(door: Api) -> None:
    for target in ("/grants/abc/revoke", "/identities/deployer/release"):
        reply = await door("POST", target, "root-admin", body={"cn": "deployer"})
        assert (reply.status, reply.code) == (400, "request:malformed")
    assert "identity.released" not in door.bench.events()


async def test_an_enrolment_names_its_channel_and_nothing_else(door: Api) -> None:
    for body in ({}, {"channel": 1}, {"channel": "signal", "owner": "bob"}):
        reply = await door("POST", "/approvers/alice/enrol", "root-admin", body=body)
        assert (reply.status, reply.code) == (400, "request:malformed")
    assert set(door.bench.events()) == {"request.refused"}


async def test_the_older_approval_takes_the_digest_as_token(door: Api) -> None:
    held = await door.held()
    body = {"approval_id": held["request_id"], "token": "guess"}
    assert (await door("POST", "/approve", "alice", body=body)).status == 409
    assert await door.state(held["request_id"]) == "pending"
    body = {"approval_id": held["request_id"], "token": held["digest"]}
    reply = await door("POST", "/approve", "alice", body=body)
    assert (reply.status, reply.json["decisions"][0]["approver"]) == (200, "alice")


async def test_cancel_needs_no_body_and_no_type(door: Api) -> None:
    request_id = (await door.held())["request_id"]
    reply = await door("POST", f"/requests/{request_id}/cancel")
    assert (reply.status, reply.json["state"]) == (200, "cancelled")
    assert door.bench.records()[-1].get("reason") is None


async def test_cancel_takes_a_reason_as_json_only(door: Api) -> None:
    request_id = (await door.held())["request_id"]
    target = f"/requests/{request_id}/cancel"
    reply = await door("POST", target, body=b"{}", headers={"content-type": "text/plain"})
    assert (reply.status, reply.code) == (415, "request:not-json")
    reply = await door("POST", target, body={"why": "x"})
    assert (reply.status, reply.code) == (400, "request:malformed")
    assert await door.state(request_id) == "pending"
    reply = await door("POST", target, body={"reason": "changed my mind"})
    assert reply.status == 200
    assert door.bench.records()[-1]["reason"] == "changed my mind"


# -- failures ----------------------------------------------------------------------------------


async def test_a_refusal_of_the_host_is_a_problem(door: Api) -> None:
    door.bench.host.answers["status"] = output(stderr="broken", exit_code=3)
    reply = await door("POST", "/host/op", body=LOOK)
    assert (reply.status, reply.code) == (502, "host:failed")
    assert reply.json["outcome"]["exit_code"] == 3


async def test_retry_after_reaches_the_peer(tmp_path: Path) -> None:
    async with api(tmp_path, limits="ask_burst = 1\nasks_per_second = 1") as door:
        await door("POST", "/host/op", body=LOOK)
        door.bench.clock.advance(seconds=0.25)
        reply = await door("POST", "/host/op", body=LOOK)
    assert (reply.headers["retry-after"], reply.json["retry_after_seconds"]) == ("1", 1)


async def test_a_defect_is_500_and_says_nothing_of_the_inside(
    door: Api, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        message = "secret-of-the-inside"
        raise KeyError(message)

    monkeypatch.setattr(door.bench.pipeline, "whoami", broken)
    reply = await door("GET", "/whoami")
    assert (reply.status, reply.code) == (500, "internal")
    assert b"secret" not in reply.body
    assert door.refusals() == [("internal", "deployer", None)]
    assert EXCHANGE_ID in caplog.text
    assert "secret-of-the-inside" in caplog.text


# -- the agent itself --------------------------------------------------------------------------


async def test_health_ready_and_operations(door: Api) -> None:
    assert (await door("GET", "/health")).json["status"] == "ok"
    assert (await door("GET", "/ready")).json == door.parts
    door.parts["audit"] = "cannot be written"
    reply = await door("GET", "/ready")
    assert (reply.status, reply.code) == (503, "audit:unavailable")
    assert reply.json["audit"] == "cannot be written"
    assert not door.refusals()
    assert (await door("GET", "/whoami")).json == {
        "cn": "deployer",
        "owner": "bob",
        "roles": ["caller"],
        "autonomy": "supervised",
        "host": door.bench.context.snapshot.config.host,
    }
    rows = (await door("GET", "/host/operations")).json["operations"]
    assert {row["name"].partition(".")[0] for row in rows} == {"git"}
    assert {row["tool"] for row in rows} > {"git_status", "git_pull"}


@pytest.mark.parametrize("form", ["mcp", "openai", "anthropic"])
async def test_what_can_be_asked_for_is_told_as_tools(door: Api, form: str) -> None:
    rows = (await door("GET", "/host/operations")).json["operations"]
    made = (await door("GET", f"/host/operations?format={form}")).json
    assert set(made) == {"tools"}
    names = [tool.get("function", tool)["name"] for tool in made["tools"]]
    assert names == [row["tool"] for row in rows]


@pytest.mark.parametrize("query", ["format=gpt", "format=", "format=mcp&format=mcp", "form=mcp"])
async def test_another_form_of_tools_is_refused(door: Api, query: str) -> None:
    reply = await door("GET", f"/host/operations?{query}")
    assert (reply.status, reply.code) == (400, "request:invalid-parameter")
    assert "tools" not in reply.json


async def test_a_broken_store_is_503(door: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object, **__: object) -> None:
        message = "The store cannot be read."
        raise StoreUnavailableError(message)

    monkeypatch.setattr(door.bench.store, "insert", broken)
    reply = await door("POST", "/host/op", body=PULL)
    assert (reply.status, reply.code) == (503, "store:unavailable")


async def test_the_interface_describes_itself(door: Api) -> None:
    reply = await door("GET", "/openapi.json")
    assert reply.status == 200
    assert json.loads(reply.body)["openapi"] == "3.1.0"


async def test_a_renewal_is_of_the_certificate_that_asks(door: Api) -> None:
    body = {"request": "csr", "proof": "sig"}
    reply = await door("POST", "/renewal", "deployer", body=body)
    assert (reply.status, reply.json) == (200, {"state": "signed", "certificate": "deployer: csr"})
    refused = await door("POST", "/renewal", body={"request": "refused", "proof": ""})
    assert (refused.status, refused.json["code"]) == (404, "renewal:not-offered")
    for hostile in (
        {"request": "csr"},
        {**body, "cn": "alice"},
        {**body, "proof": 1},
        {**body, "request": "x" * 16_385},
        {**body, "proof": "x" * 4097},
    ):
        assert (await door("POST", "/renewal", body=hostile)).status == 400
