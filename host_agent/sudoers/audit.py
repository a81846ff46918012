"""One audit of sudoers, from files to a report: gather, convert, parse, judge.

The only step that needs a process is cvtsudoers, which runs through the door that `Tool` stands
for. What cannot be read or understood becomes an entry of the rule `unknown`, and the rest is
judged all the same.
"""

import asyncio
import re
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from host_agent.config import Config
from host_agent.config.models import DEFAULT_WRAPPER_DIR
from host_agent.errors import AdapterUnavailableError
from host_agent.operations.catalogue import Catalogue, Output
from host_agent.sudoers.findings import Audience, judge
from host_agent.sudoers.host import Host, LiveHost, other_policies
from host_agent.sudoers.lines import Gathered, LogicalLine, gather
from host_agent.sudoers.membership import memberships
from host_agent.sudoers.parse import Marked, SudoersPolicy, UnparsableError, mark, parse
from host_agent.sudoers.reading import DiskSource, SudoersSource
from host_agent.sudoers.render import audience
from host_agent.sudoers.values import AuditReport, Origin, SudoersFinding, report, unknown

SUDOERS = "/etc/sudoers"
MAX_REPAIRS = 20
"""How many lines with a syntax error are left out before the rest is given up."""

_REPAIR = "Repair the line; `visudo -c` names the fault."
_SYNTAX = re.compile(r":([0-9]+):(?:[0-9]+:)? ", re.ASCII)
_HARMLESS_WARNING = re.compile(
    r"referenced but not defined|unknown defaults entry|internal error: user-ID invalid value"
    r"|is invalid for option|specified without a value|does not take a value|requires a value"
    r"|unused (?:User|Runas|Host|Cmnd)_Alias"
)
"""What sudo passes over too: an alias or option that does not exist is none."""


class SudoersTool(Protocol):
    """Runs a fixed tool of the host: the port to execution."""

    async def run(self, tool: str, *arguments: str) -> Output:
        """Run `tool` by its short name, without privileges, and return what it left behind.

        Raises:
            AdapterUnavailableError: it is not installed, or cannot be started.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """Audits sudoers for an audience on a host."""

    tool: SudoersTool
    host: Host
    audience: Audience

    async def audit(
        self,
        source: SudoersSource,
        path: str = SUDOERS,
        *,
        now: datetime,
        doubts: tuple[str, ...] = (),
        is_installed: bool = True,
    ) -> AuditReport:
        """Return what `path`, and all that it includes, gives away.

        With `is_installed` the groups of the audited users as well; a file that is only tried out
        says nothing of them. `doubts` are sentences about rights that come from elsewhere: each
        makes the report unknown.
        """
        name = min(self.host.names, key=len, default="localhost")
        gathered = await asyncio.to_thread(gather, source, path, name)
        policy, faults = await self._policy(gathered)
        people = map(self.host.subject, self.audience.names) if is_installed else ()
        found = [
            *gathered.findings,
            *faults,
            *(_doubt(path, sentence) for sentence in doubts),
            *memberships(people),
            *(await asyncio.to_thread(self._judged, policy, now)),
        ]
        return report(found, (line.text for line in gathered.lines if not line.is_blank))

    def _judged(self, policy: SudoersPolicy, now: datetime) -> list[SudoersFinding]:
        return list(judge(policy, self.audience, self.host, now))

    async def _policy(self, gathered: Gathered) -> tuple[SudoersPolicy, list[SudoersFinding]]:
        """Return what the gathered lines say, lines with a syntax error left out and told."""
        lines, faults = list(gathered.lines), list[SudoersFinding]()
        nothing = SudoersPolicy(grants=(), settings=())
        while any(not line.is_blank for line in lines):
            marked = mark(lines, secrets.token_hex(8))
            try:
                output = await self._convert(marked)
                bad = _bad_line(output, marked)
                if bad is None:
                    faults.extend(_warnings(output, marked, lines))
                    policy = parse(output.stdout, marked, lines)
                    return policy, [*faults, *map(_unbound, policy.doubts)]
            except (AdapterUnavailableError, UnparsableError) as error:
                return nothing, [*faults, _gave_up(gathered, error)]
            faults.append(_syntax_error(lines.pop(bad)))
            if len(faults) > MAX_REPAIRS:
                return nothing, [*faults, _gave_up(gathered, "too many lines have a fault")]
        return nothing, faults

    async def _convert(self, marked: Marked) -> Output:
        """Return cvtsudoers' output for the text, which only this user can read meanwhile."""
        with tempfile.TemporaryDirectory(prefix="host-agent-sudoers-") as folder:
            path = Path(folder) / "sudoers"
            path.write_bytes(marked.text.encode("utf-8", "surrogateescape"))
            return await self.tool.run("cvtsudoers", "-c", "/dev/null", "-f", "json", str(path))


