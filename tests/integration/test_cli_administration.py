"""The commands about people, grants and identities over real mutual TLS and a real pipeline."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.client import AsyncClient, GrantBody
from host_agent.client.administration import approvers, enrol, grants, release, revoke
from host_agent.requests.grant import Grant
from host_agent.requests.model import GrantTerms, Request, State
from tests.support import counterpart
from tests.support.certificates import Leaf, Pki, make_pki
from tests.support.counterpart import Answer, CommandLine, Counterpart
from tests.support.people import ALICE, BRIDGE, PEOPLE
from tests.support.pipeline import ASIDE, PULL
from tests.support.terminal import Terminal

UNENROLLED = """
[[approvers]]
owner = "Carol"
channels = ["signal"]
"""
HOSTILE = "a\x1b[2K\u202e\nb"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def admin(pki: Pki) -> Leaf:
    return pki.client("root-admin")


@pytest.fixture
def agent(pki: Pki, tmp_path: Path) -> Iterator[Counterpart]:
    people = PEOPLE + UNENROLLED + BRIDGE
    with counterpart.running(tmp_path / "agent", pki, people=people) as running:
        yield running


@pytest.fixture
def run(
    agent: Counterpart,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> CommandLine:
    for name in ("URL", "CERT", "KEY", "CA"):
        monkeypatch.delenv(f"HOST_AGENT_{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return CommandLine(tmp_path, agent, capsys, cn="root-admin")


def held(
    agent: Counterpart, operation: str = "git.pull", params: Mapping[str, JsonValue] = PULL
) -> Request:
    """Have a request of the deployer's wait."""
    return agent.do(agent.bench.held(operation=operation, params=params))


def state(agent: Counterpart, request: Request) -> State:
    return agent.do(agent.bench.state(request))


def given(agent: Counterpart, **terms: Any) -> Grant:
    """Have alice approve a request with a grant, and return that."""
    request = held(agent)
    agent.do(agent.bench.decide(request, grant=GrantTerms(**terms)))
    agent.do(agent.bench.settle())
    return agent.do(agent.bench.store.grants())[0]


# -- approver -------------------------------------------------------------------------------------


def test_approvers_are_listed_with_their_channels(agent: Counterpart, run: CommandLine) -> None:
    assert run("approver", "list") == 0
    lines = [line.split() for line in run.out.splitlines()]
    assert lines[0] == ["OWNER", "ROLES", "CHANNEL", "IS", "ADDRESS"]
    assert ["alice", "approver", "signal", "configured", ALICE[-4:]] in lines
    assert ["carol", "approver", "signal", "not", "enrolled", "-"] in lines
    assert run("approver", "list", "--json") == 0
    shown = json.loads(run.out)["approvers"]
    assert [one["owner"] for one in shown] == ["alice", "erin", "bob", "carol"]


def test_no_approvers_are_said(agent: Counterpart, run: CommandLine) -> None:
    agent.say("GET", "/approvers", Answer(body={"approvers": []}))
    assert run("approver", "list") == 0
    assert (run.out, "No approvers" in run.err) == ("", True)


def test_an_enrolment_prints_what_to_send(agent: Counterpart, run: CommandLine) -> None:
    assert run("approver", "enrol", "carol", "--channel", "signal") == 0
    offered = agent.bench.last(Event.ENROLMENT_OFFERED)
    assert (offered["approver_owner"], offered["channel"]) == ("carol", "signal")
    assert "ENROL " in run.out
    assert run("approver", "enrol", "carol", "--channel", "signal", "--json") == 0
    offer = json.loads(run.out)
    assert (offer["owner"], offer["channel"], len(offer["code"])) == ("carol", "signal", 16)


@pytest.mark.parametrize(
    ("by", "owner", "status"),
    [("alice", "carol", 77), ("deployer", "carol", 77), ("root-admin", "nobody", 65)],
)
def test_a_refused_enrolment_shows_no_code(
    agent: Counterpart, run: CommandLine, by: str, owner: str, status: int
) -> None:
    run.become(by)
    assert run("approver", "enrol", owner, "--channel", "signal") == status
    assert run.out == ""
    assert Event.ENROLMENT_OFFERED not in agent.bench.events()


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
    agent: Counterpart, run: CommandLine, arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) == 64
    assert agent.seen == []


