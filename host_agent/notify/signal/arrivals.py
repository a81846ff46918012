"""What arrives over Signal on its way to the one who reads it: bounded, and quiet about it.

Anybody may write to the account, as often as they like. That must neither fill the memory nor the
log, nor push out what an approver says.
"""

import asyncio
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable

from host_agent.notify.channel import Heard
from host_agent.notify.signal.envelope import Params

_log = logging.getLogger("host_agent.notify.signal")

MAX_ARRIVED = 500
"""Notifications that wait to be looked at."""
MAX_QUEUED = 200
"""Messages that wait to be read. When there are more, the oldest goes of who has most of them."""
MAX_QUEUED_EACH = 20
"""As many of one sender; then the sender's own oldest goes."""
MAX_ANSWERS_EACH = 20
"""Answers to one person within a minute. Signal counts what an account sends."""
MAX_PEOPLE = 1_000
MINUTE_SECONDS = 60.0
FAREWELL_SECONDS = 1.0
"""How long the other side may take to hand over what is on its way when we hang up."""


class Complaints:
    """Writes each kind of complaint into the log at most once a minute, and how often it was."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._told: dict[str, tuple[float, int]] = {}

    def add(self, kind: str) -> None:
        """Complain; `kind` is a sentence of ours, one of few."""
        now = self._monotonic()
        told_at, unsaid = self._told.get(kind, (-MINUTE_SECONDS, 0))
        if now - told_at < MINUTE_SECONDS:
            self._told[kind] = (told_at, unsaid + 1)
            return
        self._told[kind] = (now, 0)
        _log.warning("%s%s", kind, f" ({unsaid} times more since the last word)" * bool(unsaid))


class Arrivals:
    """What a driver has read off its connection. The oldest goes where too much waits."""

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self._queue: asyncio.Queue[Params | None] = asyncio.Queue()

    def put(self, params: Params) -> None:
        """Take one; never waits."""
        if self._queue.qsize() >= MAX_ARRIVED:
            self._queue.get_nowait()
            self._complaints.add("more arrives over Signal than is taken; the oldest was dropped")
        self._queue.put_nowait(params)

    def end(self) -> None:
        """Say that nothing follows."""
        self._queue.put_nowait(None)

    async def get(self) -> Params | None:
        """Return the next, or None at the end."""
        return await self._queue.get()

    def take_all(self) -> list[Params]:
        """Return what waits, and leave nothing."""
        taken = []
        while not self._queue.empty():
            params = self._queue.get_nowait()
            if params is not None:
                taken.append(params)
        return taken


class Inbox:
    """Messages of people that wait to be read; who sends many loses only their own."""

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self._waiting: deque[Heard] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, heard: Heard) -> None:
        """Take one; never waits."""
        waiting = Counter(other.address for other in self._waiting)
        if waiting[heard.address] >= MAX_QUEUED_EACH:
            self._drop(heard.address)
        elif len(self._waiting) >= MAX_QUEUED:
            self._drop(waiting.most_common(1)[0][0])
        self._waiting.append(heard)
        self._idle.clear()
        self._arrived.set()

    def _drop(self, address: str) -> None:
        oldest = next(heard for heard in self._waiting if heard.address == address)
        self._waiting.remove(oldest)
        self._complaints.add("more arrives over Signal than is read; the oldest was dropped")

    async def get(self) -> Heard:
        """Return the next, once whoever asks is done with the one before."""
        if not self._waiting:
            self._idle.set()
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.popleft()

    async def emptied(self) -> None:
        """Wait until all of it has been read."""
        await self._idle.wait()


class Manners:
    """Knows whom we have answered often enough for a minute."""

    def __init__(self, complaints: Complaints, monotonic: Callable[[], float]) -> None:
        self._complaints = complaints
        self._monotonic = monotonic
        self._answered: OrderedDict[str, deque[float]] = OrderedDict()

    def may_answer(self, address: str) -> bool:
        """Return whether one more answer is in place, and count it."""
        now = self._monotonic()
        times = self._answered.setdefault(address, deque())
        self._answered.move_to_end(address)
        while len(self._answered) > MAX_PEOPLE:
            self._answered.popitem(last=False)
        while times and now - times[0] >= MINUTE_SECONDS:
            times.popleft()
        if len(times) >= MAX_ANSWERS_EACH:
            self._complaints.add("somebody on Signal gets no more answers for a minute")
            return False
        times.append(now)
        return True
