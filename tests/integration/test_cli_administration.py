"""The commands about people, grants and identities over real mutual TLS."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.__main__ import main
from host_agent.client import AsyncClient, GrantBody
from host_agent.client.administration import approvers, enrol, grants, release, revoke
from tests.support import fake_agent
from tests.support.certificates import Leaf, Pki, make_pki
from tests.support.fake_agent import DIGEST, REQUEST_ID, Answer, FakeAgent, problem
from tests.support.terminal import Terminal

GRANT = {
    "grant_id": "0123456789abcdef0123456789abcdef",
    "request_id": REQUEST_ID,
    "caller": "librarian",
    "operation": "zfs.snapshot",
    "resource": "tank/media",
    "params": {"name": "daily", "recursive": False},
    "given_by": ["alice"],
    "created_at": "2026-11-20T21:00:00Z",
    "expires_at": fake_agent.FAR_FUTURE,
    "uses_left": 2,
    "used": 1,
    "is_live": True,
    "revoked_at": None,
    "revoked_by": None,
}
OVER = {**GRANT, "grant_id": "ff", "is_live": False, "uses_left": 0, "used": 3}
REVOKED = {**GRANT, "grant_id": "ee", "is_live": False, "revoked_at": "2026-11-20T21:30:00Z"}
APPROVERS = {
    "approvers": [
        {
            "owner": "alice",
            "roles": ["approver"],
            "channels": [
                {"channel": "signal", "state": "enrolled", "address": "3f0a"},
                {"channel": "ntfy", "state": "configured", "address": None},
            ],
        },
        {"owner": "bob", "roles": ["admin"], "channels": []},
    ]
}
OFFER = {
    "owner": "alice",
    "channel": "signal",
    "code": "ABCDEFGHJKLMNPQR",
    "expires_at": "2026-11-20T22:00:00Z",
}
HOSTILE = "a\x1b[2K\u202e\nb"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def admin(pki: Pki) -> Leaf:
    return pki.client("root-admin")


@pytest.fixture
def agent(pki: Pki) -> Iterator[FakeAgent]:
    with fake_agent.running(pki) as running:
        yield running


class Run:
    """Runs a command line in this process and keeps what it printed."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        status = main(arguments)
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err
        return status


@pytest.fixture
def run(
    agent: FakeAgent,
    admin: Leaf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    for name in ("URL", "CERT", "KEY", "CA"):
        monkeypatch.delenv(f"HOST_AGENT_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    fake_agent.write_client_toml(tmp_path, url=agent.url, leaf=admin, ca=agent.pki.ca_path)
    return Run(capsys)


# -- approver -------------------------------------------------------------------------------------


def test_approvers_are_listed_with_their_channels(agent: FakeAgent, run: Run) -> None:
    agent.script("GET", "/approvers", Answer(body=APPROVERS))

    assert run("approver", "list") == 0
    lines = [line.split() for line in run.out.splitlines()]
    assert lines == [
        ["OWNER", "ROLES", "CHANNEL", "IS", "ADDRESS"],
        ["alice", "approver", "signal", "enrolled", "3f0a"],
        ["alice", "approver", "ntfy", "configured", "-"],
        ["bob", "admin", "-", "-", "-"],
    ]
    assert run("approver", "list", "--json") == 0
    assert json.loads(run.out) == APPROVERS


def test_no_approvers_are_said(agent: FakeAgent, run: Run) -> None:
    agent.script("GET", "/approvers", Answer(body={"approvers": []}))
    assert run("approver", "list") == 0
    assert (run.out, "No approvers" in run.err) == ("", True)


def test_an_enrolment_prints_what_to_send(agent: FakeAgent, run: Run) -> None:
    agent.script("POST", "/approvers/alice/enrol", Answer(body=OFFER))

    assert run("approver", "enrol", "alice", "--channel", "signal") == 0
    assert "ENROL ABCDEFGHJKLMNPQR" in run.out
    assert "2026-11-20T22:00:00Z" in run.out
    assert agent.seen[-1].body == {"channel": "signal"}
    assert run("approver", "enrol", "alice", "--channel", "signal", "--json") == 0
    assert json.loads(run.out) == OFFER


@pytest.mark.parametrize(
    ("code", "http", "status"),
    [("identity:role-required", 403, 77), ("request:not-found", 404, 65)],
)
def test_a_refused_enrolment_shows_no_code(
    agent: FakeAgent, run: Run, code: str, http: int, status: int
) -> None:
    agent.script("POST", "/approvers/alice/enrol", problem(code, http))
    assert run("approver", "enrol", "alice", "--channel", "signal") == status
    assert run.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("approver", "enrol", "alice"),
        ("approver", "enrol", "alice", "--channel", "../pigeon"),
        ("approver", "enrol", "../grants", "--channel", "signal"),
        ("approver", "enrol", "", "--channel", "signal"),
        ("grants", "revoke", ".."),
        ("grants", "revoke", "a/b"),
        ("identities", "release", "a b"),
        ("identities", "release"),
    ],
)
def test_what_cannot_be_a_name_is_never_sent(
    agent: FakeAgent, run: Run, arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) == 64
    assert agent.seen == []


