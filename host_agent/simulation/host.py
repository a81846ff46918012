"""The host in memory: it stands where the runner starts wrappers, one stand-in for each adapter."""

import asyncio
import hashlib
import re
from collections.abc import Iterable, Mapping

from host_agent.config import Config
from host_agent.errors import AdapterUnavailableError
from host_agent.operations.apt.section import AptSection
from host_agent.operations.catalogue import Invocation, Output, RunAs
from host_agent.operations.exec.section import ExecSection
from host_agent.operations.git.section import GitSection
from host_agent.operations.pct.section import PctSection, vmid_ranges
from host_agent.operations.systemd.section import SystemdSection
from host_agent.operations.zfs.section import ZfsSection
from host_agent.simulation.apt import SimulatedApt
from host_agent.simulation.exec import SimulatedExec
from host_agent.simulation.git import SimulatedGit
from host_agent.simulation.pct import SimulatedPct
from host_agent.simulation.stand_in import EndedError, StandIn
from host_agent.simulation.systemd import SimulatedSystemd
from host_agent.simulation.zfs import SimulatedZfs

USER = "simulated"
"""Whom an identity without a `unix_user` runs as."""


class SimulatedHost:
    """A `Runner` that starts nothing: what was asked is done to values in memory.

    One change is made at a time, whole or not at all.
    """

    def __init__(self) -> None:
        self._zfs, self._systemd, self._pct = SimulatedZfs(), SimulatedSystemd(), SimulatedPct()
        self._git, self._apt, self._exec = SimulatedGit(), SimulatedApt(), SimulatedExec()
        self.stand_ins: Mapping[str, StandIn] = {
            "zfs": self._zfs,
            "systemd": self._systemd,
            "pct": self._pct,
            "git": self._git,
            "apt": self._apt,
            "exec": self._exec,
        }
        self.runs = 0

    def furnish(self, config: Config) -> None:
        """Add what a configuration allows by a whole name; a pattern adds nothing.

        Of containers that is the first of each range.
        """
        if (zfs := config.section(ZfsSection)) is not None:
            for name in _whole_names(zfs.datasets, r"[a-z0-9_.:-]+(/[a-z0-9_.:-]+)*"):
                self._zfs.add(name)
        if (systemd := config.section(SystemdSection)) is not None:
            for name in _whole_names(systemd.units, r"[a-z0-9_.@:-]+\.[a-z]+"):
                self._systemd.add(name)
        if (pct := config.section(PctSection)) is not None:
            for first, _last in vmid_ranges(pct.vmids):
                self._pct.add(str(first))
        if (git := config.section(GitSection)) is not None:
            for repository in git.repositories:
                branches = _whole_names(repository.branches, r"[a-z0-9][a-z0-9_./+-]*")
                self._git.add(repository.path, repository.remotes, branches)
        if (apt := config.section(AptSection)) is not None:
            for name in _whole_names(apt.packages, r"[a-z0-9][a-z0-9+.-]*"):
                self._apt.add(name)
        if (commands := config.section(ExecSection)) is not None:
            self._exec.register(commands.commands)

    def user_of(self, run_as: RunAs, unix_user: str | None) -> str | None:
        """Return whom it would run as on a host."""
        return "root" if run_as is RunAs.ROOT else unix_user or USER

    async def run(
        self,
        invocation: Invocation,
        *,
        unix_user: str | None,  # noqa: ARG002 - nobody runs anything
        deadline: float | None = None,  # noqa: ARG002 - it takes no time
    ) -> Output:
        """Return what the wrapper would have left behind.

        Raises:
            AdapterUnavailableError: the simulation has no stand-in for this wrapper.
        """
        await asyncio.sleep(0)
        adapter, _, verb = invocation.wrapper.partition("-")
        stand_in = self.stand_ins.get(adapter)
        if stand_in is None:
            message = f"The simulation has nothing that stands in for {invocation.wrapper}."
            raise AdapterUnavailableError(message)
        self.runs += 1
        try:
            return _output(stand_in.answer(verb, invocation.arguments))
        except EndedError as ended:
            return _output("", status=ended.status, stderr=ended.stderr)


def _output(stdout: str, *, status: int = 0, stderr: str = "") -> Output:
    content = stdout.encode()
    return Output(
        exit_code=status,
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=len(content),
        stderr_bytes=len(stderr.encode()),
        stdout_sha256=hashlib.sha256(content).hexdigest(),
        duration_ms=1,
    )


def _whole_names(patterns: Iterable[str], form: str) -> list[str]:
    """Return the patterns that name one thing: of this form once their backslashes are gone."""
    names = ((pattern, pattern.replace("\\", "")) for pattern in patterns)
    return [
        name
        for pattern, name in names
        if re.fullmatch(form, name, re.ASCII | re.IGNORECASE)
        and re.fullmatch(r"(?:[^.+]|\\[.+])*", pattern)
        and re.fullmatch(pattern, name, re.ASCII)
    ]
