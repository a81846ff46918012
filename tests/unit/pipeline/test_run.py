"""One run: intent on disk, wrapper, probe, outcome on disk; and what each may do wrong."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from host_agent.audit.record import Event
from host_agent.errors import (
    AdapterUnavailableError,
    AuditUnavailableError,
    HostFailedError,
    HostTimedOutError,
    InvalidOutputError,
    ProtectedError,
    ReadOnlyError,
    SudoRefusedError,
)
from host_agent.operations.catalogue import Catalogue, Output
from host_agent.pipeline.authorize import bind, judge
from host_agent.pipeline.run import Run, inspect, perform
from host_agent.requests.model import State
from tests.support.pipeline import FETCH, PULL, STATUS, Workbench, opened, output


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


def nothing_refuses() -> None:
    """Stand for what is asked once more behind the intent."""


async def prepared(bench: Workbench, operation: str = "git.pull") -> Run:
    """Return a run of the deployer's, bound to the state that the host is in."""
    params = {"git.pull": PULL, "git.fetch": FETCH, "git.status": STATUS}[operation]
    snapshot, caller = bench.context.snapshot, bench.who("deployer")
    parsed = bench.context.catalogue.parse(operation, params)
    run = Run(
        request_id="ab" * 16,
        principal=caller,
        operation=parsed,
        snapshot=snapshot,
        verdict=judge(snapshot, caller, parsed),
    )
    inspection = await inspect(bench.context, run)
    return bind(bench.context, run, None if inspection is None else inspection.precondition)


async def performed(bench: Workbench, operation: str = "git.pull") -> Run:
    return await perform(bench.context, await prepared(bench, operation), nothing_refuses)


def verified(performance: Run) -> object:
    assert performance.outcome is not None
    return performance.outcome["verified"]


async def test_the_intent_is_on_disk_before_the_process_starts(bench: Workbench) -> None:
    seen: list[list[str]] = []
    bench.host.before = lambda _verb: seen.append(bench.events())
    await performed(bench, "git.status")
    assert seen == [["operation.started"]]
    assert bench.events() == ["operation.started", "operation.finished"]


async def test_both_records_name_who_and_what(bench: Workbench) -> None:
    await performed(bench)
    for event in (Event.OPERATION_STARTED, Event.OPERATION_FINISHED):
        record = bench.last(event)
        assert (record["caller"], record["owner"]) == ("deployer", "bob")
        assert (record["operation"], record["params"]) == ("git.pull", dict(PULL))
        assert record["request_id"] == "ab" * 16
    outcome = bench.last(Event.OPERATION_FINISHED)["outcome"]
    assert outcome["state"] == "succeeded"
    assert outcome["stdout_bytes"] == 5
    assert "stdout" not in outcome  # the log has its size and hash only


async def test_a_read_has_no_inspection_and_no_probe(bench: Workbench) -> None:
    performance = await performed(bench, "git.status")
    assert verified(performance) is None
    assert [run[0] for run in bench.host.ran] == ["status"]


# -- the probe ------------------------------------------------------------------------------------


async def test_a_change_is_looked_at_afterwards(bench: Workbench) -> None:
    assert verified(await performed(bench)) is True
    assert [run[0] for run in bench.host.ran] == ["inspect-pull", "pull", "state"]


async def test_a_change_without_a_probe_says_so(bench: Workbench) -> None:
    assert verified(await performed(bench, "git.fetch")) is None


@pytest.mark.parametrize(
    "seen",
    [
        output(exit_code=1),
        output(exit_code=-15, timed_out=True),
        output("nonsense\n"),
        output(f"head {'d' * 40}\nhead_ref refs/heads/main\ndirty no\n"),
        AdapterUnavailableError("It cannot be started."),
    ],
    ids=["failed", "late", "unreadable", "elsewhere", "not started"],
)
async def test_what_cannot_be_seen_is_not_claimed(
    bench: Workbench, seen: Output | AdapterUnavailableError
) -> None:
    bench.host.answers["state"] = seen
    performance = await performed(bench)
    assert verified(performance) is False
    assert performance.state is State.SUCCEEDED
    assert bench.last(Event.OPERATION_FINISHED)["outcome"]["verified"] is False


