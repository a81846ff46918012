"""What arrives over Signal on its way to the one who reads it: bounded, and quiet about it.

Anybody may write to the account, as often as they like. That must neither fill the memory nor the
log, nor push out what an approver says.
"""

import asyncio
from collections import Counter, deque

from host_agent.notify.channel import ChannelReply
from host_agent.notify.flood import Complaints
from host_agent.notify.signal.envelope import Params

MAX_ARRIVED = 500
"""Notifications that wait to be looked at."""
MAX_QUEUED = 200
"""Messages that wait to be read. When there are more, the oldest goes of who has most of them."""
MAX_QUEUED_EACH = 20
"""As many of one sender; then the sender's own oldest goes."""
FAREWELL_SECONDS = 1.0
"""How long the other side may take to hand over what is on its way when we hang up."""


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
        """Remove everything that waits, and return it."""
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
        self._waiting: deque[ChannelReply] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, reply: ChannelReply) -> None:
        """Take one; never waits."""
        waiting = Counter(other.address for other in self._waiting)
        if waiting[reply.address] >= MAX_QUEUED_EACH:
            self._drop(reply.address)
        elif len(self._waiting) >= MAX_QUEUED:
            self._drop(waiting.most_common(1)[0][0])
        self._waiting.append(reply)
        self._idle.clear()
        self._arrived.set()

    def _drop(self, address: str) -> None:
        oldest = next(reply for reply in self._waiting if reply.address == address)
        self._waiting.remove(oldest)
        self._complaints.add("more arrives over Signal than is read; the oldest was dropped")

    async def get(self) -> ChannelReply:
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
