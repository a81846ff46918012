"""The append-only attribute, which root's wrapper sets on each live file that it begins."""

import fcntl
import os
import struct
from pathlib import Path

CHATTR = Path("/usr/bin/chattr")
"""Of e2fsprogs, which a small Debian may lack: without it the wrapper cannot set the attribute."""
_GET_FLAGS = 0x8008_6601
"""`FS_IOC_GETFLAGS` of linux/fs.h, on 64 bits."""
_APPEND_ONLY = 0x20
"""`FS_APPEND_FL`: what `chattr +a` sets and `lsattr` shows as `a`."""


def can_be_set() -> bool:
    """Return whether this host has what sets it; whether the file system takes it is not asked."""
    return os.access(CHATTR, os.X_OK)


def is_set(descriptor: int) -> bool:
    """Return whether an open file has the attribute.

    Raises:
        OSError: its file system knows no attributes.
    """
    flags = fcntl.ioctl(descriptor, _GET_FLAGS, bytes(8))
    return bool(struct.unpack("I", flags[:4])[0] & _APPEND_ONLY)


def is_append_only(path: Path) -> bool:
    """Return whether the file at `path` has the attribute.

    Raises:
        OSError: it cannot be opened, or its file system knows no attributes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return is_set(descriptor)
    finally:
        os.close(descriptor)


def is_wanting(descriptor: int) -> bool:
    """Return whether an open file lacks the attribute and a new one in its place could have it."""
    try:
        return can_be_set() and not is_set(descriptor)
    except OSError:
        return False
