"""Who makes and names the audit files: the agent itself, or root where the directory is root's.

In a directory of its own the agent renames and creates. In one of root's it can only append to the
live file; root's wrapper `audit-rotate` finishes it, begins the next, and removes what is past its
time. Blocking; for the one thread that writes.
"""

import errno
import fcntl
import logging
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeVar

from host_agent.audit.record import Record
from host_agent.audit.rotation import finished, finished_name, predecessor, remove_old
from host_agent.audit.sealing import is_wanting

T = TypeVar("T")

logger = logging.getLogger(__name__)

FLAGS = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
NOTHING_FINISHED = "-"
"""What the wrapper prints where the live file was empty or missing."""
_CONTEXT_BYTES, _LOOKED_AT = 4_096, 16
"""How much before a write must be the same, and in how many finished files it is looked for."""
_LOCK_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_MODE = 0o600
_CLOSED_TRIES, _CLOSED_SECONDS = 200, 0.05
"""How often and how far apart a closed directory is tried: as long as the wrapper waits for another
run of itself. It keeps the directory open for 0.3 s after each."""


class Place(Protocol):
    """The directory of one chain."""

    def open_lock(self) -> int:
        """Return a descriptor of the file whose lock means: only one agent writes here."""
        ...

    def open(self) -> int:
        """Return a descriptor of what is at the path, to append to; raises FileNotFoundError."""
        ...

    def look(self) -> os.stat_result:
        """Return what is at the path of the live file; raises FileNotFoundError for nothing."""
        ...

    def kept(self, descriptor: int, begin: int, data: bytes) -> int | None:
        """Say what became of `data`, which was appended to the open file at `begin` and synced.

        None: the file is the live one still. A number: it is not, and so many of the bytes are
        where the log goes on from.
        """
        ...

    def is_unsealed(self, descriptor: int) -> bool:
        """Return whether the open file could be changed, and a new one in its place could not."""
        ...

    def predecessor(self) -> Record | None:
        """Return the newest record beside the live file; raises OSError for what is unreadable."""
        ...

    def put_aside(self, at: str) -> str:
        """Take the live file off its path and return its name from then on.

        `at` is the time at which it is finished (RFC 3339, UTC). Raises FileNotFoundError where
        somebody else has done it.
        """
        ...

    def create(self) -> tuple[int, bool]:
        """Return a descriptor of a new, empty live file, and whether the agent made it itself."""
        ...

    def remove_old(self, *, retain: timedelta, at: str) -> list[Path]:
        """Remove finished files over `retain` old at `at`, and return which."""
        ...


