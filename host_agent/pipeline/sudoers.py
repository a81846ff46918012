"""What sudo grants, as a running agent knows and tells it: cached, written down when it changes."""

import asyncio
import os
import pwd
from datetime import datetime

from host_agent.api.wire.host import SudoersReport
from host_agent.audit.record import Event
from host_agent.canonical import JsonValue
from host_agent.config import RunnerKind
from host_agent.pipeline.context import Context, record
from host_agent.sudoers.audit import Auditor, SudoersTool
from host_agent.sudoers.host import LiveHost, other_policies
from host_agent.sudoers.render import audience
from host_agent.sudoers.scan import SCAN_SECONDS, Scanned, SudoersScan, WrapperRunner

FIRST_SCAN_SECONDS = 5.0
"""How long after its start an agent scans for the first time."""
MAX_TOLD = 20
"""How many entries a record of a change names; the others are counted."""


class Privileges:
    """The audit of sudoers for `context`; `tool` runs cvtsudoers."""

    def __init__(self, context: Context, tool: SudoersTool) -> None:
        self._context = context
        self._tool = tool
        self._scan = SudoersScan(self._parts, on_scan=self._tell, doubts=other_policies)
        self.forget = self._scan.forget

    async def report(self) -> SudoersReport:
        """Return the findings, made anew where they are old, and when they were made."""
        scanned = await self._scan.fresh()
        return SudoersReport.model_validate({**scanned.report.as_json(), "scanned_at": scanned.at})

    @property
    def state(self) -> str:
        """Return one line for readiness."""
        scanned = self._scan.newest
        if scanned is None:
            return "not looked at yet"
        if not scanned.report.scan_ok:
            return "unknown: not everything could be read"
        count = len(scanned.report.findings)
        return f"{count} entries are not known to be safe" if count else "ok"

    async def keep_forever(self) -> None:
        """Scan again and again, until cancelled.

        Under the runner `direct` nothing goes through sudo, and nobody looks unless asked.
        """
        await asyncio.sleep(FIRST_SCAN_SECONDS)
        while True:
            if self._context.snapshot.config.execution.runner is RunnerKind.SUDO:
                await self._scan.fresh(SCAN_SECONDS / 2)
            await asyncio.sleep(SCAN_SECONDS)

    def _parts(self) -> tuple[WrapperRunner, Auditor, datetime]:
        config = self._context.snapshot.config
        who = audience(
            config,
            self._context.catalogue,
            user=_own_user(),
            wrapper_dir=str(config.execution.wrapper_dir),
        )
        auditor = Auditor(tool=self._tool, host=LiveHost(), audience=who)
        return self._context.runner, auditor, self._context.clock.now()

    async def _tell(self, scanned: Scanned) -> None:
        """Set the gauges, and write a change down once."""
        found = scanned.report
        self._context.metrics.sudoers_scanned(len(found.findings), is_ok=found.scan_ok)
        if not scanned.is_changed:
            return
        told: list[JsonValue] = [
            f"{finding.origin.file}:{finding.origin.line} {finding.rule}: {finding.reason}"
            for finding in found.findings[:MAX_TOLD]
        ]
        await record(
            self._context,
            Event.SUDOERS_CHANGED,
            "a change of sudoers",
            detail=f"{len(found.findings)} entries are not known to be safe",
            state="ok" if found.scan_ok else "unknown",
            sha256=found.digest,
            faults=told,
        )


def _own_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
