"""Whose process is at the other end of a unix socket, as the kernel says (SO_PEERCRED, unix(7))."""

import os
import pwd
import socket
import stat
import struct
from pathlib import Path
from typing import Protocol

_CREDENTIALS = struct.Struct("iII")


class _Connected(Protocol):
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def peer_uid(connected: _Connected) -> int:
    """Return the user at the other end: who connected, or began to listen, as it was then."""
    said = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(said)
    return int(uid)


def require_peer(connected: _Connected, user: str) -> str:
    """Return who listens at the other end: `user`, root, or the agent's own user.

    The credentials are those of when the peer began to listen.

    Raises:
        PermissionError: somebody else; the sentence names them.
    """
    uid = peer_uid(connected)
    if fault := _fault(uid, user, own_uid=os.geteuid()):
        message = f"belongs to {fault}"
        raise PermissionError(message)
    return _name(uid)


def owner_fault(path: Path, user: str, *, own_uid: int) -> str | None:
    """Return why whoever made the socket at `path` would not be believed; None also for none.

    Nothing connects: a daemon may take a connection for a reader, and give it what waits.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    fault = _fault(status.st_uid, user, own_uid=own_uid)
    return f"{path} belongs to {fault}" if fault and stat.S_ISSOCK(status.st_mode) else None


def _fault(uid: int, user: str, *, own_uid: int) -> str | None:
    try:
        wanted = pwd.getpwnam(user).pw_uid
    except KeyError:
        wanted = None
    if uid in {0, own_uid, wanted}:
        return None
    known = "" if wanted is not None else ", who does not exist here"
    return f"{_name(uid)} (uid {uid}) and not to {user}{known}"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "a user without a name"
