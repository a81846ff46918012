"""The process that forks agents: everything is imported once, so that a start costs none of it.

`python -m tests.crash.nursery DESCRIPTOR`. Orders come in and news go out over one socket that
keeps messages apart, as JSON:

- `{"do": "start", ...Birth}`, `{"do": "kill"}`, `{"do": "stop"}`
- `{"say": "serving", "url"}`, `{"say": "reached", "point"}`, `{"say": "ended", "status"}`

The socket's end ends the agent and this process. There is one agent at a time.
"""

import asyncio
import ctypes
import gc
import json
import logging
import os
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from host_agent.clock import SystemClock
from tests.crash.points import Fuse
from tests.crash.ports import FusedAgent, fuse_audit_files

CLOCK_SPEED = 60
"""How fast the agent's wall clock runs, so that requests expire within the life of a harness."""
MESSAGE_BYTES = 65536
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """How one agent is to be born: what it serves, where it logs, and where it is to die."""

    config: str
    log: str
    began: float
    """When the place was made (Unix time): the agent's clock runs from there."""
    point: str | None = None
    hits: int = 1
    part: float = 0.5

    def order(self) -> dict[str, Any]:
        """Return the message that starts it."""
        return {"do": "start", **asdict(self)}


def fast_clock(began: float) -> SystemClock:
    """Return a clock that stood at `began` then and runs fast since."""
    return SystemClock(wall=lambda: began + (time.time() - began) * CLOCK_SPEED)


class _Nursery:
    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._pid = 0
        self._pidfd = -1

    def run(self) -> None:
        while True:
            watched = [self._line.fileno(), *([self._pidfd] if self._pid else [])]
            ready, _, _ = select.select(watched, [], [])
            if self._pidfd in ready:
                self._bury()
            if self._line.fileno() in ready:
                data = self._line.recv(MESSAGE_BYTES)
                if not data:
                    self._signal(signal.SIGKILL)
                    return
                self._obey(json.loads(data))

    def _obey(self, order: dict[str, Any]) -> None:
        match order.pop("do"):
            case "start":
                self._bear(Birth(**order))
            case "kill":
                self._signal(signal.SIGKILL)
            case "stop":
                self._signal(signal.SIGTERM)

    def _bear(self, birth: Birth) -> None:
        pid = os.fork()
        if pid == 0:
            _live(self._line, birth)
        self._pid, self._pidfd = pid, os.pidfd_open(pid)

    def _signal(self, number: signal.Signals) -> None:
        if self._pid:
            os.kill(self._pid, number)  # our own child, not reaped yet: the number is still its own

    def _bury(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        os.close(self._pidfd)
        self._pid, self._pidfd = 0, -1
        _say(self._line, say="ended", status=os.waitstatus_to_exitcode(status))
        _reap_orphans()


def _reap_orphans() -> None:
    """Bury the wrappers that agents left behind, as far as they have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def _say(line: socket.socket, **news: Any) -> None:
    line.send(json.dumps(news).encode())


def _live(line: socket.socket, birth: Birth) -> NoReturn:
    """Be an agent until the end; never return into the nursery's loop."""
    status = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        log = os.open(birth.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, force=True)
        fuse = Fuse(
            birth.point,
            birth.hits,
            birth.part,
            lambda point: _say(line, say="reached", point=point),
        )
        fuse_audit_files(fuse)
        asyncio.run(_serve(line, birth, fuse))
        status = 0
    except BaseException:  # noqa: BLE001 - the outermost frame of a process
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


async def _serve(line: socket.socket, birth: Birth, fuse: Fuse) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with FusedAgent(Path(birth.config), clock=fast_clock(birth.began), fuse=fuse) as agent:
        _say(line, say="serving", url=agent.address)
        await stop.wait()


def main(descriptor: int) -> None:
    """Bear agents until the socket ends."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    gc.collect()
    gc.freeze()
    line = socket.socket(fileno=descriptor)
    _say(line, say="ready")
    _Nursery(line).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
