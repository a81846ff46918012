"""A reload or a stop while people answer over Signal: what was handed over is heard, once."""

import asyncio
from pathlib import Path

import pytest

from host_agent import messaging
from host_agent.approvals.channels.port import Heard
from host_agent.approvals.channels.signal import SignalChannel
from host_agent.approvals.channels.signal_cli import SignalCli
from host_agent.messaging import Messaging
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

    async def __call__(self, heard: Heard) -> str | None:
        self.heard.append(heard.text)
        self.begun.set()
        await asyncio.sleep(0.5)
        return "heard"


async def subscribed(daemon: SignalCliServer) -> None:
    """Return once one connection receives."""
    await daemon.until(lambda: [bool(client.subscriptions) for client in daemon.clients] == [True])


def channels(socket: Path) -> dict[str, SignalChannel]:
    return {"signal": SignalChannel(SignalCli(socket, ACCOUNT))}


async def begun(
    bench: Workbench, socket: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Messaging, Slow]:
    """Return the agent's way to people, with an answer on its way to a decision."""
    monkeypatch.setattr(messaging, "make_channels", lambda *_: channels(socket))
    slow = Slow()
    monkeypatch.setattr(bench.pipeline.hearing, "hear", slow)
    way = Messaging(bench.rooms, bench.pipeline)
    await way.start()
    return way, slow


@pytest.mark.parametrize("mode", ["on-connection", "manual"])
async def test_a_reload_loses_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    socket = tmp_path / "socket"
    async with (
        SignalCliServer(socket, mode=mode) as daemon,
        opened(tmp_path, people=PEOPLE, identities=IDENTITIES_AND_BRIDGE) as bench,
    ):
        way, slow = await begun(bench, socket, monkeypatch)
        await subscribed(daemon)
        daemon.deliver(said(ALICE, FIRST, SENT + 1))
        await slow.begun.wait()
        reload = asyncio.create_task(way.renew(channels(socket)))
        await asyncio.sleep(0.1)
        daemon.deliver(said(BOB, SECOND, SENT + 2))
        await reload
        await subscribed(daemon)
        daemon.deliver(said(BOB, THIRD, SENT + 3))
        async with asyncio.timeout(10):
            while len(slow.heard) < 3:
                await asyncio.sleep(0.05)
        await way.close()
    assert slow.heard == [FIRST, SECOND, THIRD]


@pytest.mark.parametrize("mode", ["on-connection", "manual"])
async def test_a_stop_loses_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    socket = tmp_path / "socket"
    async with (
        SignalCliServer(socket, mode=mode) as daemon,
        opened(tmp_path, people=PEOPLE, identities=IDENTITIES_AND_BRIDGE) as bench,
    ):
        way, slow = await begun(bench, socket, monkeypatch)
        await subscribed(daemon)
        daemon.deliver(said(ALICE, FIRST, SENT + 1))
        await slow.begun.wait()
        stop = asyncio.create_task(way.close())
        await asyncio.sleep(0.1)
        daemon.deliver(said(BOB, SECOND, SENT + 2))
        await stop
        later = Messaging(bench.rooms, bench.pipeline)
        await later.start()
        await subscribed(daemon)
        async with asyncio.timeout(10):
            while SECOND not in slow.heard:
                await asyncio.sleep(0.05)
        await later.close()
    assert slow.heard == [FIRST, SECOND]