async def audit_host(
    tool: SudoersTool, config: Config | None, catalogue: Catalogue, *, user: str, now: datetime
) -> AuditReport:
    """Return what sudo grants on this host, as root reads it, to `user` and the identities' users.

    The same audit for `sudoers check` and the doctor; a running agent has its own way to the files.
    """
    wrapper_dir = DEFAULT_WRAPPER_DIR if config is None else str(config.execution.wrapper_dir)
    auditor = Auditor(
        tool=tool,
        host=LiveHost(),
        audience=audience(config, catalogue, user=user, wrapper_dir=wrapper_dir),
    )
    return await auditor.audit(DiskSource(), now=now, doubts=tuple(other_policies()))


def _bad_line(output: Output, marked: Marked) -> int | None:
    """Return the index of the line that cvtsudoers stopped at; None where it did not.

    Raises:
        UnparsableError: it stopped, and did not say where, or was cut.
    """
    if output.timed_out or output.truncated:
        message = "cvtsudoers did not end in time, or wrote too much"
        raise UnparsableError(message)
    if output.exit_code == 0:
        return None
    found = _SYNTAX.search(output.stderr)
    if found is None:
        message = f"cvtsudoers ended with {output.exit_code}: {output.stderr[:200].strip()}"
        raise UnparsableError(message)
    return marked.index(int(found[1]))


def _warnings(output: Output, marked: Marked, lines: list[LogicalLine]) -> Iterator[SudoersFinding]:
    """Yield an entry for what cvtsudoers complained of, unless sudo passes it over too."""
    for said in output.stderr.splitlines():
        found = _SYNTAX.search(said)
        if found is None and not said.startswith("cvtsudoers: "):
            continue  # the second and third line of a complaint show the place
        if _HARMLESS_WARNING.search(said) is None:
            line = lines[marked.index(int(found[1]))] if found else lines[0]
            message = said.rpartition(": ")[2]
            yield unknown(line.origin.file, line.origin.line, f"cvtsudoers: {message}.", _REPAIR)


def _syntax_error(line: LogicalLine) -> SudoersFinding:
    reason = "The line is not understood, so what it grants is not known."
    return unknown(line.origin.file, line.origin.line, reason, _REPAIR)


def _unbound(origin: Origin) -> SudoersFinding:
    reason = "For whom this setting holds cannot be told; it is taken to hold for everybody."
    return unknown(origin.file, origin.line, reason, _REPAIR)


def _gave_up(gathered: Gathered, error: object) -> SudoersFinding:
    file = gathered.files[0] if gathered.files else SUDOERS
    remedy = (
        "Install sudo 1.9's cvtsudoers (Debian: package sudo), and see that `visudo -c` passes."
    )
    return unknown(file, 0, f"What sudo grants cannot be told: {error}", remedy)


def _doubt(path: str, sentence: str) -> SudoersFinding:
    remedy = "Look at what that source grants; this check reads files only."
    return unknown(path, 0, f"{sentence}, which is not looked at here.", remedy)
