"""Files of other programs: read whole, replaced in one step, and only where they are as read.

What is edited is recorded with its bytes before, in `integrations/NAME.json` of this person's state
directory, 0600: these settings may hold secrets.
"""

import base64
import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host_agent.errors import ConfigurationError

_MOST_BYTES = 16 * 1024 * 1024
_PRIVATE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEdit:
    """A file as it is now, and as it shall be; None is that there is none."""

    path: Path
    before: bytes | None
    after: bytes | None

    @property
    def is_needed(self) -> bool:
        """Return whether anything changes."""
        return self.before != self.after

    @property
    def deed(self) -> str:
        """Return what happens to the file, in a word."""
        if not self.is_needed:
            return "unchanged"
        if self.before is None:
            return "created"
        return "removed" if self.after is None else "edited"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """What was recorded of an edit: the bytes before, and the digest of those written."""

    path: Path
    before: bytes | None
    after_sha256: str
    directories: tuple[Path, ...] = ()


def content_of(path: Path) -> bytes | None:
    """Return the bytes of a file; None where there is none. A link is followed.

    Raises:
        ConfigurationError: it cannot be read, is no regular file, or is longer than 16 MiB.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ConfigurationError([f"{path}: is not a regular file."])
            content = stream.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError([f"{path}: {error.strerror}."]) from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError([f"{path}: longer than {_MOST_BYTES} bytes."])
    return content


def digest(content: bytes) -> str:
    """Return the SHA-256 of `content` in hex."""
    return hashlib.sha256(content).hexdigest()


def apply(edits: Sequence[FileEdit]) -> list[Path]:
    """Carry the edits out in order, and return the directories that were made.

    Raises:
        ConfigurationError: a file is not as it was read any more, or cannot be written; those
            before it are put back.
    """
    done: list[FileEdit] = []
    made: list[Path] = []
    try:
        for edit in edits:
            if edit.is_needed:
                made += _write(edit)
                done.append(edit)
    except (ConfigurationError, OSError) as error:
        for edit in reversed(done):
            with contextlib.suppress(ConfigurationError, OSError):
                _write(FileEdit(path=edit.path, before=edit.after, after=edit.before))
        prune(made)
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError([f"{error.filename}: {error.strerror}."]) from None
    return made


def prune(directories: Sequence[Path]) -> None:
    """Remove those of the directories that are empty, the deepest first."""
    for directory in sorted(directories, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):
            directory.rmdir()


def _write(edit: FileEdit) -> list[Path]:
    """Put the file there; a link stays one, and permissions and owner stay."""
    place = Path(os.path.realpath(edit.path))
    made = [path for path in (place.parent, *place.parent.parents) if not path.exists()]
    if edit.after is None:
        _held(edit)
        place.unlink()
        return []
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(edit.after)
            stream.flush()
            _like(stream.fileno(), place)
            os.fsync(stream.fileno())
        _held(edit)
        if edit.before is None:
            os.link(fresh, place)
            fresh.unlink()
        else:
            fresh.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        prune(made)
        raise
    return made


def _like(descriptor: int, place: Path) -> None:
    """Give a new file the permissions and the owner of the one that it takes the place of."""
    try:
        there = place.stat()
    except FileNotFoundError:
        return
    if (os.geteuid(), os.getegid()) != (there.st_uid, there.st_gid):
        os.fchown(descriptor, there.st_uid, there.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(there.st_mode))


def _held(edit: FileEdit) -> None:
    """Raise where the file is not as it was read."""
    if content_of(edit.path) != edit.before:
        fault = f"{edit.path}: was changed meanwhile. Nothing was written; run this again."
        raise ConfigurationError([fault])


def read_record(path: Path) -> dict[Path, RecordedFile]:
    """Return what was recorded, by path; nothing where there is no record.

    Raises:
        ConfigurationError: it cannot be read.
    """
    content = content_of(path)
    if content is None:
        return {}
    try:
        return {one.path: one for one in map(_recorded, json.loads(content)["files"])}
    except (ValueError, TypeError, KeyError):
        raise ConfigurationError([f"{path}: is not a record of `integrate`."]) from None


def write_record(path: Path, files: Sequence[RecordedFile]) -> None:
    """Write the record, for this person alone; without files it is removed."""
    if not files:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = json.dumps({"files": [_as_json(one) for one in files]}, indent=2)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PRIVATE)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def _recorded(said: Mapping[str, Any]) -> RecordedFile:
    before = said["before"]
    return RecordedFile(
        path=Path(said["path"]),
        before=None if before is None else base64.b64decode(before),
        after_sha256=str(said["after_sha256"]),
        directories=tuple(map(Path, said["directories"])),
    )


def _as_json(one: RecordedFile) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "before": None if one.before is None else base64.b64encode(one.before).decode(),
        "after_sha256": one.after_sha256,
        "directories": [str(path) for path in one.directories],
    }
