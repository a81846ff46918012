"""Files of this room: bounded reads of plain files, and writes that are whole or not there.

Nothing follows a symbolic link in the last part of a path, waits on a FIFO or reads a device.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
"""The largest file that is read: a CRL of 300,000 entries fits."""

PRIVATE = 0o600
PUBLIC = 0o644


def open_plain(path: Path) -> int:
    """Open a plain file for reading and return its descriptor, never waiting.

    Raises:
        OSError: it cannot be opened, or is a symbolic link.
        ValueError: it is a directory, FIFO, socket or device; the message is one sentence.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
    descriptor = os.open(path, flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    message = f"{path} is not a plain file"
    raise ValueError(message)


def read_plain(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a plain file of at most `limit` bytes.

    Raises:
        ValueError: it is missing, unreadable, no plain file, empty or too large; the message is
            one sentence that names the path.
    """
    try:
        descriptor = open_plain(path)
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
            data = stream.read(limit + 1)
    except OSError as error:
        message = f"{path} cannot be read: {(error.strerror or 'input/output error').lower()}"
        raise ValueError(message) from error
    if not data:
        message = f"{path} is empty"
        raise ValueError(message)
    if len(data) > limit:
        message = f"{path} is larger than {limit} bytes"
        raise ValueError(message)
    return data


def read_linked(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """Return the content of the plain file that `path` leads to, by links too.

    For certificates and keys: the tools that renew them do it by links.

    Raises:
        ValueError: as `read_plain` does.
    """
    return read_plain(Path(os.path.realpath(path)), limit=limit)


def create(path: Path, data: bytes, *, mode: int) -> None:
    """Write a new file; it never exists with more permissions than `mode`, nor half written.

    Raises:
        FileExistsError: there is something of that name already, were it a dangling link.
        OSError: it cannot be written; then it is not there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, PRIVATE)
    try:
        with open(descriptor, "wb") as stream:  # noqa: PTH123 - a descriptor, not a path
            stream.write(data)
            stream.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def replace(path: Path, data: bytes, *, mode: int) -> None:
    """Put `data` in the place of `path` in one step that survives a power cut.

    Raises:
        OSError: it cannot be written; then the old file is still there.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    create(fresh, data, mode=mode)
    try:
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