async def test_a_failed_change_is_not_probed(bench: Workbench) -> None:
    bench.host.answers["pull"] = output(exit_code=1)
    performance = await performed(bench)
    assert verified(performance) is None
    assert [run[0] for run in bench.host.ran] == ["inspect-pull", "pull"]


# -- how it ends ----------------------------------------------------------------------------------


async def test_a_failure_carries_its_outcome(bench: Workbench) -> None:
    bench.host.answers["pull"] = output("half\n", exit_code=3, stderr="fatal: no\n")
    performance = await performed(bench)
    assert performance.state is State.FAILED
    assert isinstance(performance.error, HostFailedError)
    assert performance.outcome is not None
    assert performance.outcome["exit_code"] == 3
    assert bench.last(Event.OPERATION_FINISHED)["code"] == "host:failed"


async def test_a_deadline_is_told_as_such(bench: Workbench) -> None:
    bench.host.answers["pull"] = output(exit_code=-15, timed_out=True)
    performance = await performed(bench)
    assert performance.state is State.TIMED_OUT
    assert isinstance(performance.error, HostTimedOutError)
    assert verified(performance) is None


async def test_output_of_another_form_is_a_failure_that_keeps_it(bench: Workbench) -> None:
    bench.host.answers["status"] = output("gibberish\n")
    performance = await performed(bench, "git.status")
    assert performance.state is State.FAILED
    assert isinstance(performance.error, InvalidOutputError)
    assert performance.outcome is not None
    assert performance.outcome["stdout"] == "gibberish\n"


@pytest.mark.promise("c38")
async def test_cut_output_is_not_parsed(bench: Workbench) -> None:
    bench.host.answers["status"] = output("# branch.oid a", truncated=True)
    performance = await performed(bench, "git.status")
    assert performance.state is State.SUCCEEDED
    assert performance.outcome is not None
    assert performance.outcome["data"] is None
    assert performance.outcome["truncated"] is True


async def test_what_could_not_be_started_is_told_in_the_log(bench: Workbench) -> None:
    bench.host.answers["pull"] = SudoRefusedError("sudo would not run it; nothing ran.")
    performance = await performed(bench)
    assert performance.state is State.FAILED
    assert isinstance(performance.error, SudoRefusedError)
    assert performance.outcome is None
    finished = bench.last(Event.OPERATION_FINISHED)
    assert (finished["code"], finished["outcome"]) == ("host:sudo-refused", {"state": "failed"})


@pytest.mark.promise("c2")
@pytest.mark.parametrize("verb", ["pull", "state"], ids=["run", "probe"])
async def test_a_run_that_the_shutdown_cuts_short_is_unknown_in_the_log(
    bench: Workbench, verb: str
) -> None:
    bound = await prepared(bench)
    bench.host.hold(verb)
    run = asyncio.ensure_future(perform(bench.context, bound, nothing_refuses))
    await bench.host.reached[verb].wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert bench.steps() == ["operation.started", "operation.finished"]
    finished = bench.last(Event.OPERATION_FINISHED)
    assert (finished["code"], finished["outcome"]) == ("internal", {"state": "unknown"})


@pytest.mark.promise("c4")
@pytest.mark.parametrize("exit_code", [0, 1])
async def test_what_happened_is_told_and_marked_where_its_end_cannot_be_written(
    bench: Workbench, exit_code: int, caplog: pytest.LogCaptureFixture
) -> None:
    bench.audit.refused = frozenset({Event.OPERATION_FINISHED})
    bench.host.answers["fetch"] = output("words\n", exit_code=exit_code)
    performance = await performed(bench, "git.fetch")
    assert performance.outcome is not None
    assert performance.outcome["audited"] is False
    assert performance.outcome["stdout"] == "words\n"
    assert (performance.error is None) is (exit_code == 0)
    assert "is not in the audit log" in caplog.text


# -- the inspection -------------------------------------------------------------------------------


async def test_an_inspection_is_no_operation_and_is_on_disk_before_its_process(
    bench: Workbench,
) -> None:
    seen: list[list[str]] = []
    bench.host.before = lambda _verb: seen.append(bench.events())
    await prepared(bench)
    assert seen == [["operation.inspected"]]
    assert bench.events() == ["operation.inspected"]
    record = bench.last(Event.OPERATION_INSPECTED)
    assert (record["caller"], record["operation"]) == ("deployer", "git.pull")
    assert (record["params"], record["request_id"]) == (PULL, "ab" * 16)


