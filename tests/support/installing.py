"""A root directory to install into, whoever runs the tests: accounts and tools are stand-ins."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from host_agent.errors import AdapterUnavailableError
from host_agent.host.install import layout
from host_agent.host.install.first import First
from host_agent.host.install.journal import Journal
from host_agent.host.install.plan import Work
from host_agent.host.install.removal import Removal
from host_agent.host.install.source import ShippedFiles
from host_agent.host.install.steps import Installation
from host_agent.host.install.transaction import carry_out
from host_agent.host.install.tree import Attributes, Tree
from host_agent.host.install.values import InstallReport
from host_agent.operations.catalogue import Output
from tests.support.pages import REPOSITORY

PROGRAM = "/opt/host-agent/bin/host-agent"
AGENT = 4242
"""The agent's uid and gid where root runs the tests; else everything is the tester's own."""
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def source(**wrappers: bytes) -> ShippedFiles:
    """Return the shipped service files, and two wrappers or those that are given."""
    systemd = REPOSITORY / "systemd"
    return ShippedFiles(
        wrappers=wrappers or {"git": b"#!/bin/bash -p\n", "zfs-list": b"#!/bin/bash -p\nexit 0\n"},
        service={
            layout.UNIT: (systemd / "host-agent.service").read_bytes(),
            layout.TRIAL: (systemd / layout.TRIAL_NAME).read_bytes(),
            **{path: (systemd / name).read_bytes() for path, name in layout.RENEWING.items()},
            layout.SYSUSERS: (systemd / "host-agent.sysusers").read_bytes(),
            layout.TMPFILES: (systemd / "host-agent.tmpfiles").read_bytes(),
            layout.LOGROTATE: (systemd / "host-agent.logrotate").read_bytes(),
        },
    )


class BrokenError(OSError):
    """The failure that a test asked for."""


class BreakableTree(Tree):
    """A tree whose change number `at` fails, before or after it was done."""

    def __init__(self, root: Path, journal: Journal, *, at: int, is_late: bool) -> None:
        super().__init__(root, journal)
        self._at = at
        self._is_late = is_late
        self.count = 0

    def _through(self, act: Callable[[], None]) -> None:
        self.count += 1
        is_now = self.count == self._at
        if is_now and not self._is_late:
            raise BrokenError(5, "input/output error")
        act()
        if is_now:
            raise BrokenError(5, "input/output error")

    def make_directory(self, path: str, attributes: Attributes) -> list[str]:
        made: list[str] = []
        self._through(
            lambda: made.extend(super(BreakableTree, self).make_directory(path, attributes))
        )
        return made

    def adjust(self, path: str, attributes: Attributes) -> None:
        self._through(lambda: super(BreakableTree, self).adjust(path, attributes))

    def write(
        self,
        path: str,
        content: bytes,
        attributes: Attributes,
        check: Callable[[str], None] | None = None,
    ) -> None:
        self._through(lambda: super(BreakableTree, self).write(path, content, attributes, check))

    def remove(self, path: str) -> None:
        self._through(lambda: super(BreakableTree, self).remove(path))

    def remove_directory(self, path: str) -> None:
        self._through(lambda: super(BreakableTree, self).remove_directory(path))

    def guard(self, path: str) -> None:
        self._through(lambda: super(BreakableTree, self).guard(path))


@dataclass(slots=True)
class Stand:
    """A root with its accounts, its tools and what they were asked."""

    root: Path
    has_account: bool = False
    calls: list[tuple[str, ...]] = field(default_factory=list)
    failing: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    tree: Tree | None = None

    def uid(self, user: str) -> int | None:
        if user != layout.USER:
            return os.geteuid()
        return (os.geteuid() or AGENT) if self.has_account else None

    def gid(self, group: str) -> int | None:
        if group != layout.USER:
            return os.getegid()
        return (os.getegid() or AGENT) if self.has_account else None

    def __call__(self, tool: str, *arguments: str) -> Output:
        if tool in self.missing:
            message = f"{tool} is not installed"
            raise AdapterUnavailableError(message)
        self.calls.append((tool, *arguments))
        if tool in self.failing:
            return Output(exit_code=1, stderr=f"{tool}: no\nmore")
        if tool == "systemd-sysusers":
            self.has_account = True
        if tool in ("userdel", "groupdel"):
            self.has_account = False
        return Output(exit_code=0)

    def work(
        self, *, fail_at: int = 0, is_late: bool = False, is_dry: bool = False
    ) -> tuple[Work, Journal]:
        journal = Journal()
        self.tree = BreakableTree(self.root, journal, at=fail_at, is_late=is_late)
        return Work(tree=self.tree, accounts=self, tools=self, is_dry=is_dry), journal

    @property
    def changes(self) -> int:
        """Return how many changes the last run made of the tree."""
        return self.tree.count if isinstance(self.tree, BreakableTree) else 0

    def install(
        self,
        *,
        given: ShippedFiles | None = None,
        program: str = PROGRAM,
        is_first: bool = True,
        first: First | None = None,
        is_dry: bool = False,
        fail_at: int = 0,
        is_late: bool = False,
    ) -> InstallReport:
        work, journal = self.work(fail_at=fail_at, is_late=is_late, is_dry=is_dry)
        wished = (first or First()) if is_first else None
        one = Installation(work, given or source(), program, first=wished, now=NOW)
        one.prepare()
        carry_out(one.steps(), journal)
        return one.report

    def uninstall(
        self, *, is_dry: bool = False, fail_at: int = 0, is_late: bool = False
    ) -> InstallReport:
        work, journal = self.work(fail_at=fail_at, is_late=is_late, is_dry=is_dry)
        one = Removal(work)
        assert one.prepare()
        carry_out(one.steps(), journal)
        return one.report

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")


def picture(root: Path) -> dict[str, tuple[object, ...]]:
    """Return everything below `root`: mode, owner, and the content and time of files."""
    return {str(path.relative_to(root)): facts for path, facts in _facts(root)}


def _facts(root: Path) -> Iterator[tuple[Path, tuple[object, ...]]]:
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        common = (stat.filemode(status.st_mode), status.st_uid, status.st_gid)
        if stat.S_ISREG(status.st_mode):
            yield path, (*common, status.st_mtime_ns, path.read_bytes())
        else:
            yield path, common
