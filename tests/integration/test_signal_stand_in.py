"""The stand-in for signal-cli's daemon as a program of its own, as it is used on a booted host."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from host_agent.notify.signal.channel import SignalChannel
from host_agent.notify.signal.signal_cli import SignalCli
from tests.support import signal_cli_server
from tests.support.patience import PATIENCE
from tests.support.signal_cli_server import ACCOUNT, ALICE
from tests.support.signal_people import Pauses, for_alice, listening, sent_by

PROGRAM = Path(signal_cli_server.__file__)
SYSTEM = Path("/usr/bin/python3")


@contextmanager
def running(folder: Path, *options: str) -> Iterator[None]:
    # Without the packages of this environment: the host has none.
    python = str(SYSTEM if SYSTEM.exists() else sys.executable)
    paths = [f"--{name}={folder / name}" for name in ("socket", "control", "state")]
    process = subprocess.Popen(
        [python, "-I", "-S", str(PROGRAM), *paths, *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def control(folder: Path, **wish: Any) -> Any:  # noqa: ANN401 - any JSON
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(folder / "control"))
        with connection.makefile("rwb") as stream:
            stream.write(json.dumps(wish).encode() + b"\n")
            stream.flush()
            told = json.loads(stream.readline())
    if "fault" in told:
        raise ValueError(told["fault"])
    return told["ok"]


def channel(folder: Path) -> SignalChannel:
    return SignalChannel(SignalCli(folder / "socket", ACCOUNT, user="nobody"), pause=Pauses())


async def test_it_is_led_by_its_control_socket(tmp_path: Path) -> None:
    with running(tmp_path):
        delivery = await sent_by(channel(tmp_path), for_alice())
        (sent,) = control(tmp_path, do="wait", count=1)
        assert (sent["recipient"], str(sent["timestamp"])) == ([ALICE], delivery.reference)
        control(tmp_path, do="say", aci=ALICE, text="DENY", quotes=sent["timestamp"])
        control(tmp_path, do="react", aci=ALICE, emoji="👎", target=sent["timestamp"])
        async with listening(channel(tmp_path)) as ears:
            answer = await ears.next()
            assert (answer.text, answer.quotes) == ("DENY", delivery.reference)
            assert (await ears.next()).reaction == "👎"
            assert control(tmp_path, do="clients") == 1


async def test_what_was_sent_and_what_waits_outlives_it(tmp_path: Path) -> None:
    with running(tmp_path):
        await sent_by(channel(tmp_path), for_alice())
        control(tmp_path, do="say", aci=ALICE, text="meanwhile")
    assert (tmp_path / "socket").exists()
    with running(tmp_path):
        assert len(control(tmp_path, do="sent")) == 1
        async with listening(channel(tmp_path)) as ears:
            assert (await ears.next()).text == "meanwhile"


def test_a_wish_that_it_cannot_grant_is_told(tmp_path: Path) -> None:
    with running(tmp_path):
        with pytest.raises(ValueError, match="cannot dance"):
            control(tmp_path, do="dance")
        with pytest.raises(ValueError, match="KeyError"):
            control(tmp_path, do="say")
        assert control(tmp_path, do="sent") == []


def test_others_may_not_use_its_socket_unless_told_so(tmp_path: Path) -> None:
    with running(tmp_path):
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o660
    with running(tmp_path, "--permissions", "600"):
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
