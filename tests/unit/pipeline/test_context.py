"""What the context holds: waiters are told once; work outlives whoever started it."""

import asyncio

import pytest

from host_agent.errors import HostBusyError
from host_agent.pipeline.context import Changes, Tasks


async def fail(error: Exception) -> None:
    raise error


async def test_work_goes_on_without_its_caller() -> None:
    tasks, gate, done = Tasks(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await gate.wait()
        done.set()

    caller = asyncio.ensure_future(tasks.shielded(work(), name="work"))
    while not tasks:
        await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert len(tasks) == 1
    gate.set()
    assert await tasks.drain(10) == 0
    assert done.is_set()
    assert len(tasks) == 0


async def test_a_result_and_an_error_reach_the_caller() -> None:
    tasks = Tasks()

    async def answer() -> int:
        return 42

    assert await tasks.shielded(answer(), name="answer") == 42
    with pytest.raises(HostBusyError):
        await tasks.shielded(fail(HostBusyError("It is busy.")), name="busy")


async def test_a_defect_that_nobody_awaits_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    tasks = Tasks()
    tasks.start(fail(HostBusyError("It is busy.")), name="a refusal")
    tasks.start(fail(ValueError("a defect")), name="a defect")
    await tasks.drain(10)
    assert "a defect failed" in caplog.text
    assert "a refusal" not in caplog.text


async def test_draining_nothing_takes_no_time() -> None:
    assert await Tasks().drain(10) == 0


async def test_what_does_not_end_in_time_is_cancelled_and_counted() -> None:
    tasks = Tasks()
    stuck = tasks.start(asyncio.Event().wait(), name="stuck")
    assert await tasks.drain(0.01) == 1
    assert stuck.cancelled()
    assert len(tasks) == 0


async def test_what_running_work_starts_has_its_time_too() -> None:
    tasks, gate, done = Tasks(), asyncio.Event(), asyncio.Event()

    async def run() -> None:
        await gate.wait()
        asyncio.get_running_loop().call_soon(gate.clear)
        done.set()

    async def decide() -> None:
        await asyncio.sleep(0)
        tasks.start(run(), name="run")
        asyncio.get_running_loop().call_later(0.02, gate.set)

    tasks.start(decide(), name="decide")
    assert await tasks.drain(10) == 0
    assert done.is_set()


# -- changes ---------------------------------------------------------------------------------------


async def test_everyone_who_waits_for_a_request_is_told() -> None:
    changes = Changes()
    mine, too, other = changes.watch("a"), changes.watch("a"), changes.watch("b")
    changes.tell("a")
    await asyncio.gather(mine, too)
    assert not other.done()
    changes.tell_all()
    await other
    assert changes._waiters == {}


async def test_telling_nobody_is_nothing() -> None:
    changes = Changes()
    changes.tell("a")
    changes.tell_all()
    assert changes._waiters == {}


async def test_who_gave_up_is_forgotten_and_not_told() -> None:
    changes = Changes()
    gone, still = changes.watch("a"), changes.watch("a")
    gone.cancel()
    await asyncio.wait([gone])
    assert changes._waiters == {"a": {still}}
    late = changes.watch("a")
    late.cancel()
    changes.tell("a")  # before its callbacks ran
    await still
    await asyncio.wait([late])
    assert changes._waiters == {}
