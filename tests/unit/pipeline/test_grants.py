"""A grant stands in for asking again, for exactly what it binds, and for nothing once lost."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.errors import (
    AuditUnavailableError,
    HostAgentError,
    HostNotFoundError,
    InvalidParameterError,
    PolicyDeniedError,
    RequestNotFoundError,
    RevokedIdentityError,
    RoleRequiredError,
    TargetChangedError,
)
from host_agent.pipeline.approver_identity import identity_over
from host_agent.pipeline.context import refresh_contacts
from host_agent.pipeline.grants import check_terms, make_grant, may_be_granted
from host_agent.requests.grant import Grant
from host_agent.requests.model import GrantTerms, Request, State, Verb
from host_agent.store.store import RequestStore
from tests.support.pipeline import (
    ASIDE,
    PULL,
    REPOSITORY,
    RESET,
    STATUS,
    Workbench,
    opened,
    output,
    serial_of,
)
from tests.support.site import IDENTITIES, RULES

OTHER = "/srv/other"
GIT = "".join(
    f"""
[[git.repositories]]
path = "{path}"
remotes = ["origin"]
branches = ["main", "topic"]
"""
    for path in (REPOSITORY, OTHER)
)
ANYWHERE = GrantTerms(count=3, resource="/srv/.*")
PLAIN = IDENTITIES.replace('autonomy = "full"\nskip_ask = true', "")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path, git=GIT, identities=PLAIN) as bench:
        yield bench


async def give(
    bench: Workbench, terms: GrantTerms | None = None, *, by: str = "alice", **asked: Any
) -> Grant:
    """Have a request approved with a grant, let it run, and return the grant."""
    request = await bench.held(**asked)
    await bench.decide(request, by=by, grant=terms or GrantTerms(count=3))
    await bench.settle()
    assert await bench.state(request) is State.SUCCEEDED
    return (await bench.store.grants())[0]


async def held(bench: Workbench, **asked: Any) -> Request:
    """Ask, and see that nothing ran and that a person is asked."""
    before = list(bench.host.changes)
    request = await bench.held(**asked)
    assert request.state is State.PENDING
    assert bench.host.changes == before
    return request


# -- it is used -----------------------------------------------------------------------------------


async def test_a_grant_runs_the_same_again_and_says_so(bench: Workbench) -> None:
    grant = await give(bench, GrantTerms(count=2))
    started = bench.events().count("operation.started")
    answer = await bench.ask(reason="again")
    assert (answer.status, answer.body["state"]) == (200, "succeeded")
    assert answer.body["grant"] == grant.id
    assert bench.events().count("operation.started") == started + 1
    for event in (Event.OPERATION_STARTED, Event.OPERATION_FINISHED):
        assert bench.last(event)["grant"] == grant.id
        assert bench.last(event)["request_id"] == answer.body["request_id"]
    stored = await bench.request(str(answer.body["request_id"]))
    assert (stored.state, stored.decisions) == (State.SUCCEEDED, ())
    used = (await bench.store.grants())[0]
    assert (used.used, used.uses_left) == (1, 1)


async def test_what_ran_without_a_grant_names_none(bench: Workbench) -> None:
    grant = await give(bench)
    assert "grant" not in bench.last(Event.OPERATION_STARTED)
    answer = await bench.ask("git.status", STATUS)
    assert "grant" not in answer.body
    assert (await bench.store.grants())[0] == grant


async def test_a_read_that_asks_can_be_granted(tmp_path: Path) -> None:
    rules = RULES.replace('verdict = "allow"', 'verdict = "ask"', 1)
    async with opened(tmp_path, rules=rules) as bench:
        grant = await give(bench, operation="git.status", params=STATUS)
        answer = await bench.ask("git.status", STATUS)
        assert (answer.status, answer.body["grant"]) == (200, grant.id)
        assert bench.last(Event.OPERATION_FINISHED)["grant"] == grant.id
        await held(bench, operation="git.log", params=STATUS)


async def test_a_pattern_covers_other_resources_with_the_same_parameters(bench: Workbench) -> None:
    grant = await give(bench, ANYWHERE)
    answer = await bench.ask(params={**PULL, "repository": OTHER})
    assert answer.body["grant"] == grant.id
    assert [run[1] for run in bench.host.changes] == [REPOSITORY, OTHER]


async def test_the_key_of_a_granted_run_gives_its_answer_again(bench: Workbench) -> None:
    await give(bench, GrantTerms(count=1))
    first = await bench.ask(key="k1")
    assert await bench.ask(key="k1") == first
    assert (await bench.store.grants())[0].used == 1


async def test_a_failed_run_is_a_use(bench: Workbench) -> None:
    await give(bench, GrantTerms(count=1))
    bench.host.answers["pull"] = output(exit_code=1, stderr="fatal: no\n")
    with pytest.raises(HostAgentError) as caught:
        await bench.ask()
    assert caught.value.code == "host:failed"
    del bench.host.answers["pull"]
    await held(bench)


async def test_what_is_not_there_uses_nothing(bench: Workbench) -> None:
    grant = await give(bench)
    bench.host.answers["inspect-pull"] = output(exit_code=66, stderr="host-agent: no branch\n")
    with pytest.raises(HostNotFoundError):
        await bench.ask()
    assert (await bench.store.grants())[0] == grant


async def test_what_waits_already_is_attached_to_and_uses_nothing(bench: Workbench) -> None:
    waiting = await bench.held(params={**PULL, "repository": OTHER})
    grant = await give(bench, ANYWHERE)
    bench.host.head = "a" * 40  # as when that was asked for
    answer = await bench.ask(params={**PULL, "repository": OTHER})
    assert (answer.status, answer.body["request_id"]) == (202, waiting.id)
    assert (await bench.store.grants())[0] == grant


# -- it is not used -------------------------------------------------------------------------------


async def test_a_grant_is_of_its_caller_alone(bench: Workbench) -> None:
    await give(bench, ANYWHERE)
    await held(bench, by="robot")


async def test_a_grant_is_for_its_own_resource_alone(bench: Workbench) -> None:
    await give(bench)
    await held(bench, params={**PULL, "repository": OTHER})


async def test_a_pattern_is_matched_whole(bench: Workbench) -> None:
    await give(bench, GrantTerms(count=3, resource="/srv/ap."))
    bench.reconfigure(identities=PLAIN, git=GIT.replace(OTHER, "/srv/app2"))
    await held(bench, params={**PULL, "repository": "/srv/app2"})


async def test_a_grant_binds_every_other_parameter(bench: Workbench) -> None:
    await give(bench, ANYWHERE)
    await held(bench, params={**PULL, "branch": "topic"})


async def test_a_grant_is_for_its_own_operation_alone(bench: Workbench) -> None:
    await give(bench, ANYWHERE)
    await held(bench, operation="git.switch", params=ASIDE)


async def test_a_grant_ends_at_its_time(bench: Workbench) -> None:
    grant = await give(bench, GrantTerms(for_seconds=60))
    bench.clock.advance(seconds=(grant.expires_at - bench.clock.now()).total_seconds() - 1)
    assert (await bench.ask()).status == 200
    bench.clock.advance(seconds=1)
    await held(bench)


async def test_using_a_grant_does_not_extend_it(bench: Workbench) -> None:
    grant = await give(bench, GrantTerms(for_seconds=60))
    bench.clock.advance(seconds=30)
    await bench.ask()
    assert (await bench.store.grants())[0].expires_at == grant.expires_at


async def test_a_counted_grant_ends_after_a_day_too(bench: Workbench) -> None:
    await give(bench, GrantTerms(count=3))
    bench.clock.advance(hours=24)
    await held(bench)


async def test_a_grant_is_used_up(bench: Workbench) -> None:
    await give(bench, GrantTerms(count=1))
    assert (await bench.ask()).status == 200
    await held(bench)


async def test_two_processes_at_the_last_use_run_it_once(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = await give(bench, GrantTerms(count=1))
    use = bench.store.use_grant
    other = RequestStore(bench.context.snapshot.config.store.path)
    await other.open()

    async def use_second(grant_id: str, now: datetime) -> bool:
        """Let the other process be quicker, after this one has seen that there is a use left."""
        assert await other.use_grant(grant_id, now)
        return await use(grant_id, now)

    try:
        monkeypatch.setattr(bench.store, "use_grant", use_second)
        await held(bench)
    finally:
        await other.close()
    used = (await bench.store.grants())[0]
    assert (used.id, used.used, used.uses_left) == (grant.id, 1, 0)


async def test_many_at_once_run_as_often_as_granted(bench: Workbench) -> None:
    await give(bench, GrantTerms(count=2, resource="/srv/.*"))
    before = len(bench.host.changes)
    paths = [REPOSITORY, OTHER] * 3
    answers = await asyncio.gather(
        *(bench.ask(params={**PULL, "repository": path}) for path in paths)
    )
    assert len(bench.host.changes) - before <= 2
    assert (await bench.store.grants())[0].used <= 2
    assert sum("grant" in answer.body for answer in answers) == len(bench.host.changes) - before


async def test_a_revoked_grant_is_not_used(bench: Workbench) -> None:
    grant = await give(bench, ANYWHERE)
    await bench.pipeline.grants.revoke_grant(bench.who("alice"), grant.id[:8])
    await held(bench)


async def test_a_grant_revoked_while_its_use_waits_for_its_turn_is_not_used(
    bench: Workbench,
) -> None:
    await give(bench, ANYWHERE)
    gate = bench.host.hold("pull")
    first = asyncio.ensure_future(bench.ask())
    await bench.host.reached["pull"].wait()
    bench.host.tip = "c" * 40
    second = asyncio.ensure_future(bench.ask())
    turn = bench.context.catalogue.parse("git.pull", PULL).turn
    while bench.context.slots.is_free(turn) or len(bench.context.tasks) < 2:
        await asyncio.sleep(0)
    grant = (await bench.store.grants())[0]
    await bench.pipeline.grants.revoke_grant(bench.who("alice"), grant.id)
    gate.set()
    assert (await first).status == 200
    assert (await second).status == 202
    assert (await bench.store.grants())[0].used == 1


async def test_a_grant_of_an_approver_without_the_role_is_not_used(bench: Workbench) -> None:
    await give(bench, ANYWHERE)
    text = PLAIN.replace('cn = "alice"\nroles = ["approver"]', 'cn = "alice"\nroles = ["caller"]')
    bench.reconfigure(identities=text, git=GIT)
    await held(bench)


async def test_a_grant_of_an_approver_who_is_gone_is_not_used(bench: Workbench) -> None:
    await give(bench, ANYWHERE)
    text = PLAIN.replace('cn = "alice"\nroles = ["approver"]', 'cn = "ann"\nroles = ["approver"]')
    bench.reconfigure(identities=text, git=GIT)
    await held(bench)


async def test_a_grant_of_a_revoked_approver_is_not_used(bench: Workbench) -> None:
    await give(bench, ANYWHERE)
    bench.revocations.revoked.add(serial_of("alice"))
    await held(bench)


async def test_a_grant_of_who_acts_for_the_callers_owner_by_now_is_not_used(
    bench: Workbench,
) -> None:
    await give(bench, ANYWHERE)
    owned = PLAIN.replace('cn = "deployer"\nowner = "bob"', 'cn = "deployer"\nowner = "Alice"')
    bench.reconfigure(identities=owned, git=GIT)
    await held(bench)


async def test_a_grant_over_a_channel_is_lost_with_its_address(tmp_path: Path) -> None:
    aci = "3f0a1b2c-0000-4000-8000-0123456789ab"
    people = f"""
