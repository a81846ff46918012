"""A start writes down what was stored and not recorded, once, before anything runs by it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.errors import AuditUnavailableError
from host_agent.pipeline.grants import make_grant
from host_agent.pipeline.reconcile import catch_up
from host_agent.requests import model as machine
from host_agent.requests.model import Decision, GrantTerms, Problem, Request, State, Verb
from tests.support.pipeline import RESET, Workbench, opened

PROBLEM = Problem(code="internal", detail="Something.")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


def spoken(bench: Workbench, verb: Verb = Verb.APPROVE, by: str = "alice") -> Decision:
    return Decision(
        approver=by,
        owner=by,
        decision=verb,
        channel="http",
        at=bench.clock.now(),
        reason="so",
        credential=bench.who(by).credential,
    )


def decided(
    bench: Workbench, request: Request, verb: Verb = Verb.APPROVE, by: str = "alice"
) -> Request:
    return machine.decide(
        request,
        spoken(bench, verb, by),
        roles=["approver"],
        digest=request.digest,
        now=bench.clock.now(),
    )


async def store(bench: Workbench, before: Request, after: Request) -> Request:
    """Store a step and write nothing down, as a kill at the wrong moment leaves it."""
    assert await bench.store.transition(after, expected_version=before.version)
    return after


async def approved(bench: Workbench) -> Request:
    request = await bench.held()
    return await store(bench, request, decided(bench, request))


@pytest.mark.promise("c1")
async def test_a_start_records_the_decision_before_it_runs(bench: Workbench) -> None:
    request = await approved(bench)
    await bench.pipeline.lifecycle.recover()
    await bench.settle()
    assert bench.steps() == [
        "request.held",
        "request.decided",
        "operation.started",
        "operation.finished",
    ]
    record = bench.last(Event.REQUEST_DECIDED)
    assert record["cause"] == "caught-up"
    assert (record["request_id"], record["approver"], record["state"]) == (
        request.id,
        "alice",
        "approved",
    )
    assert "the step was taken at 2026-" in record["detail"]
    assert len(bench.host.changes) == 1


async def test_what_is_recorded_is_not_recorded_again(bench: Workbench) -> None:
    request = await bench.held()
    await bench.decide(request, Verb.DENY)
    await approved(bench)
    assert await catch_up(bench.context) == 1
    assert await catch_up(bench.context) == 0


async def test_a_request_that_was_never_recorded_as_held_is(bench: Workbench) -> None:
    await bench.ask("git.status", {"repository": "/srv/app"})
    other = replace((await bench.held()), version=1)
    lost = replace(
        other,
        id=machine.RequestId("0" * 32),
        digest=machine.Digest("sha256:" + "0" * 64),
        caller="robot",
        reason="mine",
    )
    await bench.store.insert(lost, max_pending=10, max_pending_per_caller=10)
    assert await catch_up(bench.context) == 1
    record = bench.last(Event.REQUEST_HELD)
    assert (record["request_id"], record["reason"], record["rule"]) == (lost.id, "mine", lost.rule)


async def test_each_voice_of_a_quorum_is_recorded_with_the_state_it_made(bench: Workbench) -> None:
    request = await bench.held(operation="git.reset", params=RESET, reason="back")
    once = await store(bench, request, decided(bench, request))
    await store(bench, once, decided(bench, once, by="erin"))
    assert await catch_up(bench.context) == 2
    voices = [r for r in bench.records() if r["event"] == "request.decided"]
    assert [(r["approver"], r["state"]) for r in voices] == [
        ("alice", "pending"),
        ("erin", "approved"),
    ]


async def test_the_grant_that_was_given_is_recorded_with_the_voice_that_gave_it(
    bench: Workbench,
) -> None:
    request = await bench.held()
    terms = GrantTerms(count=3)
    after = machine.decide(
        request,
        replace(spoken(bench), grant=terms),
        roles=["approver"],
        digest=request.digest,
        now=bench.clock.now(),
    )
    given = make_grant(bench.context, after, bench.clock.now())
    assert given is not None
    assert await bench.store.transition(after, expected_version=request.version, grant=given)
    assert await catch_up(bench.context) == 1
    assert bench.last(Event.REQUEST_DECIDED)["grant"] == given.id


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.DENIED, "request.decided"),
        (State.CANCELLED, "request.cancelled"),
        (State.EXPIRED, "request.expired"),
    ],
)
async def test_an_end_without_a_run_is_recorded(bench: Workbench, state: State, event: str) -> None:
    request = await bench.held()
    now = bench.clock.now()
    if state is State.DENIED:
        after = decided(bench, request, Verb.DENY)
    elif state is State.CANCELLED:
        after = machine.cancel(request, problem=PROBLEM, now=now)
    else:
        bench.clock.instant = request.expires_at
        after = machine.expire(request, now=bench.clock.now())
    await store(bench, request, after)
    assert await catch_up(bench.context) == 1
    record = bench.records()[-1]
    assert (record["event"], record["request_id"]) == (event, request.id)
    assert await catch_up(bench.context) == 0


@pytest.mark.promise("c2")
async def test_an_unknown_end_is_recorded_by_the_next_start(bench: Workbench) -> None:
    request = await approved(bench)
    running = await store(bench, request, machine.start(request, now=bench.clock.now()))
    ended = machine.finish(
        running, state=State.UNKNOWN, outcome=None, problem=PROBLEM, now=bench.clock.now()
    )
    await store(bench, running, ended)
    assert await catch_up(bench.context) == 2  # the decision, and this
    record = bench.records()[-1]
    assert (record["event"], record["code"]) == ("request.unknown", "internal")


async def test_a_failure_is_recorded_unless_its_run_is(bench: Workbench) -> None:
    request = await approved(bench)
    await store(bench, request, machine.fail(request, problem=PROBLEM, now=bench.clock.now()))
    assert await catch_up(bench.context) == 2
    assert bench.records()[-1]["event"] == "request.failed"

    bench.host.answers["pull"] = AuditUnavailableError("stands for a runner's refusal")
    ran = await approved(bench)
    await bench.pipeline.lifecycle.start(ran)
    assert await bench.state(ran) is State.FAILED
    assert await catch_up(bench.context) == 1  # its decision
    assert bench.events().count("request.failed") == 1


async def test_an_allowed_change_was_never_held(bench: Workbench) -> None:
    await bench.ask("git.fetch", {"repository": "/srv/app", "remote": "origin"})
    assert await catch_up(bench.context) == 0


async def test_old_steps_are_let_be(bench: Workbench) -> None:
    await approved(bench)
    bench.clock.advance(seconds=60)
    await bench.ask("git.status", {"repository": "/srv/app"})
    assert await catch_up(bench.context) == 0


async def test_an_empty_log_has_nothing_to_catch_up_with(bench: Workbench) -> None:
    assert await catch_up(bench.context) == 0


@pytest.mark.promise("c4")
async def test_what_cannot_be_recorded_does_not_run(bench: Workbench) -> None:
    request = await approved(bench)
    bench.audit.refused = frozenset({Event.REQUEST_DECIDED})
    with pytest.raises(AuditUnavailableError):
        await bench.pipeline.lifecycle.recover()
    await asyncio.sleep(0)
    assert bench.host.changes == []
    assert await bench.state(request) is State.APPROVED