async def test_no_inspection_starts_that_cannot_be_written_down(bench: Workbench) -> None:
    bench.audit.refused = frozenset({Event.OPERATION_INSPECTED})
    with pytest.raises(AuditUnavailableError):
        await prepared(bench)
    assert bench.host.ran == []
    bench.audit.refused = frozenset()
    await prepared(bench)
    assert [run[0] for run in bench.host.ran] == ["inspect-pull"]


async def test_what_is_refused_once_its_intent_is_on_disk_starts_nothing(bench: Workbench) -> None:
    def refuse() -> None:
        raise ReadOnlyError("It may only look.")

    bound = await prepared(bench)
    before = len(bench.host.ran)
    performance = await perform(bench.context, bound, refuse)
    assert performance.state is State.FAILED
    assert isinstance(performance.error, ReadOnlyError)
    assert len(bench.host.ran) == before
    assert bench.steps() == ["operation.started", "operation.finished"]
    finished = bench.last(Event.OPERATION_FINISHED)
    assert (finished["code"], finished["outcome"]) == ("policy:read-only", {"state": "failed"})


async def test_an_inspection_of_another_form_is_refused(bench: Workbench) -> None:
    bench.host.answers["inspect-pull"] = output("gibberish\n")
    with pytest.raises(InvalidOutputError):
        await prepared(bench)


async def test_runs_are_counted_and_timed(bench: Workbench) -> None:
    bench.host.answers["fetch"] = output(exit_code=1, duration_ms=1500)
    await performed(bench, "git.fetch")
    text = bench.context.metrics.render().decode()
    labels = 'operation="git.fetch",outcome="failed"'
    assert f"host_agent_operations_total{{{labels}}} 1.0" in text
    assert 'host_agent_operation_seconds_sum{operation="git.fetch"} 1.5' in text


async def test_a_defect_after_the_start_has_an_end_too(bench: Workbench) -> None:
    def defective(_params: object, _seen: Output) -> None:
        raise ZeroDivisionError

    declare(bench, "git.fetch", parse=defective)
    performance = await performed(bench, "git.fetch")
    assert (performance.state, performance.outcome) == (State.UNKNOWN, None)
    assert performance.error is not None
    assert performance.error.code == "internal"
    assert bench.steps() == ["operation.started", "operation.finished"]
    assert bench.last(Event.OPERATION_FINISHED)["outcome"] == {"state": "unknown"}


# -- what a declaration may add -------------------------------------------------------------------


def declare(bench: Workbench, name: str, **changes: Any) -> None:
    """Let the operation `name` be declared otherwise."""
    bench.context.catalogue = Catalogue(
        replace(
            adapter,
            specs=tuple(replace(s, **changes) if s.name == name else s for s in adapter.specs),
        )
        for adapter in bench.context.catalogue.adapters
    )


async def test_an_answer_is_narrowed_before_anybody_sees_it(bench: Workbench) -> None:
    def only_words(_params: object, section: object, seen: Output) -> Output:
        assert section is not None
        return replace(seen, stdout=seen.stdout.replace("hidden", "-"))

    declare(bench, "git.fetch", restrict=only_words)
    bench.host.answers["fetch"] = output("hidden words\n")
    performance = await performed(bench, "git.fetch")
    assert performance.outcome is not None
    assert performance.outcome["stdout"] == "- words\n"


async def test_a_guard_refuses_what_only_the_host_can_tell(bench: Workbench) -> None:
    def refuse(_params: object, _section: object, _seen: Output) -> None:
        raise ProtectedError("This is protected.")

    declare(bench, "git.pull", guard=refuse)
    with pytest.raises(ProtectedError):
        await prepared(bench)


@pytest.mark.promise("c49")
async def test_a_secret_in_long_output_is_not_kept(bench: Workbench) -> None:
    secret = "ghp_" + "a1B2" * 9
    bench.host.answers["fetch"] = output("line of words\n" * 20_000 + f"token {secret}\n")
    performance = await performed(bench, "git.fetch")
    assert performance.outcome is not None
    assert secret not in str(performance.outcome["stdout"])
    assert "line of words" in str(performance.outcome["stdout"])
