"""Secrets of channels, read anew at each use: replacing a file replaces the secret."""

import os
import re
import stat
from pathlib import Path

from host_agent.notify.channel import ChannelError
from host_agent.requests.notification import Failure

MAX_BYTES = 65_536
_TOKEN = re.compile(r"[!-~]{1,1024}", re.ASCII)


def read_bytes(path: Path) -> bytes:
    """Return the content of a plain file; links are followed, for secrets are handed out by links.

    Raises:
        ChannelError: it cannot be read, is empty, too large, or no plain file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with open(descriptor, "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
            is_plain = stat.S_ISREG(os.fstat(descriptor).st_mode)
            data = stream.read(MAX_BYTES + 1) if is_plain else b""
    except OSError as error:
        message = f"{path} cannot be read: {(error.strerror or 'input/output error').lower()}."
        raise ChannelError(Failure.NOT_CONFIGURED, message) from None
    if not data.strip() or len(data) > MAX_BYTES:
        message = f"{path} is empty, larger than {MAX_BYTES} bytes, or no plain file."
        raise ChannelError(Failure.NOT_CONFIGURED, message)
    return data


def read_token(path: Path) -> str:
    """Return the one word of visible ASCII in a file.

    Raises:
        ChannelError: it cannot be read, or is something else.
    """
    token = read_bytes(path).strip().decode("utf-8", "replace")
    if not _TOKEN.fullmatch(token):
        message = f"{path} is not one word of visible ASCII."
        raise ChannelError(Failure.NOT_CONFIGURED, message)
    return token
