"""What sudo and groups really give to the agent's user and to those that it acts as."""

import os
from collections.abc import Callable, Iterator

from host_agent.config import Config, RunnerKind
from host_agent.host.doctor.values import Check, ok, problem, warning
from host_agent.sudoers.values import AuditReport, Severity, SudoersFinding

_NAME = "what sudo grants"
_BAD = (Severity.CRITICAL, Severity.HIGH)
_MAX_TOLD = 20


def granted_checks(config: Config, audit: Callable[[], AuditReport]) -> Iterator[Check]:
    """Yield each finding of `audit` that counts: high and critical are problems.

    Nothing under runner `direct`, which does not ask sudo.
    """
    if config.execution.runner is RunnerKind.DIRECT:
        return
    if os.geteuid() != 0:
        yield warning(_NAME, "Only root can read what sudo grants.", "run the doctor as root")
        return
    report = audit()
    bad = [finding for finding in report.findings if finding.severity in _BAD]
    for finding in bad[:_MAX_TOLD]:
        yield problem(_NAME, _told(finding), finding.remedy)
    if len(bad) > _MAX_TOLD:
        sentence = f"{len(bad) - _MAX_TOLD} more are high or critical."
        yield problem(_NAME, sentence, "host-agent sudoers check")
    for finding in report.findings:
        if finding.severity is Severity.MEDIUM:
            yield warning(_NAME, _told(finding), finding.remedy)
    if not bad and report.scan_ok:
        low = sum(finding.severity is Severity.LOW for finding in report.findings)
        also = f"; {low} smaller ones: host-agent sudoers check" if low else ""
        yield ok(_NAME, f"Nothing that comes close to root, by sudoers or by a group{also}.")


def _told(finding: SudoersFinding) -> str:
    origin = finding.origin
    where = f"{origin.file}:{origin.line}" if origin.line else origin.file
    return f"{finding.severity.value}: {where}: {finding.reason.rstrip('.')}."
