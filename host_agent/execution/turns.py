"""Whose turn it is: one change per resource, so many processes in all, in order of asking.

What changes the host goes before reads that wait: a caller that fills every place with slow reads
must not keep an approved change out.
"""

import asyncio
from collections import deque
from types import TracebackType
from typing import Any, Self

from host_agent.errors import HostBusyError

RETRY_AFTER_SECONDS = 5.0


class Turns:
    """Turns to run on this host.

    A change or destroy waits until no other one of the same resource runs; everything waits until
    fewer than `max_concurrent` run. Reads are never held back by a resource, and waiting for a
    resource takes no place. A turn inside a turn of the same task takes no second place: a task
    runs one process at a time, and two places a task could block each other for good.
    """

    def __init__(self, max_concurrent: int) -> None:
        self._places = _Gate(max_concurrent)
        self._resources: dict[str, _Gate] = {}
        self._holders: set[asyncio.Task[Any] | None] = set()

    @property
    def max_concurrent(self) -> int:
        """Return how many may run at once."""
        return self._places.capacity

    def resize(self, max_concurrent: int) -> None:
        """Let `max_concurrent` run at once from now on; those that run already go on."""
        self._places.resize(max_concurrent)

    @property
    def running(self) -> int:
        """Return how many have their turn now."""
        return self._places.taken

    @property
    def changing(self) -> frozenset[str]:
        """Return the resources that are being changed."""
        return frozenset(self._resources)

    def change(self, resource_key: str, timeout_seconds: float | None = None) -> "Turn":
        """Return a turn to change `resource_key`, for `async with`.

        Waits at most `timeout_seconds`, without a limit where it is None. With 0 or less it is had
        at once or not at all.

        Raises:
            HostBusyError: on entering, when the time is over. Nothing is held then.
        """
        return Turn(self, resource_key, timeout_seconds)

    def read(self, timeout_seconds: float | None = None) -> "Turn":
        """Return a turn to read, for `async with`; waits and raises as `change` does."""
        return Turn(self, None, timeout_seconds)

    async def enter(self, resource_key: str | None, until: float | None) -> bool:
        """Take a turn, as `Turn` does; return whether a place was taken, for `leave`."""
        if resource_key is not None and not await self._enter_resource(resource_key, until):
            message = "The resource is being changed by another operation; ask again shortly."
            raise HostBusyError(message, retry_after_seconds=RETRY_AFTER_SECONDS)
        task = asyncio.current_task()
        if task in self._holders:
            return False
        entered = False
        try:
            entered = await self._places.enter(until, is_first=resource_key is not None)
        finally:
            if not entered and resource_key is not None:
                self._leave_resource(resource_key)
        if not entered:
            message = "The host runs as many operations as it may at once; ask again shortly."
            raise HostBusyError(message, retry_after_seconds=RETRY_AFTER_SECONDS)
        self._holders.add(task)
        return True

    def leave(self, resource_key: str | None, *, has_place: bool) -> None:
        """Give back what `enter` took, in the same task."""
        if has_place:
            self._holders.discard(asyncio.current_task())
            self._places.leave()
        if resource_key is not None:
            self._leave_resource(resource_key)

    async def _enter_resource(self, resource_key: str, until: float | None) -> bool:
        gate = self._resources.setdefault(resource_key, _Gate(1))
        try:
            return await gate.enter(until)
        finally:
            # Cancelled just when it was handed over: nobody else would drop the key.
            if not gate.taken and self._resources.get(resource_key) is gate:
                del self._resources[resource_key]

    def _leave_resource(self, resource_key: str) -> None:
        gate = self._resources[resource_key]
        gate.leave()
        if not gate.taken:
            del self._resources[resource_key]


class Turn:
    """One turn, taken by `async with` and given back on every way out."""

    __slots__ = ("_has_place", "_resource_key", "_timeout_seconds", "_turns")

    def __init__(
        self, turns: Turns, resource_key: str | None, timeout_seconds: float | None
    ) -> None:
        self._turns = turns
        self._resource_key = resource_key
        self._timeout_seconds = timeout_seconds
        self._has_place = False

    async def __aenter__(self) -> Self:
        timeout = self._timeout_seconds
        until = None if timeout is None else asyncio.get_running_loop().time() + timeout
        self._has_place = await self._turns.enter(self._resource_key, until)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._turns.leave(self._resource_key, has_place=self._has_place)


class _Gate:
    """Lets `capacity` in at once, in the order of asking; those who are first before the others.

    Who leaves hands the place to the first who waits, so a late comer never overtakes. A waiter's
    future is resolved once: True by the one who leaves, or False by the clock.
    """

    __slots__ = ("_first", "_waiters", "capacity", "taken")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0
        self._first: deque[asyncio.Future[bool]] = deque()
        self._waiters: deque[asyncio.Future[bool]] = deque()

    async def enter(self, until: float | None, *, is_first: bool = False) -> bool:
        """Wait for a place until the loop's time `until`; return whether one was had."""
        if self.taken < self.capacity and not (self._first or self._waiters):
            self.taken += 1
            return True
        loop = asyncio.get_running_loop()
        if until is not None and until <= loop.time():
            return False
        waiter: asyncio.Future[bool] = loop.create_future()
        (self._first if is_first else self._waiters).append(waiter)
        timer = None if until is None else loop.call_at(until, self._give_up, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._forget(waiter)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def leave(self) -> None:
        """Give a place back."""
        self.taken -= 1
        self._admit()

    def resize(self, capacity: int) -> None:
        """Change how many are let in; nobody inside is put out."""
        self.capacity = capacity
        self._admit()

    def _admit(self) -> None:
        while (waiting := self._first or self._waiters) and self.taken < self.capacity:
            waiter = waiting.popleft()
            if not waiter.done():
                self.taken += 1
                waiter.set_result(True)

    def _give_up(self, waiter: asyncio.Future[bool]) -> None:
        if not waiter.done():
            self._drop(waiter)
            waiter.set_result(False)

    def _forget(self, waiter: asyncio.Future[bool]) -> None:
        """Undo the wait of a cancelled task, which may have been handed its place just before."""
        if not waiter.cancelled():
            if waiter.result():
                self.leave()
        else:
            self._drop(waiter)

    def _drop(self, waiter: asyncio.Future[bool]) -> None:
        for waiting in (self._first, self._waiters):
            if waiter in waiting:
                waiting.remove(waiter)
