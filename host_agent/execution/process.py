"""One started process until it is reaped: pipes, end, deadline. No process is started here.

Invariants: the answer is there at the deadline, or two seconds later where the process resists;
whoever holds a pipe cannot delay it. A process is signalled through its pidfd, or its group by a
number that cannot have been given to another, because nobody but this module reaps. Every process
is reaped, also one that was answered for, or cancelled, while it still ran.
"""

import asyncio
import codecs
import hashlib
import os
import select
import signal
from collections.abc import Callable
from functools import partial

from host_agent.operations.catalogue import Output

TERMINATION_SECONDS = 2.0
"""How long a process may take to end itself after SIGTERM."""
PIPE_SECONDS = 0.5
"""How long a pipe that a grandchild holds is read after the process itself has ended."""
LOST_STATUS = 255
"""The exit code told where something else of this program reaped the process."""

_READ_BYTES = 65536
_READS_AT_END = 16
_ADOPT_SECONDS = 0.05
_decoder = codecs.getincrementaldecoder("utf-8")
_EMPTY_SHA256 = hashlib.sha256().hexdigest()


class Capture:
    """What came through one pipe, in memory that stays within `limit_bytes`.

    Every byte is counted and hashed; those past the limit are then let go. `size` is the number
    of bytes that came.
    """

    __slots__ = ("_hash", "_kept", "_limit", "size")

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._kept = bytearray()
        self._hash: hashlib._Hash | None = None
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        room = self._limit - self.size
        self.size += len(data)
        if room > 0:
            self._kept += data[:room]
        if self._hash is None:
            self._hash = hashlib.sha256()
        self._hash.update(data)

    @property
    def is_truncated(self) -> bool:
        """Return whether bytes beyond the limit were let go."""
        return self.size > self._limit

    @property
    def start(self) -> bytes:
        """Return the bytes that were kept."""
        return bytes(self._kept)

    def text(self) -> str:
        """Return what was kept as text, each invalid UTF-8 sequence as one U+FFFD.

        A character that the limit cut in two is left out, so that valid UTF-8 never shows a
        replacement that the process did not write.
        """
        if not self._kept:
            return ""
        return _decoder("replace").decode(bytes(self._kept), final=not self.is_truncated)

    def sha256(self) -> str:
        """Return the hexadecimal SHA-256 of the whole stream, of the bytes let go too."""
        return _EMPTY_SHA256 if self._hash is None else self._hash.hexdigest()


