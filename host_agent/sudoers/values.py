"""The values of this room: what was found, where, and how bad it is."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

UNKNOWN = "unknown"
"""The rule of an entry that says: this could not be read or understood, so nothing is known."""


class Severity(StrEnum):
    """How much an entry gives away, worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"

    @property
    def rank(self) -> int:
        """Return 0 for the worst."""
        return list(Severity).index(self)

    def lowered(self) -> "Severity":
        """Return the next milder severity; the mildest stays."""
        order = list(Severity)
        return order[min(self.rank + 1, len(order) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Origin:
    """Where a logical line begins; line 0 is the file as a whole."""

    file: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SudoersFinding:
    """One entry that is not known to be safe. Its texts may hold bytes of the sudoers file."""

    origin: Origin
    rule: str
    severity: Severity
    reason: str
    remedy: str

    def as_json(self) -> dict[str, str | int]:
        """Return the entry as commands and routes show it."""
        return {
            "file": self.origin.file,
            "line": self.origin.line,
            "rule": self.rule,
            "severity": self.severity.value,
            "reason": self.reason,
            "remedy": self.remedy,
        }


def words(text: str) -> frozenset[str]:
    """Return the words of a table that is written as text."""
    return frozenset(text.split())


def unknown(file: str, line: int, reason: str, remedy: str) -> SudoersFinding:
    """Return the entry for what could not be read or understood."""
    return SudoersFinding(
        origin=Origin(file=file, line=line),
        rule=UNKNOWN,
        severity=Severity.HIGH,
        reason=reason,
        remedy=remedy,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """One audit of sudoers: findings, worst first. Nothing found means safe only if `scan_ok`."""

    findings: tuple[SudoersFinding, ...]
    digest: str
    """SHA-256 over what sudo reads, comments left out, and over what was found."""

    @property
    def scan_ok(self) -> bool:
        """Return whether everything could be read and understood."""
        return all(finding.rule != UNKNOWN for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """Return the report as commands and routes show it."""
        return {
            "scan_ok": self.scan_ok,
            "entries": [finding.as_json() for finding in self.findings],
        }


def report(findings: Iterable[SudoersFinding], lines: Iterable[str] = ()) -> AuditReport:
    """Return a report: one finding per line and rule, ranked; `lines` are what sudo reads."""
    unique: dict[tuple[Origin, str], SudoersFinding] = {}
    for finding in findings:
        key = (finding.origin, finding.rule)
        known = unique.get(key)
        if known is None or finding.severity.rank < known.severity.rank:
            unique[key] = finding
    ranked = tuple(sorted(unique.values(), key=lambda f: (f.severity.rank, f.origin, f.rule)))
    told = [[*lines], [finding.as_json() for finding in ranked]]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return AuditReport(findings=ranked, digest=digest)
