"""Slots to run in: one change per resource, so many processes in all, in order of asking.

What changes the host goes before reads that wait, and reads that wait are let in by caller in turn:
a caller that asks for many slow reads keeps neither an approved change nor another caller out.
"""

import asyncio
from collections import Counter, deque
from types import TracebackType
from typing import Any, Self

from host_agent.errors import HostBusyError

RETRY_AFTER_SECONDS = 5.0


class Slots:
    """Where processes may run on this host.

    A change or destroy waits until no other one of the same resource runs; everything waits until
    fewer than `max_concurrent` run. Reads are never held back by a resource, and waiting for a
    resource takes no place. The reads of one caller never take the last free place, where there is
    more than one place at all: it is for changes and for other callers. A slot inside a slot of the
    same task takes no second place: a task runs one process at a time, and two places a task could
    block each other for good.
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
        """Return how many run now."""
        return self._places.taken

    def is_free(self, resource_key: str) -> bool:
        """Return whether nobody changes this resource, or waits to."""
        return resource_key not in self._resources

    def change(self, resource_key: str, timeout_seconds: float | None = None) -> "Slot":
        """Return a slot to change `resource_key`, for `async with`.

        Waits at most `timeout_seconds`, without a limit where it is None. With 0 or less it is had
        at once or not at all.

        Raises:
            HostBusyError: on entering, when the time is over. Nothing is held then.
        """
        return Slot(self, resource_key, timeout_seconds, caller=None)

    def read(self, timeout_seconds: float | None = None, *, caller: str | None = None) -> "Slot":
        """Return a slot to read, for `async with`; waits and raises as `change` does.

        `caller` is whom it is for; those of None share nothing and count as one when they wait.
        """
        return Slot(self, None, timeout_seconds, caller=caller)

    async def enter(
        self, resource_key: str | None, until: float | None, *, caller: str | None = None
    ) -> bool:
        """Take a slot, as `Slot` does; return whether a place was taken, for `leave`."""
        if resource_key is not None and not await self._enter_resource(resource_key, until):
            message = "The resource is being changed by another operation; ask again shortly."
            raise HostBusyError(message, retry_after_seconds=RETRY_AFTER_SECONDS)
        task = asyncio.current_task()
        if task in self._holders:
            return False
        entered = False
        try:
            is_first = resource_key is not None
            entered = await self._places.enter(until, is_first=is_first, caller=caller)
        finally:
            if not entered and resource_key is not None:
                self._leave_resource(resource_key)
        if not entered:
            message = "The host runs as many operations as it may at once; ask again shortly."
            raise HostBusyError(message, retry_after_seconds=RETRY_AFTER_SECONDS)
        self._holders.add(task)
        return True

    def leave(
        self, resource_key: str | None, *, has_place: bool, caller: str | None = None
    ) -> None:
        """Give back what `enter` took, in the same task."""
        if has_place:
            self._holders.discard(asyncio.current_task())
            self._places.leave(caller)
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


class Slot:
    """One slot, taken by `async with` and given back on every way out."""

    __slots__ = ("_caller", "_has_place", "_resource_key", "_slots", "_timeout_seconds")

    def __init__(
        self,
        slots: Slots,
        resource_key: str | None,
        timeout_seconds: float | None,
        *,
        caller: str | None,
    ) -> None:
        self._slots = slots
        self._caller = caller
        self._resource_key = resource_key
        self._timeout_seconds = timeout_seconds
        self._has_place = False

    async def __aenter__(self) -> Self:
        timeout = self._timeout_seconds
        until = None if timeout is None else asyncio.get_running_loop().time() + timeout
        self._has_place = await self._slots.enter(self._resource_key, until, caller=self._caller)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._slots.leave(self._resource_key, has_place=self._has_place, caller=self._caller)


class _Gate:
    """Lets `capacity` in at once; those who are first before the others.

    Among the others each caller has a queue of its own, in the order of asking, and the callers
    take turns. Who leaves hands the place to the first who waits and may have it, so a late comer
    never overtakes. A waiter's future is resolved once: True by the one who leaves, or False by the
    clock.
    """

    __slots__ = ("_first", "_inside", "_queues", "capacity", "taken")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0
        self._inside: Counter[str] = Counter()
        self._first: deque[asyncio.Future[bool]] = deque()
        self._queues: dict[str | None, deque[asyncio.Future[bool]]] = {}

    async def enter(
        self, until: float | None, *, is_first: bool = False, caller: str | None = None
    ) -> bool:
        """Wait for a place until the loop's time `until`; return whether one was had."""
        # While a place is free, nobody waits who may have it.
        if self.taken < self.capacity and self._may_enter(caller):
            self._take(caller)
            return True
        loop = asyncio.get_running_loop()
        if until is not None and until <= loop.time():
            return False
        waiter: asyncio.Future[bool] = loop.create_future()
        (self._first if is_first else self._queues.setdefault(caller, deque())).append(waiter)
        timer = None if until is None else loop.call_at(until, self._give_up, waiter, caller)
        try:
            return await waiter
        except asyncio.CancelledError:
            self._forget(waiter, caller)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def leave(self, caller: str | None = None) -> None:
        """Give a place back."""
        self.taken -= 1
        if caller is not None:
            self._inside[caller] -= 1
            if not self._inside[caller]:
                del self._inside[caller]
        self._admit()

    def resize(self, capacity: int) -> None:
        """Change how many are let in; nobody inside is put out."""
        self.capacity = capacity
        self._admit()

    def _may_enter(self, caller: str | None) -> bool:
        return caller is None or self._inside[caller] < max(1, self.capacity - 1)

    def _take(self, caller: str | None) -> None:
        self.taken += 1
        if caller is not None:
            self._inside[caller] += 1

    def _admit(self) -> None:
        while self.taken < self.capacity:
            if self._first:
                caller, waiter = None, self._first.popleft()
            elif (found := self._next_in_turn()) is not None:
                caller, waiter = found
            else:
                return
            if not waiter.done():
                self._take(caller)
                waiter.set_result(True)

    def _next_in_turn(self) -> tuple[str | None, asyncio.Future[bool]] | None:
        """Take the first waiter of the first caller that may enter; the caller goes to the end."""
        for caller, queue in self._queues.items():
            if self._may_enter(caller):
                waiter = queue.popleft()
                del self._queues[caller]
                if queue:
                    self._queues[caller] = queue
                return caller, waiter
        return None

    def _give_up(self, waiter: asyncio.Future[bool], caller: str | None) -> None:
        if not waiter.done():
            self._drop(waiter, caller)
            waiter.set_result(False)

    def _forget(self, waiter: asyncio.Future[bool], caller: str | None) -> None:
        """Undo the wait of a cancelled task, which may have been handed its place just before."""
        if not waiter.cancelled():
            if waiter.result():
                self.leave(caller)
        else:
            self._drop(waiter, caller)

    def _drop(self, waiter: asyncio.Future[bool], caller: str | None) -> None:
        queue = self._queues.get(caller, self._first)
        for waiting in (self._first, queue):
            if waiter in waiting:
                waiting.remove(waiter)
        if not queue:
            self._queues.pop(caller, None)