class OwnPlace:
    """A directory that the agent may write."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def open_lock(self) -> int:
        """Return a descriptor of the lock's file; it and the directory are made where missing."""
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.open(_lock_path(self._path), _LOCK_FLAGS | os.O_CREAT, _MODE)

    def open(self) -> int:
        """Return a descriptor of what is at the path, to append to."""
        return os.open(self._path, FLAGS)

    def look(self) -> os.stat_result:
        """Return what is at the path of the live file."""
        return self._path.lstat()

    def kept(self, descriptor: int, begin: int, data: bytes) -> int | None:  # noqa: ARG002
        """Return 0 where the file has no name any more: whoever renames it keeps all of it."""
        return 0 if os.fstat(descriptor).st_nlink == 0 else None

    def is_unsealed(self, descriptor: int) -> bool:  # noqa: ARG002
        """Return no: its own files the agent can always change."""
        return False

    def predecessor(self) -> Record | None:
        """Return the newest record beside the live file."""
        return predecessor(self._path)

    def put_aside(self, at: str) -> str:
        """Rename the live file."""
        return self._path.rename(finished_name(self._path, at)).name

    def create(self) -> tuple[int, bool]:
        """Create the live file; what lies at its path is moved out of the way."""
        self._displace()
        descriptor = os.open(self._path, FLAGS | os.O_CREAT | os.O_EXCL, _MODE)
        try:
            os.fchmod(descriptor, _MODE)  # whatever the umask says
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._sync_directory()
        except OSError:
            with suppress(OSError):
                os.close(descriptor)
            with suppress(OSError):
                self._path.unlink()
            raise
        return descriptor, True

    def remove_old(self, *, retain: timedelta, at: str) -> list[Path]:
        """Remove finished files over `retain` old at `at`, and return which."""
        return remove_old(self._path, retain=retain, time=at)

    def _displace(self) -> None:
        """Move what lies at the path out of the way: it is not ours, and it is not lost."""
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            return
        if stat.S_ISREG(there.st_mode) and there.st_size == 0:
            self._path.unlink()  # logrotate's `create`, say
            return
        number = 0
        while os.path.lexists(self._path.with_name(f"{self._path.name}.displaced-{number}")):
            number += 1
        aside = self._path.with_name(f"{self._path.name}.displaced-{number}")
        self._path.rename(aside)
        logger.error("audit: %s was not the agent's file, moved to %s", self._path, aside.name)

    def _sync_directory(self) -> None:
        descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class RootPlace:
    """A directory of root's. `rotate` runs root's wrapper and returns what it printed.

    `rotate` raises OSError where the wrapper could not do it; the live file is then as it was.
    """

    def __init__(self, path: Path, rotate: Callable[[], str]) -> None:
        self._path = path
        self._rotate = rotate
        self._finished = re.compile(
            re.escape(path.stem) + r"-[0-9]{8}T[0-9]{12}Z" + re.escape(path.suffix)
        )

    def open_lock(self) -> int:
        """Return a descriptor of the lock's file; the wrapper makes it where it is missing."""
        try:
            return os.open(_lock_path(self._path), _LOCK_FLAGS)
        except (FileNotFoundError, PermissionError):  # not begun yet, or half done when it ended
            self._run()
            return os.open(_lock_path(self._path), _LOCK_FLAGS)

    def open(self) -> int:
        """Return a descriptor of what is at the path, to append to."""
        return self._inside(lambda: os.open(self._path, FLAGS))

    def look(self) -> os.stat_result:
        """Return what is at the path of the live file."""
        return self._inside(self._path.lstat)

    def kept(self, descriptor: int, begin: int, data: bytes) -> int | None:
        """Say whether the file is the live one after all, once the directory is open.

        Root's copy has what was there before root closed the directory. Of what came later none
        may count that is not in the copy.
        """
        held = os.fstat(descriptor)
        with suppress(FileNotFoundError):
            there = self.look()
            if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino):
                return None
        return self._inside(lambda: self._count(descriptor, begin, data))

    def is_unsealed(self, descriptor: int) -> bool:
        """Return whether it lacks the append-only attribute that root's next file would have."""
        return is_wanting(descriptor)

    def predecessor(self) -> Record | None:
        """Return the newest record beside the live file; all of it while the directory is open."""
        return self._inside(lambda: predecessor(self._path))

    def put_aside(self, at: str) -> str:  # noqa: ARG002 - root asks its own clock
        """Have the live file finished."""
        name = self._run()
        if name == NOTHING_FINISHED:
            raise FileNotFoundError(errno.ENOENT, "somebody else has had it finished")
        return name

    def create(self) -> tuple[int, bool]:
        """Open the live file that the wrapper began; what is not empty is finished before."""
        descriptor = self._open_empty()
        if descriptor is None:
            self._run()
            descriptor = self._open_empty()
        if descriptor is None:
            raise OSError(errno.EEXIST, "the wrapper began no empty file")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor, False

    def remove_old(self, *, retain: timedelta, at: str) -> list[Path]:  # noqa: ARG002
        """Return nothing: the wrapper removes them, by root's own rule."""
        return []

    def _inside(self, act: Callable[[], T]) -> T:
        """Do what needs the directory open; it is closed while files change places."""
        for _ in range(_CLOSED_TRIES):
            try:
                return act()
            except PermissionError:
                time.sleep(_CLOSED_SECONDS)
        self._run()  # who closed it never came to open it
        return act()

    def _count(self, descriptor: int, begin: int, data: bytes) -> int:
        """Return how much of `data` is at the end of the file that root made of ours."""
        context = os.pread(descriptor, min(begin, _CONTEXT_BYTES), max(0, begin - _CONTEXT_BYTES))
        newest_first = reversed([path for _, path in finished(self._path)])
        for path in islice(newest_first, _LOOKED_AT):
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size - begin
                if 0 < size <= len(data):
                    file.seek(begin - len(context))
                    if file.read() == context + data[:size]:
                        return size
        return 0

    def _open_empty(self) -> int | None:
        try:
            descriptor = self.open()
        except FileNotFoundError:
            return None
        if os.fstat(descriptor).st_size == 0:
            return descriptor
        os.close(descriptor)
        return None

    def _run(self) -> str:
        name = self._rotate()
        if name != NOTHING_FINISHED and self._finished.fullmatch(name) is None:
            raise OSError(errno.EBADMSG, "the wrapper printed no name of a finished file")
        return name


def _lock_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")
