"""What the service manager hears, at a socket of the test's own."""

import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from host_agent.agent.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """A socket as systemd listens at; non-blocking, because a datagram is there or was not sent."""
    name = str(tmp_path / "notify")
    address = name if request.param == "path" else "\0" + name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.setblocking(False)
        yield listening


def notifier(manager: socket.socket) -> Notifier:
    name = manager.getsockname()
    address = name if isinstance(name, str) else "@" + name[1:].decode()
    return Notifier.from_environment({"NOTIFY_SOCKET": address})


def heard(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_ready_is_told_with_a_status(manager: socket.socket) -> None:
    notifier(manager).ready("serving on 127.0.0.1:8443")
    assert heard(manager) == ["READY=1", "STATUS=serving on 127.0.0.1:8443"]


def test_reloading_carries_the_monotonic_time_in_microseconds(manager: socket.socket) -> None:
    before = time.monotonic_ns() // 1000
    notifier(manager).reloading()
    state, clock = heard(manager)
    assert state == "RELOADING=1"
    name, _, microseconds = clock.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.monotonic_ns() // 1000


def test_stopping_status_and_life_are_told(manager: socket.socket) -> None:
    teller = notifier(manager)
    teller.stopping()
    teller.status("draining")
    teller.alive()
    assert [heard(manager) for _ in range(3)] == [
        ["STOPPING=1"],
        ["STATUS=draining"],
        ["WATCHDOG=1"],
    ]


def test_a_status_cannot_add_an_assignment(manager: socket.socket) -> None:
    notifier(manager).status("a\nREADY=1\r\0b" + "x" * 9999)
    (line,) = heard(manager)
    assert line.startswith("STATUS=a READY=1  bxxx")
    assert len(line) < 250


@pytest.mark.parametrize("address", [None, "", "@", "relative/path", "vsock:2:1234"])
def test_without_a_manager_telling_does_nothing(address: str | None) -> None:
    silent = Notifier(address)
    assert not silent.is_heard
    silent.ready("serving")
    silent.reloading()
    silent.stopping()


def test_a_manager_that_went_away_is_logged_and_nothing_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        Notifier(str(tmp_path / "nobody")).ready()
    assert "not told" in caplog.text


@pytest.mark.parametrize("path", ["/" + "x" * 200, "/a\udcff\0b"])
def test_an_address_that_cannot_be_one_never_fails(path: str) -> None:
    Notifier(path).ready()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_read_from_the_environment(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier.from_environment(environ).watchdog_seconds == seconds
