"""A reload or a stop while people answer over Signal: what was handed over is heard, once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from host_agent.agent.messaging import Messaging
from host_agent.notify.channel import ChannelReply
from host_agent.notify.signal.channel import SignalChannel
from host_agent.notify.signal.signal_cli import SignalCli
from tests.support.patience import PATIENCE
from tests.support.people import IDENTITIES_AND_BRIDGE, PEOPLE
from tests.support.pipeline import Workbench, opened
from tests.support.signal_cli_server import ACCOUNT, ALICE, BOB, SignalCliServer, said

FIRST, SECOND, THIRD = "CONFIRM one", "DENY two", "CONFIRM three"
SENT = 1_700_000_000_000


class Slow:
    """Hears as the pipeline does, and takes its time."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.begun = asyncio.Event()
        self.onward = asyncio.Event()

    async def __call__(self, heard: ChannelReply) -> str | None:
        self.heard.append(heard.text)
        self.begun.set()
        await self.onward.wait()
        return "heard"


async def subscribed(daemon: SignalCliServer) -> None:
    """Return once one connection receives."""
    await daemon.until(lambda: [bool(client.subscriptions) for client in daemon.clients] == [True])


def channels(socket: Path) -> dict[str, SignalChannel]:
    return {"signal": SignalChannel(SignalCli(socket, ACCOUNT, user="nobody"))}


@dataclass(frozen=True, slots=True)
class Begun:
    """The agent's way to people, with an answer on its way to a decision."""

    bench: Workbench
    daemon: SignalCliServer
    way: Messaging
    slow: Slow

    async def until_ending(self) -> None:
        """Return once nobody listens any more, while what was heard is still being decided."""
        (listening,) = self.way._listening
        async with asyncio.timeout(PATIENCE):
            while not listening.cancelling():
                await asyncio.sleep(0)
        assert not listening.done()


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture(params=["on-connection", "manual"])
async def begun(
    request: pytest.FixtureRequest, tmp_path: Path, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Begun]:
    async with (
        SignalCliServer(socket, mode=request.param) as daemon,
        opened(tmp_path, people=PEOPLE, identities=IDENTITIES_AND_BRIDGE) as bench,
    ):
        slow = Slow()
        monkeypatch.setattr(bench.pipeline.replies, "hear", slow)
        way = Messaging(bench.context, bench.pipeline)
        await way.start(channels(socket))
        await subscribed(daemon)
        daemon.deliver(said(ALICE, FIRST, SENT + 1))
        await slow.begun.wait()
        yield Begun(bench, daemon, way, slow)


async def test_a_reload_loses_no_answer(begun: Begun, socket: Path) -> None:
    reload = asyncio.create_task(begun.way.renew(channels(socket)))
    await begun.until_ending()
    begun.daemon.deliver(said(BOB, SECOND, SENT + 2))
    begun.slow.onward.set()
    await reload
    await subscribed(begun.daemon)
    begun.daemon.deliver(said(BOB, THIRD, SENT + 3))
    async with asyncio.timeout(PATIENCE):
        while len(begun.slow.heard) < 3:
            await asyncio.sleep(0.05)
    await begun.way.close()
    assert begun.slow.heard == [FIRST, SECOND, THIRD]


async def test_a_stop_loses_no_answer(begun: Begun, socket: Path) -> None:
    stop = asyncio.create_task(begun.way.close())
    await begun.until_ending()
    begun.daemon.deliver(said(BOB, SECOND, SENT + 2))
    begun.slow.onward.set()
    await stop
    later = Messaging(begun.bench.context, begun.bench.pipeline)
    await later.start(channels(socket))
    await subscribed(begun.daemon)
    async with asyncio.timeout(PATIENCE):
        while SECOND not in begun.slow.heard:
            await asyncio.sleep(0.05)
    await later.close()
    assert begun.slow.heard == [FIRST, SECOND]