class ProcessWatch:
    """One epoll set for all processes of a runner on one event loop.

    A descriptor costs one system call and a dictionary entry here; `add_reader` of the loop, called
    three times a process, costs more than the rest of the run taken together.
    """

    __slots__ = ("_callbacks", "_epoll", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}

    def add(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call `callback` whenever `descriptor` is readable; nothing if it is watched already."""
        if descriptor in self._callbacks:
            return
        if not self._callbacks:
            self.loop.add_reader(self._epoll.fileno(), self._ready)
        self._epoll.register(descriptor, select.EPOLLIN)
        self._callbacks[descriptor] = callback

    def discard(self, descriptor: int) -> None:
        """Stop watching `descriptor`, before it is closed; nothing if it is not watched."""
        if self._callbacks.pop(descriptor, None) is None:
            return
        self._epoll.unregister(descriptor)
        if not self._callbacks:
            self.loop.remove_reader(self._epoll.fileno())

    def _ready(self) -> None:
        for descriptor, _events in self._epoll.poll(0, 64):
            callback = self._callbacks.get(descriptor)
            if callback is not None:  # None: an earlier callback of this round closed it
                callback()


class Child:
    """A process that runs, or has ended and is not reaped.

    `ends_group`: the process leads a group of its own that the agent may signal as a whole: SIGTERM
    at the deadline, SIGKILL later. Without it (sudo) only SIGTERM goes to the process, which relays
    it: killing sudo would leave its root child alive.
    """

    __slots__ = (
        "_deadline",
        "_ends_group",
        "_is_answered",
        "_is_gone",
        "_open",
        "_pid",
        "_pidfd",
        "_started",
        "_stderr",
        "_stdout",
        "_timed_out",
        "_timer",
        "_watch",
        "ended",
    )

    def __init__(
        self,
        watch: ProcessWatch,
        pid: int,
        pipes: tuple[int, int],
        *,
        max_output_bytes: int,
        started: float,
        deadline: float,
        ends_group: bool,
    ) -> None:
        self._watch = watch
        self._pid = pid
        self._stdout, self._stderr = Capture(max_output_bytes), Capture(max_output_bytes)
        self._open = {pipes[0]: self._stdout, pipes[1]: self._stderr}
        self._started, self._deadline = started, deadline
        self._ends_group = ends_group
        self._pidfd = -1
        self._is_gone = self._is_answered = self._timed_out = False
        self.ended: asyncio.Future[Output] = watch.loop.create_future()
        self._timer = watch.loop.call_at(deadline, self._out_of_time)
        self._adopt()

    async def stop(self) -> None:
        """End the process as at its deadline, and wait until it has ended or is given up."""
        if self._is_answered:
            return
        self.ended = self._watch.loop.create_future()
        if not self._timed_out:
            self._timer.cancel()
            self._out_of_time()
        await self.ended

    def _adopt(self) -> None:
        try:
            for pipe in self._open:
                self._watch.add(pipe, partial(self._readable, pipe))
            if self._pidfd < 0:
                self._pidfd = os.pidfd_open(self._pid)
            self._watch.add(self._pidfd, self._gone)
        except ProcessLookupError:
            self._gone()  # reaped by something else already: SIGCHLD is ignored
        except OSError:
            # Out of descriptors or memory with the process already running: it must not be lost.
            self._watch.loop.call_later(_ADOPT_SECONDS, self._adopt)

    # -- what the host reports --------------------------------------------------------------------

    def _readable(self, pipe: int) -> None:
        if self._read(pipe) and self._is_gone and not self._open:
            self._finish()

    def _read(self, pipe: int) -> bool:
        """Take one piece from `pipe`; return True where there is no more for now, or for good."""
        try:
            data = os.read(pipe, _READ_BYTES)
        except BlockingIOError:
            return True
        if data:
            self._open[pipe].feed(data)
            return False
        self._close(pipe)
        return True

    def _close(self, pipe: int) -> None:
        del self._open[pipe]
        self._watch.discard(pipe)
        os.close(pipe)

    def _gone(self) -> None:
        self._is_gone = True
        self._watch.discard(self._pidfd)
        if self._is_answered:
            self._reap()
            return
        for pipe in tuple(self._open):
            for _ in range(_READS_AT_END):
                if self._read(pipe):
                    break
        if self._timed_out or not self._open:
            self._finish()
        else:
            self._timer.cancel()
            now = self._watch.loop.time()
            self._timer = self._watch.loop.call_at(
                min(now + PIPE_SECONDS, max(now, self._deadline)), self._finish
            )

    # -- what the clock reports -------------------------------------------------------------------

    def _out_of_time(self) -> None:
        self._timed_out = True
        if self._is_gone:
            self._finish()
            return
        self._signal(signal.SIGTERM)
        self._timer = self._watch.loop.call_later(TERMINATION_SECONDS, self._give_up)

    def _give_up(self) -> None:
        """Answer for a process that runs on; `_gone` reaps it whenever it ends."""
        if self._ends_group:
            self._signal(signal.SIGKILL)
        self._answer(-signal.SIGKILL if self._ends_group else -signal.SIGTERM)

    # -- the end ----------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._answer(self._reap())

    def _signal(self, number: signal.Signals) -> None:
        try:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, 0)  # raises where its number may be another's
            if self._ends_group:
                os.killpg(self._pid, number)
            elif self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(self._pid, number)
        except (ProcessLookupError, PermissionError):
            return  # it is gone, or runs as root with no sudo in between to relay

    def _reap(self) -> int:
        if self._pidfd < 0:
            return LOST_STATUS
        if self._ends_group:
            self._signal(signal.SIGKILL)  # what the wrapper left in its group ends with it
        code = _exit_code(self._pidfd)
        os.close(self._pidfd)
        return code

    def _answer(self, code: int) -> None:
        self._is_answered = True
        self._timer.cancel()
        for pipe in tuple(self._open):
            self._close(pipe)
        if self.ended.done():  # cancelled
            return
        stdout, stderr = self._stdout, self._stderr
        self.ended.set_result(
            Output(
                exit_code=code,
                stdout=stdout.text(),
                stderr=stderr.text(),
                stdout_bytes=stdout.size,
                stderr_bytes=stderr.size,
                stdout_sha256=stdout.sha256(),
                truncated=stdout.is_truncated or stderr.is_truncated,
                timed_out=self._timed_out,
                duration_ms=round((self._watch.loop.time() - self._started) * 1000),
            )
        )


def _exit_code(pidfd: int) -> int:
    try:
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        status = None
    if status is None:
        return LOST_STATUS
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status
