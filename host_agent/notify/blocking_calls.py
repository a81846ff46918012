"""Blocking calls of libraries that cannot be stopped, on threads that nobody waits for.

A resolver or a foreign library may hang for minutes. It must not hold a thread that others need,
nor the end of the agent: so each call has a daemon thread of its own, and there are few.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class BusyError(Exception):
    """All threads are still taken by earlier calls."""


class Detached:
    """Runs blocking calls in threads, at most `limit` at once; a cancelled one ends by itself."""

    def __init__(self, *, limit: int, name: str) -> None:
        self._free = threading.BoundedSemaphore(limit)
        self._name = name

    async def call(self, function: Callable[[], T]) -> T:
        """Return what `function` returns or raise what it raises. Cancelled, its thread runs on.

        Raises:
            BusyError: too many earlier calls have not ended.
        """
        if not self._free.acquire(blocking=False):
            raise BusyError
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[T] = loop.create_future()
        run = partial(self._run, loop, ended, function)
        try:
            threading.Thread(target=run, name=self._name, daemon=True).start()
        except RuntimeError:  # the system has no thread left
            self._free.release()
            raise BusyError from None
        return await ended

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        ended: "asyncio.Future[T]",
        function: Callable[[], T],
    ) -> None:
        try:
            settle = partial(ended.set_result, function())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            settle = partial(ended.set_exception, error)
        self._free.release()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_unless_given_up, ended, settle)


def _unless_given_up(ended: "asyncio.Future[T]", settle: Callable[[], None]) -> None:
    if not ended.done():
        settle()
