"""The agent as a systemd service: what it tells the service manager (`sd_notify`).

Facts from sd_notify(3) and systemd.service(5), `Type=notify-reload`. Outside systemd there is no
socket to tell, and every call does nothing.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Self

_log = logging.getLogger(__name__)

_STATUS_LENGTH = 240


class Notifier:
    """Tells the service manager how the agent is. Telling never fails and never waits.

    `address` is the value of NOTIFY_SOCKET: a path, or `@name` for the abstract namespace of Linux.
    Other kinds of address (vsock) are not spoken. `watchdog_seconds` is how long the manager waits
    for a sign of life; None where it does not.
    """

    def __init__(self, address: str | None, *, watchdog_seconds: float | None = None) -> None:
        self._address = _parsed(address)
        self.watchdog_seconds = watchdog_seconds

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Return the notifier that the service manager asked for, or one that tells nobody."""
        return cls(environ.get("NOTIFY_SOCKET"), watchdog_seconds=_watchdog(environ))

    @property
    def is_heard(self) -> bool:
        """Return whether there is a service manager to tell."""
        return self._address is not None

    def ready(self, status: str | None = None) -> None:
        """Tell that the agent serves: after the start, and at the end of each reload."""
        self._tell("READY=1", status)

    def reloading(self) -> None:
        """Tell that a reload begins; `ready` ends it, also where the configuration is rejected."""
        # The manager compares this with its own CLOCK_MONOTONIC, to pair it with its SIGHUP.
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={microseconds}", None)

    def stopping(self, status: str | None = None) -> None:
        """Tell that the agent drains and ends."""
        self._tell("STOPPING=1", status)

    def status(self, status: str) -> None:
        """Tell in words what `systemctl status` shows."""
        self._tell("", status)

    def alive(self) -> None:
        """Give the sign of life that the watchdog waits for."""
        self._tell("WATCHDOG=1", None)

    def _tell(self, assignments: str, status: str | None) -> None:
        if self._address is None:
            return
        lines = [assignments] if assignments else []
        if status is not None:
            lines.append(f"STATUS={_one_line(status)}")
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as teller:
                teller.setblocking(False)
                teller.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            _log.warning("the service manager was not told %r: %s", lines[0], error)


def _parsed(address: str | None) -> bytes | None:
    if not address or address[0] not in "/@" or len(address) == 1:
        return None
    encoded = os.fsencode(address)
    return b"\0" + encoded[1:] if address[0] == "@" else encoded


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Return WATCHDOG_USEC in seconds, where it is meant for this process."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit()) or int(microseconds) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000


def _one_line(text: str) -> str:
    """Return `text` as it fits one assignment: a newline would begin another one."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown[:_STATUS_LENGTH].encode("utf-8", "replace").decode()
