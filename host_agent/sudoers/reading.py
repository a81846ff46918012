"""Where sudoers come from: the disk, or what the root wrapper `sudoers-read` printed.

A source gives files and directories by path and knows their owners and modes. What it cannot give
is an error, never an empty file.
"""

import base64
import binascii
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

MAX_FILE_BYTES = 1 << 20


class MissingSourceError(Exception):
    """There is no such file or directory."""


class UnreadableSourceError(Exception):
    """It is there, or may be, and its content cannot be told. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SudoersFile:
    """One file as it was read; `fault` is why sudo itself refuses to read it, or None."""

    path: str
    text: str
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SudoersDirectory:
    """The names in a directory; `fault` is why sudo itself passes it over, or None."""

    path: str
    names: tuple[str, ...]
    fault: str | None = None


class SudoersSource(Protocol):
    """Gives files and directories by path."""

    def file(self, path: str) -> SudoersFile:
        """Return a file.

        Raises:
            MissingSourceError: there is none.
            UnreadableSourceError: it cannot be read.
        """
        ...

    def directory(self, path: str) -> SudoersDirectory:
        """Return the regular files of a directory; raises as `file` does."""
        ...


class DiskSource:
    """Reads the disk as the user that asks.

    With `is_trial` owners and modes do not count: a file is looked at as if it were installed.
    """

    def __init__(self, *, is_trial: bool = False) -> None:
        self._is_trial = is_trial

    def file(self, path: str) -> SudoersFile:
        """Return the file at `path`; see `Source.file`."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            raise _told(error) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                message = "it is not a regular file"
                raise UnreadableSourceError(message)
            data = b""
            while len(data) <= MAX_FILE_BYTES and (piece := os.read(descriptor, MAX_FILE_BYTES)):
                data += piece
        except OSError as error:
            raise _told(error) from error
        finally:
            os.close(descriptor)
        fault = None if self._is_trial else insecurity(status.st_mode, status.st_uid, status.st_gid)
        return SudoersFile(path=path, text=as_text(data), fault=fault)

    def directory(self, path: str) -> SudoersDirectory:
        """Return the regular files in `path`; see `Source.directory`."""
        try:
            status = os.stat(path)  # noqa: PTH116 - paths stay the strings that sudo knows
            names = tuple(
                sorted(
                    (name for name in os.listdir(path) if os.path.isfile(f"{path}/{name}")),  # noqa: PTH113, PTH208
                    key=os.fsencode,
                )
            )
        except NotADirectoryError as error:
            raise MissingSourceError from error
        except OSError as error:
            raise _told(error) from error
        fault = None if self._is_trial else insecurity(status.st_mode, status.st_uid, status.st_gid)
        return SudoersDirectory(path=path, names=names, fault=fault)


def _told(error: OSError) -> MissingSourceError | UnreadableSourceError:
    if isinstance(error, FileNotFoundError):
        return MissingSourceError()
    return UnreadableSourceError(error.strerror or type(error).__name__)


def as_text(data: bytes) -> str:
    """Return the text of a file, bytes that are no UTF-8 kept as surrogates.

    Raises:
        UnreadableSourceError: it is too large, or holds a NUL.
    """
    if len(data) > MAX_FILE_BYTES:
        message = f"it is larger than {MAX_FILE_BYTES} bytes"
        raise UnreadableSourceError(message)
    if b"\0" in data:
        message = "it holds a NUL byte"
        raise UnreadableSourceError(message)
    return data.decode("utf-8", "surrogateescape")


def insecurity(mode: int, uid: int, gid: int) -> str | None:
    """Return why sudo refuses a file or directory of this mode and owner, or None."""
    if uid != 0:
        return f"belongs to uid {uid}, not to root"
    if mode & stat.S_IWOTH:
        return "is writable by everybody"
    if mode & stat.S_IWGRP and gid != 0:
        return f"is writable by the group {gid}"
    return None


# -- what the wrapper printed ---------------------------------------------------------------------

FRAME_HEAD = "host-agent sudoers 1"
_BASE64 = r"[A-Za-z0-9+/]*={0,2}"
_FRAME_LINE = re.compile(
    rf"(?:(?P<kind>file|directory) (?P<path>{_BASE64}) (?P<mode>[0-7]{{1,6}})"
    rf" (?P<uid>[0-9]{{1,10}}) (?P<gid>[0-9]{{1,10}})(?: (?P<content>{_BASE64}))?"
    rf"|(?P<absent>missing|unreadable) (?P<where>{_BASE64}))",
    re.ASCII,
)
_FRAME_END = re.compile(r"end ([0-9]{1,6})", re.ASCII)


class FrameError(ValueError):
    """What the wrapper printed is cut or is no frame of its own."""


class FrameSource:
    """Gives what `sudoers-read` printed: a bounded text of one line per file, content in base64."""

    def __init__(self, text: str) -> None:
        """Parse `text`.

        Raises:
            FrameError: it is not whole.
        """
        lines = text.split("\n")
        end = _FRAME_END.fullmatch(lines[-2]) if len(lines) > 2 else None
        if lines[0] != FRAME_HEAD or lines[-1] or end is None or int(end[1]) != len(lines) - 3:
            message = "the list of files is not whole"
            raise FrameError(message)
        self._files: dict[str, Callable[[], SudoersFile]] = {}
        self._directories: dict[str, str | None] = {}
        self._absent: dict[str, str] = {}
        for line in lines[1:-2]:
            self._take(line)

    def _take(self, line: str) -> None:
        found = _FRAME_LINE.fullmatch(line)
        if found is None:
            message = "a line of it is not understood"
            raise FrameError(message)
        fields = found.groupdict()
        if fields["absent"]:
            self._absent[_decoded_path(fields["where"])] = fields["absent"]
            return
        path = _decoded_path(fields["path"])
        fault = insecurity(int(fields["mode"], 8), int(fields["uid"]), int(fields["gid"]))
        if fields["kind"] == "directory":
            self._directories[path] = fault
            return
        data = _decoded(fields["content"] or "")
        self._files[path] = lambda: SudoersFile(path=path, text=as_text(data), fault=fault)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(self._files)

    def file(self, path: str) -> SudoersFile:
        """Return a file of the frame; see `Source.file`."""
        make = self._files.get(path)
        if make is None:
            raise self._without(path)
        return make()

    def directory(self, path: str) -> SudoersDirectory:
        """Return a directory of the frame; see `Source.directory`."""
        if path not in self._directories:
            raise self._without(path)
        below = f"{path}/"
        inside = (name.removeprefix(below) for name in self._files if name.startswith(below))
        names = tuple(sorted((name for name in inside if "/" not in name), key=os.fsencode))
        return SudoersDirectory(path=path, names=names, fault=self._directories[path])

    def _without(self, path: str) -> MissingSourceError | UnreadableSourceError:
        if self._absent.get(path) == "missing":
            return MissingSourceError()
        return UnreadableSourceError("root's wrapper did not read it")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        message = "a part of it is not base64"
        raise FrameError(message) from error


def _decoded_path(text: str) -> str:
    path = os.fsdecode(_decoded(text))
    if not path.startswith("/") or "\0" in path:
        message = "a path in it is not one"
        raise FrameError(message)
    return path