[channels.signal]
socket = "/run/signal-cli/socket"
account = "+431234567"
[[approvers]]
owner = "alice"
signal = "{aci}"
channels = ["signal"]
"""
    async with opened(tmp_path, git=GIT + people, identities=PLAIN) as bench:
        await refresh_contacts(bench.context)
        voice = identity_over(bench.context, "alice", "signal", aci)
        assert voice is not None
        request = await bench.held()
        await bench.pipeline.decisions.decide_as(
            voice,
            request.id,
            decision=Verb.APPROVE,
            digest=request.digest,
            reason=None,
            grant=ANYWHERE,
        )
        await bench.settle()
        assert (await bench.ask()).status == 200
        await bench.pipeline.enrolment.identity_changed("alice", "signal", aci)
        bench.reconfigure(git=GIT + people, identities=PLAIN, approvals="command_line = true")
        await held(bench)


@pytest.mark.parametrize(
    "stricter",
    ["approvals = 2", 'approvers = ["erin"]', 'approver_role = "admin"'],
)
async def test_a_grant_of_fewer_than_are_needed_by_now_is_not_used(
    bench: Workbench, stricter: str
) -> None:
    await give(bench, ANYWHERE)
    rules = RULES.replace('verdict = "ask"', f'verdict = "ask"\n{stricter}', 1)
    bench.reconfigure(rules=rules, identities=PLAIN, git=GIT)
    await held(bench)


async def test_a_rule_that_always_asks_by_now_uses_no_grant(bench: Workbench) -> None:
    await give(bench, ANYWHERE)
    rules = RULES.replace('verdict = "ask"', 'verdict = "ask"\nalways_ask = true', 1)
    bench.reconfigure(rules=rules, identities=PLAIN, git=GIT)
    await held(bench)


@pytest.mark.parametrize(
    "changed",
    [
        {"rules": RULES.replace('verdict = "ask"', 'verdict = "deny"', 1), "git": GIT},
        {"rules": RULES, "git": GIT.replace("main", "release")},
    ],
    ids=["rule", "allow-list"],
)
async def test_a_policy_that_denies_by_now_is_not_lifted_by_a_grant(
    bench: Workbench, changed: dict[str, str]
) -> None:
    grant = await give(bench, ANYWHERE)
    ran = list(bench.host.changes)
    bench.reconfigure(identities=PLAIN, **changed)
    with pytest.raises(PolicyDeniedError):
        await bench.ask()
    assert bench.host.changes == ran
    assert (await bench.store.grants())[0] == grant


async def test_a_policy_that_denies_while_a_use_waits_for_its_turn_is_not_lifted(
    bench: Workbench,
) -> None:
    await give(bench, ANYWHERE)
    gate = bench.host.hold("pull")
    first = asyncio.ensure_future(bench.ask())
    await bench.host.reached["pull"].wait()
    bench.host.tip = "c" * 40
    second = asyncio.ensure_future(bench.ask())
    while len(bench.context.tasks) < 2:
        await asyncio.sleep(0)
    denied = RULES.replace('verdict = "ask"', 'verdict = "deny"', 1)
    bench.reconfigure(rules=denied, identities=PLAIN, git=GIT)
    gate.set()
    assert (await first).status == 200
    with pytest.raises(PolicyDeniedError):
        await second
    assert (await bench.store.grants())[0].used == 1


async def test_a_revoked_caller_uses_no_grant(bench: Workbench) -> None:
    await give(bench, ANYWHERE)
    ran, principal = list(bench.host.changes), bench.who("deployer")
    bench.revocations.revoked.add(serial_of("deployer"))
    with pytest.raises(RevokedIdentityError):
        await bench.ask()
    assert (principal.cn, bench.host.changes) == ("deployer", ran)


async def test_a_use_that_cannot_be_written_down_does_not_run(bench: Workbench) -> None:
    await give(bench, ANYWHERE)
    ran = list(bench.host.changes)
    bench.audit.refused = frozenset({Event.OPERATION_STARTED})
    with pytest.raises(AuditUnavailableError):
        await bench.ask()
    assert bench.host.changes == ran


# -- it is given ----------------------------------------------------------------------------------


async def test_a_plain_approval_gives_none(bench: Workbench) -> None:
    await bench.decide(await bench.held())
    await bench.settle()
    assert await bench.store.grants() == []
    await held(bench)


async def test_a_consent_that_cannot_be_written_down_gives_none(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    request = await bench.held()
    bench.audit.refused = frozenset({Event.REQUEST_DECIDED})
    with pytest.raises(AuditUnavailableError):
        await bench.decide(request, grant=ANYWHERE)
    bench.audit.refused = frozenset()
    (grant,) = await bench.store.grants()
    assert (grant.revoked_by, grant.is_live(bench.clock.now())) == ("host-agent", False)
    await held(bench)
    assert "could not be revoked" not in caplog.text


async def test_what_was_approved_and_did_not_run_gives_no_grant(bench: Workbench) -> None:
    """A yes to what was shown is no yes to what came in its place."""
    request = await bench.held()
    bench.host.head = "e" * 40
    with pytest.raises(TargetChangedError):
        await bench.decide(request, grant=ANYWHERE)
    await bench.settle()
    (grant,) = await bench.store.grants()
    assert (grant.revoked_by, grant.is_live(bench.clock.now())) == ("host-agent", False)
    await held(bench)


async def test_a_grant_is_not_used_before_the_run_that_it_was_given_with(
    bench: Workbench,
) -> None:
    request = await bench.held()
    gate = bench.host.hold("inspect-pull")
    deciding = asyncio.create_task(bench.decide(request, grant=ANYWHERE))
    await bench.host.reached["inspect-pull"].wait()
    (grant,) = await bench.store.grants()
    now = bench.clock.now()
    assert await bench.store.live_grants("deployer", "git.pull", now) == []
    assert not await bench.store.use_grant(grant.id, now)
    gate.set()
    await deciding
    await bench.settle()
    assert await bench.store.live_grants("deployer", "git.pull", now) == [grant]


async def test_a_quorum_gives_what_all_of_it_gave_alike(bench: Workbench) -> None:
    async def twice(first: GrantTerms | None, second: GrantTerms | None) -> int:
        before = len(await bench.store.grants())
        request = await bench.held(operation="git.reset", params=RESET, reason="undo")
        await bench.decide(request, by="alice", grant=first)
        await bench.decide(request, by="erin", grant=second)
        await bench.settle()
        assert await bench.state(request) is State.SUCCEEDED
        return len(await bench.store.grants()) - before

    once = GrantTerms(count=1)
    assert await twice(once, GrantTerms(count=2)) == 0
    assert await twice(once, None) == 0
    assert await twice(None, once) == 0
    assert await twice(once, GrantTerms(count=1, resource="/srv/.*")) == 0
    assert await twice(once, once) == 1
    given = (await bench.store.grants())[0]
    assert {consent.owner for consent in given.consents} == {"alice", "erin"}
    answer = await bench.ask("git.reset", RESET, reason="undo")
    assert answer.body["grant"] == given.id


async def test_a_denial_gives_none(bench: Workbench) -> None:
    await bench.decide(await bench.held(), Verb.DENY)
    assert await bench.store.grants() == []


async def test_what_is_bound_is_what_was_approved(bench: Workbench) -> None:
    grant = await give(bench, GrantTerms(for_seconds=600))
    assert grant.params == {"remote": "origin", "branch": "main"}
    assert grant.resource == re.escape(REPOSITORY)
    assert grant.expires_at - grant.created_at == timedelta(minutes=10)
    assert (grant.caller, grant.operation) == ("deployer", "git.pull")
    assert grant.uses_left is None


@pytest.mark.parametrize(
    "terms",
    [
        GrantTerms(),
        GrantTerms(for_seconds=60, count=1),
        GrantTerms(for_seconds=59),
        GrantTerms(for_seconds=86_401),
        GrantTerms(count=0),
        GrantTerms(count=-1),
        GrantTerms(count=1001),
        GrantTerms(count=True),
        GrantTerms(count=1, resource=""),
        GrantTerms(count=1, resource="("),
        GrantTerms(count=1, resource="/srv/\u0430pp"),
        GrantTerms(count=1, resource="/srv/other"),
        GrantTerms(count=1, resource="/srv/ap"),
        GrantTerms(count=1, resource="srv"),
        GrantTerms(count=1, resource="/srv/app" + "x?" * 130),
        GrantTerms(count=1, resource="(/srv/a+)+pp"),
        GrantTerms(count=1, resource=".*.*.*.*"),
        GrantTerms(count=1, resource="(|/)(|s)rv/app"),
        GrantTerms(count=1, resource="(?:/srv/app)"),
        GrantTerms(count=1, resource="a|b|c|d|e|f|g|h|/srv/app"),
    ],
    ids=str,
)
async def test_terms_out_of_bounds_are_refused_and_nothing_is_decided(
    bench: Workbench, terms: GrantTerms
) -> None:
    request = await bench.held()
    with pytest.raises(InvalidParameterError):
        await bench.decide(request, grant=terms)
    assert await bench.request(request.id) == request
    assert bench.host.changes == []
    assert await bench.store.grants() == []


@pytest.mark.parametrize(
    "resource",
    ["/srv/app", "/srv/.*", "/.*/.*p", r"/srv/app(-[a-z]+|)", r"/srv/[\w*+?(-]+", r"/srv/(app|x)"],
)
async def test_patterns_that_people_write_are_taken(bench: Workbench, resource: str) -> None:
    check_terms(await bench.held(), GrantTerms(count=1, resource=resource))


@pytest.mark.parametrize(
    "pattern", [".*" * 3 + "!", "([^/]*[^@]*x{0,99}|" + "a|" * 6 + "b)", "a?" * 3 + "a" * 200]
)
async def test_no_pattern_that_is_taken_is_slow(bench: Workbench, pattern: str) -> None:
    """An approver's pattern is matched in the loop that serves everybody."""
    request = replace(await bench.held(), resource="a" * 255)
    started = time.process_time()
    with contextlib.suppress(InvalidParameterError):
        check_terms(request, GrantTerms(count=1, resource=pattern))
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("operation", "params", "rules"),
    [
        ("git.pull", PULL, RULES.replace('"ask"', '"ask"\nalways_ask = true', 1)),
        ("git.pull", PULL, RULES.replace('"ask"', '"allow"', 1)),
        ("git.pull", PULL, RULES.replace('"ask"', '"deny"', 1)),
        ("git.pull", PULL, ""),
    ],
    ids=["always asks", "allowed", "denied", "no rule"],
)
async def test_what_is_not_simply_asked_is_never_granted(
    bench: Workbench, operation: str, params: dict[str, JsonValue], rules: str
) -> None:
    request = await bench.held(operation=operation, params=params)
    assert may_be_granted(bench.context, request)
    bench.reconfigure(rules=rules, identities=PLAIN, git=GIT)
    assert not may_be_granted(bench.context, request)
    with pytest.raises(InvalidParameterError, match="asked each time"):
        await bench.decide(request, grant=GrantTerms(count=1))
    assert await bench.state(request) is State.PENDING


