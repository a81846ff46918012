"""The one place where an installation changes files: below a root, each change with its way back.

A file is written under a temporary name and renamed, so that nobody ever sees half of one. Paths
are those of the host; the root is put before them. Parents that lead out of the root are refused.
"""

import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from host_agent.host.install.journal import Journal
from host_agent.host.install.values import Found, InstallationError, digest_of

MAX_FILE_BYTES = 16 * 1024 * 1024
_PARENT_MODE = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributes:
    """Mode and owner, by number."""

    mode: int
    uid: int
    gid: int


class Tree:
    """Files below `root`. What is changed through it is noted in the journal."""

    def __init__(self, root: Path, journal: Journal) -> None:
        self.root = root
        self._real_root = Path(os.path.realpath(root))
        self._journal = journal

    def at(self, path: str) -> Path:
        """Return where the host's `path` is.

        Raises:
            InstallationError: a link above it leads out of the root.
        """
        place = self._real_root / path.lstrip("/")
        real = Path(os.path.realpath(place if place == self._real_root else place.parent))
        if not real.is_relative_to(self._real_root):
            message = f"{place.parent} leads out of {self.root}"
            raise InstallationError(message)
        return place

    def note(self, what: str, undo: Callable[[], None]) -> None:
        """Remember how to undo something that is done otherwise than through this tree."""
        self._journal.note(what, undo)

    # -- looking ----------------------------------------------------------------------------------

    def find(self, path: str) -> Found | None:
        """Return what is at `path`, links not followed; None for nothing."""
        place = self.at(path)
        try:
            status = place.lstat()
            link_to = os.fspath(place.readlink()) if stat.S_ISLNK(status.st_mode) else None
        except (FileNotFoundError, NotADirectoryError):
            return None
        is_plain = stat.S_ISREG(status.st_mode)
        return Found(
            digest=digest_of(self.read(path)) if is_plain else None,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            is_directory=stat.S_ISDIR(status.st_mode),
            link_to=link_to,
        )

    def read(self, path: str) -> bytes:
        """Return the content of a plain file.

        Raises:
            InstallationError: it is none, or larger than any that is installed.
            OSError: it cannot be read.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        with open(os.open(self.at(path), flags), "rb") as stream:  # noqa: PTH123 - a descriptor
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                message = f"{path} is not a plain file"
                raise InstallationError(message)
            content = stream.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            message = f"{path} is larger than {MAX_FILE_BYTES} bytes"
            raise InstallationError(message)
        return content

    # -- changing ---------------------------------------------------------------------------------

    def make_directory(self, path: str, attributes: Attributes) -> list[str]:
        """Make a directory, and those above it that are missing; return all that were made."""
        made: list[str] = []
        parent = str(Path(path).parent)
        if self.find(parent) is None:
            above = Attributes(mode=_PARENT_MODE, uid=os.geteuid(), gid=os.getegid())
            made += self.make_directory(parent, above)
        place = self.at(path)
        self._journal.note(path, _quietly(place.rmdir))
        place.mkdir(mode=0o700)
        self._give(place, attributes)
        return [*made, path]

    def adjust(self, path: str, attributes: Attributes) -> None:
        """Give what is at `path` another owner and mode."""
        place = self.at(path)
        before = _attributes(place.lstat())
        self._journal.note(path, lambda: self._give(place, before))
        self._give(place, attributes)

    def write(
        self,
        path: str,
        content: bytes,
        attributes: Attributes,
        check: Callable[[str], None] | None = None,
    ) -> None:
        """Put a file at `path`, a new one or in the place of another plain one, in one step.

        Raises:
            InstallationError: `check` refused it; nothing has changed then.
            OSError: it cannot be written; nothing has changed then.
        """
        place = self.at(path)
        self._journal.note(path, self._restorer(place))
        self._put(place, content, attributes, check=check)

    def remove(self, path: str) -> None:
        """Remove a plain file."""
        place = self.at(path)
        self._journal.note(path, self._restorer(place))
        place.unlink()
        _sync(place.parent)

    def remove_directory(self, path: str) -> None:
        """Remove an empty directory."""
        place = self.at(path)
        before = _attributes(place.lstat())

        def restore() -> None:
            if not place.is_dir():
                place.mkdir(mode=0o700)
            self._give(place, before)

        self._journal.note(path, restore)
        place.rmdir()

    def guard(self, path: str) -> None:
        """Remember a small directory of plain files whole, before something else works in it."""
        place = self.at(path)
        restorers = {entry: self._restorer(entry) for entry in place.iterdir() if entry.is_file()}

        def restore() -> None:
            for entry in place.iterdir():
                if entry not in restorers and not entry.is_dir():
                    entry.unlink()
            for act in restorers.values():
                act()

        self._journal.note(path, restore)

    # -- how --------------------------------------------------------------------------------------

    def _restorer(self, place: Path) -> Callable[[], None]:
        """Return what puts back the file that is at `place` now, or its absence."""
        try:
            status = place.lstat()
        except FileNotFoundError:
            return _quietly(place.unlink)
        if not stat.S_ISREG(status.st_mode):
            message = f"{place} is not a plain file"
            raise InstallationError(message)
        content, attributes = place.read_bytes(), _attributes(status)
        times = (status.st_atime_ns, status.st_mtime_ns)

        def restore() -> None:
            self._put(place, content, attributes)
            os.utime(place, ns=times)

        return restore

    def _put(
        self,
        place: Path,
        content: bytes,
        attributes: Attributes,
        check: Callable[[str], None] | None = None,
    ) -> None:
        # A name with a dot in front and one within: sudo and systemd read no such file.
        fresh = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(fresh, flags, 0o600), "wb") as stream:  # noqa: PTH123 - a descriptor
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            self._give(fresh, attributes)
            if check is not None:
                check(str(fresh))
            fresh.replace(place)
        except BaseException:
            with suppress(OSError):
                fresh.unlink()
            raise
        _sync(place.parent)

    def _give(self, place: Path, attributes: Attributes) -> None:
        """Set owner, then mode: a change of owner takes special bits away."""
        os.chown(place, attributes.uid, attributes.gid, follow_symlinks=False)
        place.chmod(attributes.mode)


def _attributes(status: os.stat_result) -> Attributes:
    return Attributes(mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid)


def _quietly(act: Callable[[], None]) -> Callable[[], None]:
    """Return `act` for an undo: a file that is gone already is no error."""

    def quiet() -> None:
        with suppress(FileNotFoundError):
            act()

    return quiet


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
