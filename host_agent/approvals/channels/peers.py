"""Whose process is at the other end of a unix socket, as the kernel says (SO_PEERCRED, unix(7))."""

import os
import pwd
import socket
import struct
from pathlib import Path
from typing import Protocol

_SECONDS = 1.0
_CREDENTIALS = struct.Struct("iII")


class _Connected(Protocol):
    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...


def require_peer(connected: _Connected, user: str, *, own_uid: int | None = None) -> str:
    """Return who listens at the other end: `user`, root, or the agent's own user `own_uid`.

    The credentials are those of when the peer began to listen.

    Raises:
        PermissionError: somebody else; the sentence names them.
    """
    size = _CREDENTIALS.size
    _, uid, _ = _CREDENTIALS.unpack(
        connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    name = _name(uid)
    try:
        wanted = pwd.getpwnam(user).pw_uid
    except KeyError:
        wanted = None
    if uid in {0, os.geteuid() if own_uid is None else own_uid, wanted}:
        return name
    known = "" if wanted is not None else ", who does not exist here"
    message = f"is served by {name} (uid {uid}), and not by {user}{known}"
    raise PermissionError(message)


def peer_fault(path: Path, user: str, *, own_uid: int) -> str | None:
    """Return why whoever listens at `path` now would not be believed; None also for nobody.

    It connects and says nothing.
    """
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(_SECONDS)
        try:
            link.connect(str(path))
            require_peer(link, user, own_uid=own_uid)
        except PermissionError as error:
            return None if error.errno else f"{path} {error}"
        except OSError:
            return None
    return None


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "a user without a name"