async def test_what_always_asks_or_has_no_resource_is_never_granted(bench: Workbench) -> None:
    rules = """
[[rules]]
name = "all asks"
operations = ["zfs.*", "pct.*"]
verdict = "ask"
"""
    more = GIT + '[zfs]\ndatasets = ["tank/.*"]\n[pct]\nvmids = "100-199"\n'
    request = await bench.held()
    bench.reconfigure(rules=rules, identities=PLAIN, git=more)

    def asked(operation: str, **params: JsonValue) -> Request:
        parsed = bench.context.catalogue.parse(operation, params)
        return replace(
            request,
            operation=operation,
            params=parsed.params.canonical(),
            resource=parsed.resource,
        )

    assert may_be_granted(bench.context, asked("zfs.destroy", dataset="tank/a"))
    assert not may_be_granted(bench.context, asked("zfs.destroy", dataset="tank/a", recursive=True))
    assert not may_be_granted(bench.context, asked("pct.destroy", vmid="101"))
    assert may_be_granted(bench.context, asked("pct.stop", vmid="101"))
    assert not may_be_granted(bench.context, asked("pct.list"))
    assert not may_be_granted(bench.context, asked("zfs.list"))
    assert not may_be_granted(bench.context, replace(request, operation="git.push"))
    assert not may_be_granted(bench.context, replace(request, caller="nobody"))
    assert make_grant(bench.context, asked("pct.destroy", vmid="101"), bench.clock.now()) is None


