"""Blocking calls on threads of their own: their end, their failure, and when there are too many."""

import asyncio
import threading
from typing import NoReturn

import pytest

from host_agent.notify.blocking_calls import BusyError, Detached
from tests.support.patience import PATIENCE


@pytest.fixture
def threads() -> Detached:
    return Detached(limit=2, name="test")


async def test_what_it_returns_comes_back_from_another_thread(threads: Detached) -> None:
    assert await threads.call(threading.get_ident) != threading.get_ident()


async def test_what_it_raises_is_raised(threads: Detached) -> None:
    def fail(error: BaseException) -> NoReturn:
        raise error

    for error in (LookupError("x"), SystemExit(3)):
        with pytest.raises(type(error)):
            await threads.call(lambda error=error: fail(error))  # type: ignore[misc]
    assert await threads.call(lambda: 7) == 7


async def test_there_are_few_and_each_is_free_again(threads: Detached) -> None:
    release, entered = threading.Event(), threading.Barrier(3, timeout=PATIENCE)

    def hang() -> int:
        entered.wait()
        release.wait(PATIENCE)
        return 1

    tasks = [asyncio.create_task(threads.call(hang)) for _ in range(2)]
    await asyncio.to_thread(entered.wait)
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    with pytest.raises(BusyError):
        await threads.call(lambda: 2)
    release.set()
    assert await tasks[1] == 1
    while any(thread.name == "test" for thread in threading.enumerate()):
        await asyncio.sleep(0.01)
    assert await threads.call(lambda: 2) == 2


async def test_without_a_thread_it_is_busy(
    threads: Detached, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(thread: threading.Thread) -> NoReturn:
        message = "can't start new thread"
        raise RuntimeError(message)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        for _ in range(3):
            with pytest.raises(BusyError):
                await threads.call(lambda: 1)
    assert await threads.call(lambda: 1) == 1


def test_a_call_that_outlives_its_loop_harms_nobody(threads: Detached) -> None:
    release = threading.Event()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(threads.call(lambda: release.wait(PATIENCE)), 0.05)

    asyncio.run(give_up())
    release.set()
    for thread in threading.enumerate():
        if thread.name == "test":
            thread.join(PATIENCE)
