"""Work that must outlive the exchange that started it.

A client that goes away cancels its handler. What it has started goes on here, is written down, and
is waited for at shutdown.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from host_agent.errors import HostAgentError

_T = TypeVar("_T")
_log = logging.getLogger("host_agent.pipeline")


class Tasks:
    """The set of running work. An error that nobody awaits is logged, never lost."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, _T], *, name: str) -> asyncio.Task[_T]:
        """Start `work` and keep it until it ends."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def shielded(self, work: Coroutine[Any, Any, _T], *, name: str) -> _T:
        """Return the result of `work`; if the caller is cancelled, `work` goes on to its end."""
        return await asyncio.shield(self.start(work, name=name))

    async def drain(self, seconds: float) -> int:
        """Wait up to `seconds` for everything; cancel the rest and return how many those were."""
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        # What runs may start more, as a decision starts its run: that has its time too.
        while self._running and (rest := end - clock()) > 0:
            await asyncio.wait(set(self._running), timeout=rest)
        left = set(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=5)
        return len(left)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, HostAgentError):
            _log.error("%s failed", task.get_name(), exc_info=error)
