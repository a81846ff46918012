"""Whoever takes the place of Signal's daemon is told nothing, and says nothing for anybody."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.notify.channel import ChannelError
from host_agent.notify.peers import owner_fault
from host_agent.notify.signal.channel import SignalChannel
from host_agent.notify.signal.signal_cli import SignalCli
from host_agent.requests.notification import Failure
from tests.support.patience import PATIENCE
from tests.support.signal_cli_server import ACCOUNT, ALICE
from tests.support.signal_people import Ears, Pauses, for_alice, listening, sent_by

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to start a program of another user"),
]

PROGRAM = Path(__file__).parents[1] / "support/signal_cli_server.py"
USER = "nobody"


class Daemon:
    """The stand-in as a process of `nobody`, in a directory where everybody may make sockets."""

    def __init__(self, folder: Path) -> None:
        self.socket, self._control = folder / "signal.sock", folder / "control.sock"
        program = folder / PROGRAM.name
        shutil.copy(PROGRAM, program)
        program.chmod(0o644)
        self._process = subprocess.Popen(
            ["/usr/bin/python3", program, "--socket", self.socket, "--control", self._control],
            user=USER,
            group="nogroup",
            extra_groups=[],
            cwd="/",
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def do(self, what: str, **more: object) -> Any:  # noqa: ANN401
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(PATIENCE)
            link.connect(str(self._control))
            link.sendall(json.dumps({"do": what, **more}).encode() + b"\n")
            told = json.loads(link.makefile().readline())
        assert "fault" not in told
        return told["ok"]

    def end(self) -> None:
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o1777)
        started = Daemon(folder)
        yield started
        started.end()


def channel(daemon: Daemon, user: str, **changes: Any) -> SignalChannel:
    return SignalChannel(SignalCli(daemon.socket, ACCOUNT, user=user), pause=Pauses(), **changes)


@pytest.mark.parametrize("user", ["daemon", "no-such-user"])
async def test_a_daemon_of_another_user_is_told_nothing(daemon: Daemon, user: str) -> None:
    with pytest.raises(ChannelError, match=f"belongs to {USER} .* and not to {user}") as caught:
        await sent_by(channel(daemon, user), for_alice())
    assert caught.value.failure is Failure.NOT_CONFIGURED
    assert daemon.do("sent") == []


async def test_the_twin_of_the_configured_user_is_told(daemon: Daemon) -> None:
    await sent_by(channel(daemon, USER), for_alice())
    (sent,) = daemon.do("sent")
    assert sent["recipient"] == [ALICE]


async def test_a_daemon_of_another_user_is_believed_nothing(daemon: Daemon) -> None:
    daemon.do("say", aci=ALICE, text="CONFIRM ABCD-EFGH")
    pauses = Pauses(is_held=True)
    it = SignalChannel(SignalCli(daemon.socket, ACCOUNT, user="daemon"), pause=pauses)
    ears = Ears()
    async with listening(it, ears):
        for _ in range(3):
            await pauses.begun()
            pauses.go()
    assert ears.heard.empty()
    while daemon.do("clients"):  # it has to notice that they are gone
        await asyncio.sleep(0.01)
    async with listening(channel(daemon, USER)) as open_ears:
        daemon.do("say", aci=ALICE, text="CONFIRM ABCD-EFGH")
        assert (await open_ears.next()).text == "CONFIRM ABCD-EFGH"


async def test_a_probe_names_who_answers(daemon: Daemon) -> None:
    it = channel(daemon, USER)
    assert f"of the user {USER} answers" in await it.probe()
    await it.close()
    it = channel(daemon, "daemon")
    with pytest.raises(ChannelError, match=f"belongs to {USER}"):
        await it.probe()
    await it.close()


def test_what_config_check_says_of_it_takes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    uid = os.geteuid()
    fault = owner_fault(daemon.socket, "daemon", own_uid=uid)
    assert fault is not None
    assert fault.startswith(f"{daemon.socket} belongs to {USER}")
    assert owner_fault(daemon.socket, USER, own_uid=uid) is None
    assert owner_fault(tmp_path / "nothing", "daemon", own_uid=uid) is None
    # A connection would be given what waits for the agent.
    assert daemon.do("clients") == 0