# -- it is listed and revoked ---------------------------------------------------------------------


@pytest.mark.parametrize("cn", ["alice", "root-admin"])
async def test_approvers_and_admins_list_and_revoke(bench: Workbench, cn: str) -> None:
    grant = await give(bench, ANYWHERE)
    listed = await bench.pipeline.grants.list_grants(bench.who(cn))
    (shown,) = listed.grants
    assert (shown.grant_id, shown.is_live, shown.uses_left) == (grant.id, True, 3)
    assert shown.given_by == ("alice",)
    revoked = await bench.pipeline.grants.revoke_grant(bench.who(cn), grant.id)
    assert (revoked.is_live, revoked.revoked_by) == (False, cn)
    record = bench.last(Event.GRANT_REVOKED)
    assert (record["grant"], record["by"], record["caller"]) == (grant.id, cn, "deployer")


async def test_callers_neither_list_nor_revoke(bench: Workbench) -> None:
    grant = await give(bench, ANYWHERE)
    with pytest.raises(RoleRequiredError):
        await bench.pipeline.grants.list_grants(bench.who("deployer"))
    with pytest.raises(RoleRequiredError):
        await bench.pipeline.grants.revoke_grant(bench.who("deployer"), grant.id)
    assert (await bench.store.grants())[0] == grant
    assert "grant.revoked" not in bench.events()


async def test_what_cannot_be_used_any_more_is_not_revoked(bench: Workbench) -> None:
    grant = await give(bench, ANYWHERE)
    alice = bench.who("alice")
    with pytest.raises(RequestNotFoundError):
        await bench.pipeline.grants.revoke_grant(alice, "ffffffff")
    await bench.pipeline.grants.revoke_grant(alice, grant.id)
    with pytest.raises(RequestNotFoundError):
        await bench.pipeline.grants.revoke_grant(alice, grant.id)
    assert bench.events().count("grant.revoked") == 1


async def test_a_revocation_that_cannot_be_written_down_holds_and_is_told(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    grant = await give(bench, ANYWHERE)
    bench.audit.refused = frozenset({Event.GRANT_REVOKED})
    await bench.pipeline.grants.revoke_grant(bench.who("alice"), grant.id)
    assert "is not in the audit log" in caplog.text
    bench.audit.refused = frozenset()
    await held(bench)


async def test_grants_survive_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as bench:
        grant = await give(bench, GrantTerms(count=2))
        clock, host = bench.clock, bench.host
    async with opened(tmp_path, clock=clock, host=host) as bench:
        answer = await bench.ask()
        assert answer.body["grant"] == grant.id
