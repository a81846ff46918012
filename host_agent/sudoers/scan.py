"""The cached audit that a running agent keeps of what sudo grants: scanned seldom, told once.

Root's wrapper `sudoers-read` prints the files; everything else happens here, without privileges.
A scan that fails is a report too: unknown, never empty.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from host_agent.errors import HostAgentError
from host_agent.operations.catalogue import Invocation, Output, RunAs
from host_agent.sudoers.audit import SUDOERS, Auditor
from host_agent.sudoers.reading import FrameError, FrameSource
from host_agent.sudoers.render import SUDOERS_READER
from host_agent.sudoers.values import AuditReport, report, unknown

SCAN_SECONDS = 300.0
"""How old a report may become before it is made anew."""
READ_SECONDS = 40.0

_log = logging.getLogger("host_agent.sudoers")
_REMEDY = (
    "See that the line for sudoers-read of `host-agent sudoers render` is installed; as root,"
    " `host-agent sudoers check` looks by itself."
)
INVOCATION = Invocation(
    wrapper=SUDOERS_READER, arguments=(), run_as=RunAs.ROOT, timeout_seconds=READ_SECONDS
)


class WrapperRunner(Protocol):
    """Runs a wrapper: the port to execution."""

    async def run(
        self, invocation: Invocation, *, unix_user: str | None, deadline: float | None = None
    ) -> Output:
        """Run `invocation`; raises `HostAgentError` where it cannot be started."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A report, when it was made, and whether it says something else than the one before.

    The first one of an agent has changed only if it is not clean: what it follows is not known.
    """

    report: AuditReport
    at: datetime
    is_changed: bool


class SudoersScan:
    """Keeps the newest report. `parts` gives the runner, the auditor and the time as they are now.

    `on_scan` is told every new report, once, before anybody gets it.
    """

    def __init__(
        self,
        parts: Callable[[], tuple[WrapperRunner, Auditor, datetime]],
        *,
        on_scan: Callable[[Scanned], Awaitable[None]],
        doubts: Callable[[], list[str]] = list,
    ) -> None:
        self._parts = parts
        self._on_scan = on_scan
        self._doubts = doubts
        self._scanning = asyncio.Lock()
        self._newest: Scanned | None = None

    @property
    def newest(self) -> Scanned | None:
        """Return the newest report; None before the first."""
        return self._newest

    async def fresh(self, max_age_seconds: float = SCAN_SECONDS) -> Scanned:
        """Return a report that is at most so old, scanning if need be; scans never overlap."""
        async with self._scanning:
            runner, auditor, now = self._parts()
            known = self._newest
            if known is not None and 0 <= (now - known.at).total_seconds() <= max_age_seconds:
                return known
            found = await self._scan(runner, auditor, now)
            before = None if known is None else known.report.digest
            is_changed = bool(found.findings) if before is None else before != found.digest
            self._newest = Scanned(report=found, at=now, is_changed=is_changed)
            await self._on_scan(self._newest)
            return self._newest

    def forget(self) -> None:
        """Make the next look scan anew, after a reload; what was found stays to compare with."""
        if self._newest is not None:
            long_ago = datetime.min.replace(tzinfo=self._newest.at.tzinfo)
            self._newest = Scanned(report=self._newest.report, at=long_ago, is_changed=False)

    async def _scan(self, runner: WrapperRunner, auditor: Auditor, now: datetime) -> AuditReport:
        try:
            output = await runner.run(INVOCATION, unix_user=None)
        except HostAgentError as error:
            return _not_read(error.detail)
        if output.exit_code != 0 or output.truncated or output.timed_out:
            return _not_read(f"The wrapper {SUDOERS_READER} ended with {output.exit_code}")
        try:
            source = FrameSource(output.stdout)
            doubts = tuple(await asyncio.to_thread(self._doubts))
            return await auditor.audit(source, SUDOERS, now=now, doubts=doubts)
        except FrameError as error:
            return _not_read(
                f"What the wrapper {SUDOERS_READER} printed is not understood: {error}"
            )
        except (OSError, ValueError) as error:
            _log.exception("the audit of sudoers failed")
            return _not_read(f"The audit failed ({type(error).__name__})")


def _not_read(reason: str) -> AuditReport:
    sentence = f"{reason.rstrip('.')}, so what sudo grants is not known."
    return report([unknown(SUDOERS, 0, sentence, _REMEDY)])
