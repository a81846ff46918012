"""The store's files: made with the right modes, and watched for being taken away.

SQLite goes on writing to a file that somebody has removed or replaced, and starts happily from an
older copy. Both would bring decided requests back to life. So every write looks whether the files
are still the ones that were opened, and a count of the commits is kept beside the database: one
that has seen fewer commits than its count is a copy from before, or has lost its journal.
"""

import os
import stat
from pathlib import Path

_MODE_DIRECTORY, _MODE_FILE = 0o700, 0o600
_DIGITS = 20


class FilesChangedError(OSError):
    """The files are not those that were opened, or not those of the last run."""


class StoreFiles:
    """The database file, its journal (`-wal`) and its count of commits (`-commits`)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = path.with_name(f"{path.name}-wal")
        self.count = path.with_name(f"{path.name}-commits")
        self._opened: tuple[tuple[int, int], ...] = ()
        self._count_descriptor: int | None = None

    def prepare(self) -> None:
        """Make the directory (0700) and the file (0600) where they are missing.

        Modes of what exists are left alone: the permission check at start names bad ones.

        Raises:
            OSError: the path cannot be made, or is not a regular file.
        """
        self.path.parent.mkdir(mode=_MODE_DIRECTORY, parents=True, exist_ok=True)
        os.close(_open_regular(self.path))

    def watch(self, commits: int) -> None:
        """Remember the open files; the journal exists by now.

        Raises:
            FilesChangedError: the database has seen fewer commits than its count says.
        """
        self._count_descriptor = _open_regular(self.count)
        counted = self._read_count()
        if commits < counted:
            message = (
                f"{self.path} has seen {commits} commits and {self.count.name} says {counted}: it "
                f"is an older copy, or {self.journal.name} was removed. Restore the files, or "
                f"remove {self.count} to go on without what is lost"
            )
            raise FilesChangedError(message)
        self._opened = self._identities()

    def check(self) -> None:
        """Raise `FilesChangedError` if the path leads elsewhere than to the files that are open."""
        try:
            present = self._identities()
        except OSError as error:
            message = f"a file of the store is gone: {error.strerror}"
            raise FilesChangedError(message) from error
        if present != self._opened:
            message = "a file of the store was replaced"
            raise FilesChangedError(message)

    def committed(self, commits: int) -> None:
        """Note the number of commits, after the commit is on disk. Not synced: it may lag."""
        if self._count_descriptor is not None:
            os.pwrite(self._count_descriptor, f"{commits:0{_DIGITS}d}\n".encode(), 0)

    def close(self) -> None:
        """Let go of the count; the database closes its own files."""
        if self._count_descriptor is not None:
            os.close(self._count_descriptor)
            self._count_descriptor = None

    def _identities(self) -> tuple[tuple[int, int], ...]:
        found = (self.path.lstat(), self.journal.lstat())
        return tuple((entry.st_dev, entry.st_ino) for entry in found)

    def _read_count(self) -> int:
        if self._count_descriptor is None:
            return 0
        text = os.pread(self._count_descriptor, _DIGITS, 0)
        return int(text) if len(text) == _DIGITS and text.isdigit() else 0


def _open_regular(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, _MODE_FILE)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    message = f"{path} is not a regular file"
    raise FilesChangedError(message)
