"""A dry run tells what the ask would come to, is refused as that would be, and moves nothing."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.errors import (
    AdapterUnavailableError,
    AuditUnavailableError,
    HostAgentError,
    HostNotFoundError,
    InvalidParameterError,
    NoRuleError,
    PolicyDeniedError,
    RateLimitedError,
    ReadOnlyError,
    ReasonRequiredError,
    UnreachableError,
)
from host_agent.requests.model import GrantTerms, Verb
from tests.support.pipeline import ASIDE, FETCH, PULL, RESET, STATUS, Workbench, opened
from tests.support.site import RULES

THERE = {**ASIDE, "branch": "main"}
DENIED = RULES.replace('"git.switch"]\nverdict = "ask"', '"git.switch"]\nverdict = "deny"')


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


async def everything(bench: Workbench) -> tuple[object, ...]:
    """Return all that an ask could move: rows, prompts, grants, answers kept, changes run."""
    page, _ = await bench.store.list(state=None, caller=None, limit=200, cursor=None)
    told = [row for request in page for row in await bench.store.notifications_of(request.id)]
    kept = await bench.store.recall("deployer", "a-key", bench.clock.now())
    return page, told, await bench.store.grants(), kept, list(bench.host.changes)


async def tried(
    bench: Workbench,
    operation: str = "git.pull",
    params: Mapping[str, JsonValue] = PULL,
    **asked: Any,
) -> Mapping[str, Any]:
    """Try an ask, and see that nothing moved."""
    before = await everything(bench)
    answer = await bench.ask(operation, params, dry_run=True, key="a-key", **asked)
    assert await everything(bench) == before
    assert (answer.status, answer.body["state"]) == (200, "dry_run")
    return answer.body


async def test_what_would_be_asked_is_told_whole_and_the_ask_is_the_same(bench: Workbench) -> None:
    told = await tried(bench, reason="new release")
    assert (told["would"], told["verdict"]) == ("ask", "ask")
    assert told["rule"] == "pulling needs a person"
    assert told["approvals"] == {
        "needed": 1,
        "given": 0,
        "approvers": None,
        "approver_role": "approver",
    }
    assert "attaches_to" not in told
    held = await bench.held(reason="new release")
    assert (held.digest, held.precondition) == (told["digest"], told["precondition"])
    assert held.preview == told["preview"]
    assert await bench.store.notifications_of(held.id) == []


async def test_it_has_an_event_of_its_own_and_no_other_of_an_ask(bench: Workbench) -> None:
    told = await tried(bench, reason="new release")
    assert bench.steps() == ["operation.tried"]
    record = bench.last(Event.OPERATION_TRIED)
    assert (record["state"], record["rule"]) == ("ask", "pulling needs a person")
    assert (record["digest"], record["reason"]) == (told["digest"], "new release")
    assert record["exchange_id"] == told["exchange_id"]
    assert "request_id" not in record


async def test_an_allowed_change_would_run_and_then_does(bench: Workbench) -> None:
    told = await tried(bench, "git.fetch", FETCH)
    assert (told["would"], told["verdict"], told["approvals"]) == ("run", "allow", None)
    ran = await bench.ask("git.fetch", FETCH)
    assert ran.body["digest"] == told["digest"]
    assert len(bench.host.changes) == 1


async def test_an_allowed_read_would_run_with_nothing_to_look_at(bench: Workbench) -> None:
    told = await tried(bench, "git.status", STATUS)
    assert (told["would"], told["preview"], told["precondition"]) == ("run", None, None)
    assert bench.host.ran == []
    assert (await bench.ask("git.status", STATUS)).body["digest"] == told["digest"]


async def test_what_waits_already_would_be_attached_to(bench: Workbench) -> None:
    waiting = await bench.held()
    told = await tried(bench)
    assert (told["would"], told["attaches_to"]) == ("attach", waiting.id)
    assert (await bench.ask()).body["request_id"] == waiting.id


async def test_a_grant_lets_it_run_and_is_not_used(bench: Workbench) -> None:
    await bench.decide(await bench.held(), grant=GrantTerms(count=3))
    await bench.settle()
    bench.host.tip = "c" * 40
    told = await tried(bench)
    assert (told["would"], told["verdict"]) == ("run", "ask")
    assert (await bench.store.grants())[0].used == 0
    assert "grant" in (await bench.ask()).body
    assert (await bench.store.grants())[0].used == 1


async def test_nothing_to_do_would_be_unchanged(bench: Workbench) -> None:
    told = await tried(bench, "git.switch", THERE)
    assert told["would"] == "unchanged"
    answer = await bench.ask("git.switch", THERE)
    assert (answer.body["state"], answer.body["digest"]) == ("unchanged", told["digest"])


REFUSED: list[tuple[type[HostAgentError], str, Mapping[str, Any], Mapping[str, Any]]] = [
    (NoRuleError, "git.pull", PULL, {"rules": RULES.replace('"git.pull", ', "")}),
    (PolicyDeniedError, "git.pull", {**PULL, "branch": "secret"}, {}),
    (PolicyDeniedError, "git.pull", PULL, {"rules": DENIED}),
    (ReasonRequiredError, "git.reset", RESET, {}),
    (InvalidParameterError, "git.pull", {**PULL, "branch": "-x"}, {}),
    (AdapterUnavailableError, "git.pull", PULL, {"git": ""}),
    (UnreachableError, "git.pull", PULL, {"approvals": "command_line = false"}),
]


@pytest.mark.parametrize(
    ("error", "operation", "params", "configured"), REFUSED, ids=lambda one: str(one)[:30]
)
async def test_what_would_be_refused_is_refused_the_same(
    tmp_path: Path,
    error: type[HostAgentError],
    operation: str,
    params: Mapping[str, Any],
    configured: Mapping[str, Any],
) -> None:
    async with opened(tmp_path, **configured) as bench:
        before = await everything(bench)
        refusals = []
        for dry_run in (True, False):
            with pytest.raises(error) as caught:
                await bench.ask(operation, params, dry_run=dry_run)
            refusals.append(caught.value)
        dry, asked = refusals
        assert (dry.code, dry.detail, dry.recovery) == (asked.code, asked.detail, asked.recovery)
        assert await everything(bench) == before
        assert bench.steps() == []
        is_parsed = error is not InvalidParameterError
        assert (dry.about["dry_run"], asked.about["dry_run"]) == (True, None)
        assert ("operation" in dry.about) is is_parsed


async def test_who_may_only_read_is_refused_as_in_the_ask(bench: Workbench) -> None:
    with pytest.raises(ReadOnlyError):
        await bench.ask(by="watcher", dry_run=True)
    assert bench.host.ran == []
    assert (await tried(bench, "git.status", STATUS, by="watcher"))["would"] == "run"


async def test_an_act_that_is_equivalent_to_one_that_waits_is_refused(tmp_path: Path) -> None:
    free = RULES.replace("approvals = 2\nrequire_reason = true", "")
    async with opened(tmp_path, rules=free) as bench:
        waiting = await bench.held()
        with pytest.raises(PolicyDeniedError) as caught:
            await bench.ask("git.reset", RESET, dry_run=True)
        assert caught.value.recovery.equivalent_to == waiting.id


async def test_who_is_held_off_learns_it_without_an_ask(tmp_path: Path) -> None:
    async with opened(tmp_path, limits="held_off_after = 1") as bench:
        await bench.decide(await bench.held(operation="git.switch", params=ASIDE), Verb.DENY)
        with pytest.raises(RateLimitedError):
            await bench.ask(dry_run=True)
        with pytest.raises(RateLimitedError):
            await bench.ask()
        assert await bench.store.live() == []


async def test_a_dry_run_that_cannot_be_written_down_is_not_answered(bench: Workbench) -> None:
    bench.audit.refused = frozenset({Event.OPERATION_TRIED})
    before = await everything(bench)
    with pytest.raises(AuditUnavailableError):
        await bench.ask(dry_run=True)
    assert await everything(bench) == before


async def test_what_is_not_there_is_told_as_in_the_ask(bench: Workbench) -> None:
    bench.host.answers["inspect-pull"] = HostNotFoundError("Nothing is there.")
    with pytest.raises(HostNotFoundError) as caught:
        await bench.ask(dry_run=True)
    assert [fault.pointer for fault in caught.value.recovery.faults] == ["/params"]


async def test_rules_that_change_while_it_looks_are_the_ones_that_are_told(
    bench: Workbench,
) -> None:
    free = RULES.replace('"git.switch"]\nverdict = "ask"', '"git.switch"]\nverdict = "allow"')

    def change(_verb: str) -> None:
        bench.host.before = None
        bench.reconfigure(rules=free)

    bench.host.before = change
    told = await tried(bench)
    assert (told["would"], told["verdict"]) == ("run", "allow")
    assert bench.steps() == ["operation.tried"]
