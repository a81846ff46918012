"""Nothing to do is answered at once, where that is exact; else people are asked as ever."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.api.wire.operations import PreviewView
from host_agent.audit.record import Event
from host_agent.errors import AuditUnavailableError, HostAgentError, PolicyDeniedError
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Effect, Inspection, Preview, PreviewAccuracy
from host_agent.requests.model import GrantTerms, Verb
from tests.support.pipeline import ASIDE, PULL, Host, Workbench, opened, output
from tests.support.site import RULES

THERE = {**ASIDE, "branch": "main"}
DENIED = RULES.replace('"git.switch"]\nverdict = "ask"', '"git.switch"]\nverdict = "deny"')
HOLD = "repository 1:2:3\ngit_directory 1:2:3\n"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


def found(host: Host, *, target: str, counted: str = "commit_count 0\n") -> None:
    """Let the next look at a pull find `target`; `counted` is there where the commits are."""
    state = f"head {host.head}\nhead_ref {host.head_ref}\ndirty no\n"
    remote = "remote_url /srv/origin.git\n"
    host.answers["inspect-pull"] = output(f"{HOLD}{state}{remote}target {target}\n{counted}")


async def rows(bench: Workbench) -> list[Any]:
    page, _ = await bench.store.list(state=None, caller=None, limit=200, cursor=None)
    return page


async def test_a_pull_of_what_is_there_is_answered_and_nobody_is_asked(bench: Workbench) -> None:
    found(bench.host, target=bench.host.head)
    answer = await bench.ask(reason="to be sure")
    assert (answer.status, answer.body["state"]) == (200, "unchanged")
    assert answer.body["outcome"] == {"exit_code": None, "verified": None}
    preview = PreviewView.model_validate(answer.body["preview"])
    assert preview.accuracy == "exact"
    assert "Nothing" in preview.summary
    assert await rows(bench) == []
    assert bench.host.changes == []
    assert bench.steps() == ["operation.unchanged"]
    record = bench.last(Event.OPERATION_UNCHANGED)
    assert (record["rule"], record["reason"]) == ("pulling needs a person", "to be sure")
    assert record["digest"] == answer.body["digest"]


async def test_a_pull_of_something_is_asked(bench: Workbench) -> None:
    found(bench.host, target=bench.host.tip, counted="commit_count 1\ncommit bbb new\n")
    assert (await bench.ask()).status == 202
    assert "operation.unchanged" not in bench.events()


async def test_what_is_not_exactly_nothing_is_asked(bench: Workbench) -> None:
    found(bench.host, target=bench.host.head, counted="")
    assert (await bench.ask()).status == 202


async def test_a_key_gives_the_same_answer_again(bench: Workbench) -> None:
    first = await bench.ask("git.switch", THERE, key="k")
    again = await bench.ask("git.switch", THERE, key="k")
    assert again.body == first.body
    assert bench.steps() == ["operation.unchanged"]


async def test_the_state_that_counts_is_the_one_that_was_looked_at(bench: Workbench) -> None:
    assert (await bench.ask("git.switch", THERE)).body["state"] == "unchanged"
    bench.host.head_ref = "refs/heads/topic"
    assert (await bench.ask("git.switch", THERE)).status == 202
    assert bench.host.changes == []


async def test_what_waits_when_the_state_comes_about_by_itself_is_still_decided(
    bench: Workbench,
) -> None:
    waiting = await bench.held(operation="git.switch", params=ASIDE)
    bench.host.head_ref = "refs/heads/topic"
    answer = await bench.ask("git.switch", ASIDE)
    assert answer.body["state"] == "unchanged"
    assert waiting in await bench.store.live()
    await bench.decide(waiting, Verb.DENY)


@pytest.mark.parametrize("denying", ["rule", "list"])
async def test_what_policy_denies_is_denied_though_there_is_nothing_to_do(
    tmp_path: Path, denying: str
) -> None:
    rules = DENIED if denying == "rule" else RULES
    params = THERE if denying == "rule" else {**THERE, "branch": "secret"}
    async with opened(tmp_path, rules=rules) as bench:
        bench.host.head_ref = f"refs/heads/{params['branch']}"
        with pytest.raises(PolicyDeniedError):
            await bench.ask("git.switch", params)
        assert bench.host.ran == []
        assert bench.events() == []


async def test_rules_that_change_while_it_looks_count(bench: Workbench) -> None:
    def change(_verb: str) -> None:
        bench.host.before = None
        bench.reconfigure(rules=DENIED)

    bench.host.before = change
    with pytest.raises(PolicyDeniedError):
        await bench.ask("git.switch", THERE)
    assert "operation.unchanged" not in bench.events()


async def test_rules_that_change_while_a_grant_is_looked_at_count(bench: Workbench) -> None:
    await bench.decide(await bench.held(), grant=GrantTerms(count=1))
    await bench.settle()
    found(bench.host, target=bench.host.head)
    before = list(bench.host.changes)

    def change(_verb: str) -> None:
        bench.host.before = None
        bench.reconfigure(rules=DENIED)

    bench.host.before = change
    with pytest.raises(PolicyDeniedError):
        await bench.ask()
    assert "operation.unchanged" not in bench.events()
    assert bench.host.changes == before
    assert (await bench.store.grants())[0].used == 0


async def test_what_is_allowed_runs_all_the_same(tmp_path: Path) -> None:
    free = RULES.replace('"git.switch"]\nverdict = "ask"', '"git.switch"]\nverdict = "allow"')
    async with opened(tmp_path, rules=free) as bench:
        assert (await bench.ask("git.switch", THERE)).body["state"] == "succeeded"
        assert len(bench.host.changes) == 1


async def test_a_grant_is_not_used_up_by_nothing(bench: Workbench) -> None:
    await bench.decide(await bench.held(), grant=GrantTerms(count=1))
    await bench.settle()
    found(bench.host, target=bench.host.head)
    assert (await bench.ask()).body["state"] == "unchanged"
    assert (await bench.store.grants())[0].used == 0
    found(bench.host, target="c" * 40, counted="")
    assert "grant" in (await bench.ask()).body


async def test_who_is_held_off_is_told_that_there_is_nothing_to_do(tmp_path: Path) -> None:
    async with opened(tmp_path, limits="held_off_after = 1") as bench:
        await bench.decide(await bench.held(), Verb.DENY)
        assert (await bench.ask("git.switch", THERE)).body["state"] == "unchanged"
        with pytest.raises(HostAgentError, match="within the hour"):
            await bench.ask("git.switch", ASIDE)


async def test_what_cannot_be_written_down_is_not_answered(bench: Workbench) -> None:
    bench.audit.refused = frozenset({Event.OPERATION_UNCHANGED})
    with pytest.raises(AuditUnavailableError):
        await bench.ask("git.switch", THERE)
    assert await rows(bench) == []


# -- the declaration ------------------------------------------------------------------------------


@pytest.mark.parametrize("accuracy", PreviewAccuracy)
def test_only_an_exact_preview_of_an_operation_that_says_so_counts(
    accuracy: PreviewAccuracy,
) -> None:
    preview = Preview(accuracy=accuracy, summary="Nothing.")
    for is_done_already in (True, False):
        seen = Inspection(precondition={}, preview=preview, is_done_already=is_done_already)
        counts = is_done_already and accuracy is PreviewAccuracy.EXACT
        assert CATALOGUE.parse("git.pull", PULL).is_done_already(seen) is counts
        assert not CATALOGUE.parse("git.fetch", {**PULL_FROM}).is_done_already(seen)
    assert not CATALOGUE.parse("git.pull", PULL).is_done_already(None)


PULL_FROM = {"repository": PULL["repository"], "remote": PULL["remote"]}


def test_it_is_declared_where_it_can_be_exact_and_nowhere_else() -> None:
    declared = {spec.name for spec in CATALOGUE if spec.may_be_done_already}
    assert declared == {"git.pull", "git.switch", "systemd.start", "systemd.stop"}
    assert all(CATALOGUE.spec(name).effect is not Effect.READ for name in declared)
