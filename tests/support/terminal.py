"""A command run on a pseudo-terminal, as a person would: read what it draws, type answers."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.patience import PATIENCE


def _own_terminal() -> None:
    """Take the terminal, and hear its interrupts: a test run in the background ignores them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """`program` with `arguments` on a terminal of its own; `text` is all that it wrote."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        program: Sequence[str] = (sys.executable, "-m", "host_agent"),
        environ: Mapping[str, str],
        columns: int = 100,
        lines: int = 50,
        deadline_seconds: float = PATIENCE,
    ) -> None:
        self._deadline = time.monotonic() + deadline_seconds
        self.raw = b""
        self._leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._process = subprocess.Popen(
            [*program, *arguments],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={"TERM": "xterm", "LANG": "C.UTF-8", "PATH": os.defpath, **environ},
            start_new_session=True,
            # The terminal becomes the session's own, so that Ctrl-C reaches the command.
            preexec_fn=_own_terminal,
        )
        os.close(follower)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._leader)

    @property
    def text(self) -> str:
        return self.raw.decode("utf-8", "replace").replace("\r\n", "\n")

    def read_until(self, words: str) -> None:
        while words not in self.text:
            if not self._read():
                message = f"the command ended without {words!r}: {self.text!r}"
                raise AssertionError(message)

    def wait_for_a_read(self) -> None:
        """Wait until the command sleeps in the kernel, as it does once it reads what is typed.

        Python looks at a signal that comes between a question and its read only after the read.
        """
        state = Path(f"/proc/{self._process.pid}/stat")
        while state.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < self._deadline, "the command never sleeps"
            time.sleep(0.01)

    def type(self, text: str) -> None:
        os.write(self._leader, text.encode())

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def modes(self) -> list[object]:
        """The terminal's modes as they are now."""
        return termios.tcgetattr(self._leader)

    def end(self) -> int:
        """Read to the end and return the exit status."""
        while self._read():
            pass
        return self._process.wait(timeout=max(1.0, self._deadline - time.monotonic()))

    def _read(self) -> bool:
        left = self._deadline - time.monotonic()
        ready, _, _ = select.select([self._leader], [], [], max(0.0, left))
        if not ready:
            message = f"nothing more came in time: {self.text!r}"
            raise AssertionError(message)
        try:
            chunk = os.read(self._leader, 65536)
        except OSError:  # EIO: the other side is closed
            return False
        self.raw += chunk
        return bool(chunk)
