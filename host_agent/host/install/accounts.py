"""Users and groups of the host, or of the root that is installed into."""

import grp
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol


class Accounts(Protocol):
    """Knows users and groups by name."""

    def uid(self, user: str) -> int | None: ...

    def gid(self, group: str) -> int | None: ...


class HostAccounts:
    """The running host's accounts, wherever it has them from."""

    def uid(self, user: str) -> int | None:
        try:
            return pwd.getpwnam(user).pw_uid
        except KeyError:
            return None

    def gid(self, group: str) -> int | None:
        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            return None


class FileAccounts:
    """The accounts in `etc/passwd` and `etc/group` below another root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def uid(self, user: str) -> int | None:
        return next(_numbers(self._root / "etc/passwd", user), None)

    def gid(self, group: str) -> int | None:
        return next(_numbers(self._root / "etc/group", group), None)


def _numbers(file: Path, name: str) -> Iterator[int]:
    """Yield the third field of the lines of `name` (passwd(5), group(5))."""
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    if name == "root":
        yield 0
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[0] == name and fields[2].isascii() and fields[2].isdigit():
            yield int(fields[2])