# -- grants ---------------------------------------------------------------------------------------


def test_grants_are_listed_with_what_is_left_of_them(agent: Counterpart, run: CommandLine) -> None:
    over, revoked = given(agent, count=1), None
    agent.do(agent.bench.ask())
    revoked = given(agent, count=1)
    agent.do(agent.bench.store.revoke_grant(revoked.id, by="frank", now=agent.bench.clock.now()))
    live = given(agent, count=3)
    agent.do(agent.bench.ask())

    assert run("grants", "list") == 0
    head, *lines = run.out.splitlines()
    assert head.startswith("GRANT")
    (shown,) = [line for line in lines if live.id in line]
    for words in ("live for", "git.pull", "branch=main", "1 used, 2 left"):
        assert words in shown
    assert [" over " in line for line in lines if over.id in line] == [True]
    assert [" revoked " in line for line in lines if revoked.id in line] == [True]
    assert run("grants", "list", "--live", "--json") == 0
    assert [grant["grant_id"] for grant in json.loads(run.out)["grants"]] == [live.id]


def test_no_grants_are_said(agent: Counterpart, run: CommandLine) -> None:
    given(agent, count=1)
    agent.do(agent.bench.ask())
    assert run("grants", "list", "--live") == 0
    assert (run.out, "No grants" in run.err) == ("", True)


@pytest.mark.promise("c31")
def test_hostile_grants_stay_text(agent: Counterpart, run: CommandLine) -> None:
    given(agent, count=3)
    assert run("grants", "list", "--json") == 0
    (grant,) = json.loads(run.out)["grants"]
    names = ("grant_id", "caller", "operation", "resource")
    hostile = {**grant, **dict.fromkeys(names, HOSTILE), "params": {HOSTILE: HOSTILE}}
    agent.say("GET", "/grants", Answer(body={"grants": [{**hostile, "given_by": [HOSTILE]}]}))
    assert run("grants", "list") == 0
    assert len(run.out.splitlines()) == 2
    assert all(line.isprintable() for line in run.out.splitlines())


def test_a_grant_is_revoked_and_nothing_runs_by_it(agent: Counterpart, run: CommandLine) -> None:
    grant = given(agent, count=3)
    ran = len(agent.bench.host.changes)

    assert run("grants", "revoke", grant.id) == 0
    assert run.out == f"{grant.id} is revoked; no further run by it begins.\n"
    assert agent.do(agent.bench.ask()).status == 202
    assert len(agent.bench.host.changes) == ran
    assert run("grants", "revoke", grant.id) == 65
    assert run("grants", "revoke", given(agent, count=3).id, "--json") == 0
    assert json.loads(run.out)["revoked_by"] == "root-admin"


def test_a_grant_that_is_not_there_is_not_revoked(agent: Counterpart, run: CommandLine) -> None:
    grant = given(agent, count=3)
    assert run("grants", "revoke", "0123") == 65
    assert run.out == ""
    assert agent.do(agent.bench.store.grants()) == [grant]


# -- identities -----------------------------------------------------------------------------------


def test_an_identity_is_released(agent: Counterpart, run: CommandLine) -> None:
    assert run("identities", "release", "deployer") == 0
    assert run.out == "deployer is released.\n"
    assert run("identities", "release", "deployer", "--json") == 0
    assert json.loads(run.out) == {"cn": "deployer", "released": True}
    assert agent.bench.last(Event.IDENTITY_RELEASED)["caller"] == "deployer"


def test_an_unknown_identity_is_not_released(agent: Counterpart, run: CommandLine) -> None:
    assert run("identities", "release", "librarian") == 65
    assert Event.IDENTITY_RELEASED not in agent.bench.events()


