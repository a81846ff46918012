"""What this host says of itself: its names and addresses, users and groups, and who may write what.

All reads, no process. A host of another kind, for trying out, implements `Host`.
"""

import grp
import os
import pwd
import re
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from host_agent.sudoers.interfaces import interface_addresses
from host_agent.sudoers.naming import Naming


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A user whose rights are asked for. `uid` is None for one that does not exist (yet)."""

    name: str
    uid: int | None
    groups: frozenset[str] = frozenset()
    gids: frozenset[int] = frozenset()
    naming: Naming = field(default_factory=Naming)
    """How sudo compares names, under the settings that are judged."""


class Host(Protocol):
    """What sudo's matching needs to know of the host."""

    @property
    def names(self) -> frozenset[str]:
        """Return the host's names, short and full, in lower case."""
        ...

    @property
    def addresses(self) -> frozenset[str]:
        """Return the addresses of the host's interfaces, as `ADDRESS/LENGTH`.

        Without `/LENGTH` the mask is not known.
        """
        ...

    def subject(self, name: str) -> Subject:
        """Return the user `name`; it need not exist."""
        ...

    def resolved(self, path: str) -> str:
        """Return `path` with its links followed."""
        ...

    def may_be_same(self, one: str, other: str) -> bool:
        """Return whether two paths may be of one file: a link, a hard link, or not there."""
        ...

    def write_fault(self, path: str) -> str | None:
        """Return who but root can change what is at `path`, as a sentence; None if nobody."""
        ...


class LiveHost:
    """This host."""

    @property
    def names(self) -> frozenset[str]:
        """Return the node name, its first part, and what the resolver's files call it."""
        name = socket.gethostname().lower()
        found = {name, name.partition(".")[0]}
        for line in _lines("/etc/hosts"):
            words = line.partition("#")[0].lower().split()[1:]
            if name in words:
                found.update(words)
        return frozenset(found - {"localhost", ""})

    @property
    def addresses(self) -> frozenset[str]:
        """Return the addresses of interfaces that are up, loopback left out as sudo does."""
        return interface_addresses()

    def subject(self, name: str) -> Subject:
        """Return the user with the groups it has; one that does not exist has a group of its name.

        That is how a system user is made, and what an entry for it would be written for.
        """
        try:
            entry = pwd.getpwnam(name)
        except (KeyError, ValueError):
            return Subject(name=name, uid=None, groups=frozenset({name}))
        gids = frozenset(os.getgrouplist(name, entry.pw_gid))
        return Subject(
            name=name,
            uid=entry.pw_uid,
            gids=gids,
            groups=frozenset(filter(None, map(_group_name, gids))),
        )

    def resolved(self, path: str) -> str:
        """Return `path` with its links followed."""
        return os.path.realpath(path)

    def may_be_same(self, one: str, other: str) -> bool:
        """Return whether two paths may be of one file: a link, a hard link, or not there."""
        try:
            return Path(one).samefile(other)
        except OSError:
            return True

    def write_fault(self, path: str) -> str | None:
        """Return who but root can change what is at `path`, looking at every directory above it.

        What does not exist could be made by whoever may write the directory that it would be in.
        """
        for name in dict.fromkeys((path, os.path.realpath(path))):
            below: Path | None = None
            for part in (Path(name), *Path(name).parents):
                if fault := _written_by(part, below):
                    return fault
                below = part
        return None


def _written_by(path: Path, below: Path | None) -> str | None:
    """Return who but root can change `path`, or replace `below` in it."""
    try:
        status = path.stat()
    except OSError:
        return None  # absent, or below a directory that only root looks into
    if status.st_uid != 0:
        return f"{path} belongs to {_user_name(status.st_uid)}"
    is_sticky = stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX)
    if is_sticky and below is not None and os.path.lexists(below):
        return None  # nobody replaces there what is another's
    if status.st_mode & stat.S_IWOTH:
        return f"{path} is writable by everybody"
    if status.st_mode & stat.S_IWGRP and status.st_gid != 0:
        return f"{path} is writable by the group {_group_name(status.st_gid) or status.st_gid}"
    return None


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


_POLICY_PLUGIN = re.compile(r"\s*Plugin\s+\S*sudoers_policy\S*\s+\S+\s+\S|\s*Plugin\s+(?!sudoers_)")


def other_policies() -> list[str]:
    """Return sentences about rights that come from elsewhere than `/etc/sudoers` on this host.

    What a directory service or another plugin grants cannot be seen in files: it is unknown.
    """
    found = []
    for line in _lines("/etc/nsswitch.conf"):
        name, colon, services = line.partition("#")[0].partition(":")
        services = re.sub(r"\[[^\]]*\]", " ", services)
        if colon and name.strip() == "sudoers" and set(services.split()) - {"files"}:
            found.append(f"/etc/nsswitch.conf lets sudo ask {services.strip()} too")
    if any(_POLICY_PLUGIN.match(line) for line in _lines("/etc/sudo.conf")):
        found.append("/etc/sudo.conf names a policy plugin, or another sudoers file")
    return found