# -- grants ---------------------------------------------------------------------------------------


def test_grants_are_listed_with_what_is_left_of_them(agent: FakeAgent, run: Run) -> None:
    agent.script("GET", "/grants", Answer(body={"grants": [GRANT, OVER, REVOKED]}))

    assert run("grants", "list") == 0
    head, live, over, revoked = run.out.splitlines()
    assert head.startswith("GRANT")
    for words in (GRANT["grant_id"], "live for", "zfs.snapshot", "name=daily", "1 used, 2 left"):
        assert str(words) in live
    assert " over " in over
    assert " revoked " in revoked
    assert run("grants", "list", "--live", "--json") == 0
    assert json.loads(run.out) == {"grants": [GRANT]}


def test_no_grants_are_said(agent: FakeAgent, run: Run) -> None:
    agent.script("GET", "/grants", Answer(body={"grants": [OVER]}))
    assert run("grants", "list", "--live") == 0
    assert (run.out, "No grants" in run.err) == ("", True)


@pytest.mark.promise("c31")
def test_hostile_grants_stay_text(agent: FakeAgent, run: Run) -> None:
    names = ("grant_id", "caller", "operation", "resource")
    hostile = {**GRANT, **dict.fromkeys(names, HOSTILE), "params": {HOSTILE: HOSTILE}}
    agent.script("GET", "/grants", Answer(body={"grants": [{**hostile, "given_by": [HOSTILE]}]}))
    assert run("grants", "list") == 0
    assert len(run.out.splitlines()) == 2
    assert all(line.isprintable() for line in run.out.splitlines())


def test_a_grant_is_revoked_once(agent: FakeAgent, run: Run) -> None:
    agent.script("POST", "/grants/0123/revoke", Answer(body={**REVOKED, "grant_id": "0123"}))

    assert run("grants", "revoke", "0123") == 0
    assert run.out == "0123 is revoked; no further run by it begins.\n"
    assert agent.seen[-1].body is None
    assert run("grants", "revoke", "0123", "--json") == 0
    assert json.loads(run.out)["revoked_at"] == "2026-11-20T21:30:00Z"


def test_a_grant_that_is_not_there_is_not_revoked(agent: FakeAgent, run: Run) -> None:
    agent.script("POST", "/grants/0123/revoke", problem("request:not-found", 404))
    assert run("grants", "revoke", "0123") == 65
    assert run.out == ""


# -- identities -----------------------------------------------------------------------------------


def test_an_identity_is_released(agent: FakeAgent, run: Run) -> None:
    body = {"cn": "librarian", "released": True}
    agent.script("POST", "/identities/librarian/release", Answer(body=body))
    assert run("identities", "release", "librarian") == 0
    assert run.out == "librarian is released.\n"
    assert run("identities", "release", "librarian", "--json") == 0
    assert json.loads(run.out) == body


def test_an_unknown_identity_is_not_released(agent: FakeAgent, run: Run) -> None:
    agent.script("POST", "/identities/librarian/release", problem("request:not-found", 404))
    assert run("identities", "release", "librarian") == 65


# -- approving with a grant -----------------------------------------------------------------------


def approved(**members: Any) -> Answer:
    return Answer(body=fake_agent.view(state="approved", **members))