# -- approving with a grant -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "terms", "words"),
    [
        (
            ("--for", "30m", "--resource", "/srv/.*"),
            GrantTerms(for_seconds=1800, resource="/srv/.*"),
            "For 30 minutes, deployer may run git.pull on whatever matches /srv/.*",
        ),
        (("--count", "3"), GrantTerms(count=3), "Up to 3 more times within 24 hours, deployer"),
    ],
)
def test_a_script_grants_in_bounds(
    agent: Counterpart, run: CommandLine, options: tuple[str, ...], terms: GrantTerms, words: str
) -> None:
    request = held(agent)
    script = ("requests", "approve", request.id, "--yes", "--digest", request.digest)
    assert run(*script, *options) == 0
    assert words in run.err
    (consent,) = agent.do(agent.bench.request(request.id)).consents
    assert consent.grant == terms
    assert state(agent, request) is State.SUCCEEDED
    (grant,) = agent.do(agent.bench.store.grants())
    assert agent.do(agent.bench.ask()).body["grant"] == grant.id
    assert agent.do(agent.bench.ask("git.switch", ASIDE)).status == 202


def test_what_a_script_approved_is_told_as_one_object(agent: Counterpart, run: CommandLine) -> None:
    request = held(agent)
    script = ("requests", "approve", request.id, "--yes", "--digest", request.digest)
    assert run(*script, "--json") == 0
    assert json.loads(run.out)["state"] == "succeeded"
    assert agent.do(agent.bench.store.grants()) == []


@pytest.mark.parametrize(
    "options", [("--for", "30m", "--count", "1"), ("--resource", "x"), ("--for", "2d")]
)
def test_a_bad_grant_approves_nothing(
    agent: Counterpart, run: CommandLine, options: tuple[str, ...]
) -> None:
    request = held(agent)
    script = ("requests", "approve", request.id, "--yes", "--digest", request.digest)
    assert run(*script, *options) == 64
    assert agent.seen == []
    assert state(agent, request) is State.PENDING


@pytest.mark.parametrize(("answer", "status"), [("yes\n", 0), ("no\n", 75)])
def test_the_grant_is_shown_before_the_question(
    agent: Counterpart, admin: Leaf, tmp_path: Path, answer: str, status: int
) -> None:
    request = held(agent)
    counterpart.write_client_toml(tmp_path, url=agent.url, leaf=admin, ca=agent.pki.ca_path)
    command = ["requests", "approve", request.id, "--count", "3"]

    with Terminal(command, environ={"HOME": str(tmp_path)}, columns=300) as terminal:
        terminal.read_until("Type yes to approve: ")
        assert "Up to 3 more times within 24 hours, deployer may run git.pull" in terminal.text
        assert agent.paths() == [f"GET /requests/{request.id}"]
        terminal.type(answer)
        assert terminal.end() == status

    grants = agent.do(agent.bench.store.grants())
    assert [(grant.uses_left, grant.request_id) for grant in grants] == (
        [(3, request.id)] if status == 0 else []
    )
    assert (state(agent, request) is State.PENDING) is (status != 0)


# -- the library ----------------------------------------------------------------------------------


async def test_the_asynchronous_client_does_the_same(agent: Counterpart, admin: Leaf) -> None:
    grant, request = given(agent, count=3), held(agent, "git.switch", ASIDE)
    async with AsyncClient(
        url=agent.url,
        cert=admin.certificate_path,
        key=admin.key_path,
        ca=agent.pki.ca_path,
    ) as client:
        owners = [one.owner for one in await client.administer(approvers())]
        assert set(owners) == {"alice", "bob", "carol", "erin"}
        assert (await client.administer(enrol("carol", "signal"))).owner == "carol"
        assert (await client.administer(grants()))[0].uses_left == 3
        assert (await client.administer(revoke(grant.id))).revoked_at is not None
        assert (await client.administer(release("deployer"))).released
        view = await client.approve(request.id, request.digest, grant=GrantBody(count=1))
        assert [said.approver for said in view.decisions] == ["root-admin"]


@pytest.mark.parametrize("body", [{}, {"grants": {}}, {"grants": [{"grant_id": 1}]}])
def test_an_answer_of_another_shape_is_told(
    agent: Counterpart, run: CommandLine, body: dict[str, Any]
) -> None:
    agent.say("GET", "/grants", Answer(body=body))
    assert run("grants", "list") == 70
    assert "is it a newer version?" in run.err
