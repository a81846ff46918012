"""What tests of chats share: who hears, what is sent, and how long the channel pauses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from host_agent.notify.channel import Channel, ChannelReply, Delivery, Message
from tests.support.messages import CODE, a_message
from tests.support.patience import PATIENCE
from tests.support.signal_cli_server import ALICE


class Ears:
    """Keeps what is heard, and answers as it is told to."""

    def __init__(self, answer: Callable[[ChannelReply], str | None] = lambda _: None) -> None:
        self.heard: asyncio.Queue[ChannelReply] = asyncio.Queue()
        self._answer = answer

    async def __call__(self, heard: ChannelReply) -> str | None:
        await self.heard.put(heard)
        return self._answer(heard)

    async def next(self) -> ChannelReply:
        return await asyncio.wait_for(self.heard.get(), PATIENCE)

    async def texts_until(self, last: str) -> list[str]:
        """Return every text up to that one."""
        texts = [(await self.next()).text]
        while texts[-1] != last:
            texts.append((await self.next()).text)
        return texts


class Pauses:
    """Pauses that last no time; `seconds` has how long they were meant to be.

    With `is_held`, each waits until `go` is called.
    """

    def __init__(self, *, is_held: bool = False) -> None:
        self.seconds: list[float] = []
        self._is_held = is_held
        self._begun = asyncio.Semaphore(0)
        self._gone = asyncio.Semaphore(0)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self._begun.release()
        if self._is_held:
            await self._gone.acquire()
        await asyncio.sleep(0)

    async def begun(self) -> float:
        """Wait for the next pause to begin; return how long it is."""
        await asyncio.wait_for(self._begun.acquire(), PATIENCE)
        return self.seconds[-1]

    def go(self) -> None:
        self._gone.release()


@asynccontextmanager
async def listening(channel: Channel, ears: Ears | None = None) -> AsyncIterator[Ears]:
    """Listen in the background; the channel is closed after that."""
    ears = Ears() if ears is None else ears
    task = asyncio.create_task(channel.listen(ears))
    try:
        yield ears
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await channel.close()


def for_alice(**changes: Any) -> Message:
    """Return a prompt for Alice's address."""
    return a_message(**{"address": ALICE, "code": CODE, **changes})


async def sent_by(channel: Channel, message: Message) -> Delivery:
    """Send and hang up."""
    try:
        return await channel.send(message)
    finally:
        await channel.close()
