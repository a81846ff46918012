"""Reloads and their verdicts: `host-agent reload` asks over a socket and gets the answer.

A signal cannot be answered, so `systemctl reload` could not fail. The socket lies in the service's
runtime directory, which systemd makes (RuntimeDirectory= in systemd.exec(5)); whoever runs as root
or as the agent's own user may ask, and all that can be asked for is a reload. Reloads come one
after the other, and each answer is about a reload that began after its question.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self, TypeAlias

from host_agent.errors import ConnectionFailedError, InvalidAnswerError
from host_agent.notify.peers import peer_uid

SOCKET_NAME = "control"
RUNTIME_DIRECTORY = "/run/host-agent"
QUESTION = b"reload\n"
ANSWER_SECONDS = 60.0
"""How long a reload may take: less than the 90 s that systemd waits for it (TimeoutStartSec=)."""

_QUESTION_SECONDS = 5.0
_MAX_ANSWER = 65_536
_MAX_FAULTS = 20
_log = logging.getLogger("host_agent.agent")

Reload: TypeAlias = Callable[[], Awaitable[tuple[list[str], str]]]
"""Reloads; returns the faults, none where the new configuration serves, and what serves now."""


class ReloadSocket:
    """Listens for whoever may ask for a reload. A context manager; None as `directory`: nowhere."""

    def __init__(self, directory: Path | None, reload: Reload) -> None:
        self._path = None if directory is None else directory / SOCKET_NAME
        self._reload = reload
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        if self._path is not None:
            try:
                listening = _bound(self._path)
                self._server = await asyncio.start_unix_server(self._answer, sock=listening)
            except OSError as error:  # it serves all the same, and SIGHUP reloads it
                _log.error("nobody can ask for a reload at %s: %s", self._path, error.strerror)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None and self._path is not None:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if peer_uid(writer.get_extra_info("socket")) not in (0, os.geteuid()):
                return
            async with asyncio.timeout(_QUESTION_SECONDS):
                question = await reader.readline()
            if question != QUESTION:
                return
            faults, serves = await self._reload()
            told = {"ok": not faults, "faults": faults[:_MAX_FAULTS], "serves": serves}
            writer.write(json.dumps(told).encode() + b"\n")
            await writer.drain()
        except (OSError, TimeoutError, ValueError) as error:
            _log.warning("a question for a reload was not answered: %s", type(error).__name__)
        finally:
            writer.close()


def _bound(path: Path) -> socket.socket:
    """Return a listening socket at `path` that only this user may connect to.

    What an agent that was killed left there is taken away; only one agent has the state directory.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(listening.fileno(), 0o600)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(8)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def ask_reload(directory: Path, *, seconds: float = ANSWER_SECONDS) -> tuple[list[str], str]:
    """Have the agent reload; return the faults, none where the new one serves, and what serves.

    Raises:
        ConnectionFailedError: no agent listens, it ended meanwhile, or does not answer in time.
        InvalidAnswerError: what answers is no agent.
    """
    path = directory / SOCKET_NAME
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as asking:
        asking.settimeout(seconds)
        try:
            asking.connect(str(path))
            asking.sendall(QUESTION)
            answer = _read_line(asking)
        except TimeoutError as error:
            message = f"The agent did not say within {seconds:.0f} s what became of the reload."
            raise ConnectionFailedError(message) from error
        except OSError as error:
            message = f"No agent can be asked at {path}: {error.strerror}. Is it running?"
            raise ConnectionFailedError(message) from error
    if not answer:
        message = "The agent ended before it said what became of the reload."
        raise ConnectionFailedError(message)
    return _parsed(answer)


def _read_line(asking: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) <= _MAX_ANSWER:
        part = asking.recv(_MAX_ANSWER)
        if not part:
            break
        data += part
    return data


def _parsed(answer: bytes) -> tuple[list[str], str]:
    try:
        told = json.loads(answer)
        faults, serves = [str(fault) for fault in told["faults"]], str(told["serves"])
        is_good = told["ok"] is True
    except (ValueError, KeyError, TypeError) as error:
        message = "What answers for the reload is no agent."
        raise InvalidAnswerError(message) from error
    return (faults or ["it was rejected"]) if not is_good else [], serves