def test_a_script_grants_in_bounds(agent: FakeAgent, run: Run) -> None:
    waits, done = fake_agent.view(), fake_agent.view(state="succeeded")
    looks = [Answer(body=body) for body in (waits, done, waits, done)]
    agent.script("GET", f"/requests/{REQUEST_ID}", *looks)
    agent.script("POST", f"/requests/{REQUEST_ID}/decision", approved())
    script = ("requests", "approve", REQUEST_ID, "--yes", "--digest", DIGEST)

    assert run(*script, "--for", "30m", "--resource", "/srv/.*") == 0
    grant: dict[str, Any] = {"for_seconds": 1800, "resource": "/srv/.*"}
    given = {"decision": "approve", "digest": DIGEST, "grant": grant}
    assert [seen.body for seen in agent.seen if seen.method == "POST"] == [given]
    assert "For 30 minutes, librarian may run git.pull on whatever matches /srv/.*" in run.err

    assert run(*script, "--count", "3", "--json") == 0
    assert [seen.body for seen in agent.seen if seen.method == "POST"][-1]["grant"] == {"count": 3}
    assert json.loads(run.out)["state"] == "succeeded"


@pytest.mark.parametrize(
    "options", [("--for", "30m", "--count", "1"), ("--resource", "x"), ("--for", "2d")]
)
def test_a_bad_grant_approves_nothing(agent: FakeAgent, run: Run, options: tuple[str, ...]) -> None:
    script = ("requests", "approve", REQUEST_ID, "--yes", "--digest", DIGEST)
    assert run(*script, *options) == 64
    assert agent.seen == []


@pytest.mark.parametrize(("answer", "status"), [("yes\n", 0), ("no\n", 75)])
def test_the_grant_is_shown_before_the_question(
    agent: FakeAgent, admin: Leaf, tmp_path: Path, answer: str, status: int
) -> None:
    agent.script("GET", f"/requests/{REQUEST_ID}", Answer(body=fake_agent.view()))
    agent.script("POST", f"/requests/{REQUEST_ID}/decision", approved())
    fake_agent.write_client_toml(tmp_path, url=agent.url, leaf=admin, ca=agent.pki.ca_path)
    command = ["requests", "approve", REQUEST_ID, "--count", "3"]

    with Terminal(command, environ={"HOME": str(tmp_path)}, columns=300) as terminal:
        terminal.read_until("Type yes to approve: ")
        assert "Up to 3 more times within 24 hours, librarian may run git.pull" in terminal.text
        assert agent.paths() == [f"GET /requests/{REQUEST_ID}"]
        terminal.type(answer)
        assert terminal.end() == status

    sent = [seen.body for seen in agent.seen if seen.method == "POST"]
    given = {"decision": "approve", "digest": DIGEST, "grant": {"count": 3}}
    assert sent == ([given] if status == 0 else [])


# -- the library ----------------------------------------------------------------------------------


async def test_the_asynchronous_client_does_the_same(agent: FakeAgent, admin: Leaf) -> None:
    agent.script("GET", "/approvers", Answer(body=APPROVERS))
    agent.script("POST", "/approvers/a@b/enrol", Answer(body=OFFER))
    agent.script("POST", "/approvers/a%40b/enrol", Answer(body=OFFER))
    agent.script("GET", "/grants", Answer(body={"grants": [GRANT]}))
    agent.script("POST", "/grants/01/revoke", Answer(body=REVOKED))
    agent.script(
        "POST", "/identities/librarian/release", Answer(body={"cn": "librarian", "released": True})
    )
    agent.script("POST", f"/requests/{REQUEST_ID}/decision", approved())
    async with AsyncClient(
        url=agent.url,
        cert=admin.certificate_path,
        key=admin.key_path,
        ca=agent.pki.ca_path,
    ) as client:
        assert [one.owner for one in await client.administer(approvers())] == ["alice", "bob"]
        assert (await client.administer(enrol("a@b", "signal"))).code == OFFER["code"]
        assert (await client.administer(grants()))[0].uses_left == 2
        assert (await client.administer(revoke("01"))).revoked_at is not None
        assert (await client.administer(release("librarian"))).released
        view = await client.approve(REQUEST_ID, DIGEST, grant=GrantBody(count=1))
        assert view.state == "approved"


@pytest.mark.parametrize("body", [{}, {"grants": {}}, {"grants": [{"grant_id": 1}]}])
def test_an_answer_of_another_shape_is_told(
    agent: FakeAgent, run: Run, body: dict[str, Any]
) -> None:
    agent.script("GET", "/grants", Answer(body=body))
    assert run("grants", "list") == 70
    assert "is it a newer version?" in run.err
