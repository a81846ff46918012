"""Every step of a stored request: who wins is woken for and recorded, who loses changes nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from host_agent.api.wire.requests import RequestView
from host_agent.audit.record import Event
from host_agent.errors import AuditUnavailableError
from host_agent.pipeline.transitions import QueueWatch
from host_agent.requests import model as machine
from host_agent.requests.model import Request, State, Verb
from tests.support.audit_files import HeldClock
from tests.support.patience import PATIENCE
from tests.support.pipeline import PULL, Workbench, opened


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as opened_bench:
        yield opened_bench


def cancelled(bench: Workbench, request: Request) -> Request:
    return machine.cancel(request, problem=None, now=bench.clock.now())


async def test_a_step_that_wins_is_stored_woken_for_and_recorded(bench: Workbench) -> None:
    request = await bench.held()
    poll, woken = bench.context.changes.watch(request.id), asyncio.Event()
    bench.context.wake_outbox = woken.set
    after = cancelled(bench, request)
    assert await bench.pipeline.transitions.move(
        request, after, Event.REQUEST_CANCELLED, cancelled_by="somebody"
    )
    assert poll.done()
    assert woken.is_set()
    assert await bench.state(request) is State.CANCELLED
    assert bench.last(Event.REQUEST_CANCELLED)["cancelled_by"] == "somebody"


async def test_a_step_that_loses_changes_wakes_and_records_nothing(bench: Workbench) -> None:
    request = await bench.held()
    await bench.decide(request, Verb.DENY)
    before, stored = bench.events(), await bench.request(request.id)
    poll, woken = bench.context.changes.watch(request.id), asyncio.Event()
    bench.context.wake_outbox = woken.set
    after = cancelled(bench, request)
    assert not await bench.pipeline.transitions.move(request, after, Event.REQUEST_CANCELLED)
    assert not poll.done()
    assert not woken.is_set()
    assert bench.events() == before
    assert await bench.request(request.id) == stored
    poll.cancel()


async def test_a_step_that_cannot_be_recorded_stands_and_is_logged(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    request = await bench.held()
    bench.audit.refused = frozenset({Event.REQUEST_CANCELLED})
    after = cancelled(bench, request)
    assert await bench.pipeline.transitions.move(request, after, Event.REQUEST_CANCELLED)
    assert await bench.state(request) is State.CANCELLED
    assert f"request.cancelled of request {request.id} is not in the audit log" in caplog.text


async def test_a_yes_that_can_be_neither_recorded_nor_taken_back_runs_nothing(
    bench: Workbench, caplog: pytest.LogCaptureFixture
) -> None:
    request = await bench.held()
    bench.audit.refused = frozenset({Event.REQUEST_DECIDED})
    bench.store.refused = frozenset({"transition:failed"})
    with pytest.raises(AuditUnavailableError):
        await bench.decide(request)
    await bench.settle()
    assert bench.host.changes == []
    assert f"request {request.id} could not be withdrawn" in caplog.text


def past_its_end(bench: Workbench, request: Request) -> asyncio.Task[RequestView]:
    """Let a request expire by whoever looks at it; return the look, which has not begun."""
    bench.clock.advance(seconds=(request.expires_at - bench.clock.now()).total_seconds())
    return asyncio.create_task(bench.pipeline.views.show(bench.who("deployer"), request.id))


@pytest.mark.parametrize("is_stored", [False, True])
async def test_a_step_goes_on_to_its_end_though_whoever_took_it_is_cancelled(
    bench: Workbench, is_stored: bool
) -> None:
    request = await bench.held()
    other, woken = bench.context.changes.watch(request.id), asyncio.Event()
    bench.context.wake_outbox = woken.set
    look = past_its_end(bench, request)

    async def hang_up(_: Request) -> None:
        look.cancel()

    if is_stored:
        bench.store.after_transition = look.cancel
    else:
        bench.store.before_transition = hang_up
    with pytest.raises(asyncio.CancelledError):
        await look
    await bench.settle()
    assert await bench.state(request) is State.EXPIRED
    assert bench.last(Event.REQUEST_EXPIRED)["request_id"] == request.id
    assert other.done()
    assert woken.is_set()


async def test_a_step_that_loses_is_none_though_whoever_took_it_is_cancelled(
    bench: Workbench,
) -> None:
    request = await bench.held()
    before, other = bench.events(), bench.context.changes.watch(request.id)
    withdrawn = cancelled(bench, request)
    look = past_its_end(bench, request)

    async def be_quicker(_: Request) -> None:
        assert await bench.store.transition(withdrawn, expected_version=request.version)
        look.cancel()

    bench.store.before_transition = be_quicker
    with pytest.raises(asyncio.CancelledError):
        await look
    await bench.settle()
    assert await bench.request(request.id) == withdrawn
    assert bench.events() == before
    assert not other.done()
    other.cancel()


async def test_a_run_wakes_the_outbox_by_its_decision_and_its_end_only(bench: Workbench) -> None:
    request = await bench.held()
    wakes: list[str] = []
    bench.context.wake_outbox = lambda: wakes.append("woken")
    gate = bench.host.hold("pull")
    await bench.decide(request)
    await bench.host.reached["pull"].wait()
    assert await bench.state(request) is State.RUNNING
    assert len(wakes) == 1
    gate.set()
    await bench.settle()
    assert len(wakes) == 2


async def test_an_older_ask_for_the_same_is_recorded_as_the_store_ended_it(
    bench: Workbench,
) -> None:
    first = await bench.held()
    poll = bench.context.changes.watch(first.id)
    bench.host.tip = "c" * 40
    second = await bench.held(params=PULL)
    assert second.id != first.id
    assert poll.done()
    assert bench.last(Event.REQUEST_CANCELLED)["request_id"] == first.id
    assert bench.last(Event.REQUEST_CANCELLED)["code"] == "approval:target-changed"


async def test_the_queue_is_looked_at_again_only_where_that_is_needed() -> None:
    clock = HeldClock()
    queue = QueueWatch(clock)
    queue.look()
    look = asyncio.ensure_future(queue.wait(PATIENCE))
    await asyncio.sleep(0)
    queue.changed(clock.now().replace(year=clock.now().year + 1))
    await asyncio.sleep(0)
    assert not look.done()
    queue.changed(clock.now())
    async with asyncio.timeout(PATIENCE):
        await look
    queue.look()
    await queue.wait(0.0)
