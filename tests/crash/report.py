"""What came of it: kills, executions, decisions, and every broken promise."""

from collections import Counter
from dataclasses import dataclass, field

RANDOM = "at random"
MAX_VIOLATIONS = 20


@dataclass(slots=True)
class Report:
    """Counts of one run of the harness; a broken promise is a sentence with its kill and seed."""

    seed: int
    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    """Points that were lit and not reached in time; such a kill counts as random."""
    starts: int = 0
    kills_in_start: int = 0
    caught_up: int = 0
    recoveries: int = 0
    executions: int = 0
    wishes: Counter[str] = field(default_factory=Counter)
    approvals: int = 0
    denials: int = 0
    states: Counter[str] = field(default_factory=Counter)
    records: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)
    _said: set[str] = field(default_factory=set)

    @property
    def total(self) -> int:
        return self.kills.total()

    def broken(self, what: str, *, point: str | None) -> None:
        """Note a broken promise once, with where the agent was killed before it showed."""
        if what not in self._said:
            self._said.add(what)
            where = point or RANDOM
            self.violations.append(f"seed {self.seed}, kill {self.total} ({where}): {what}")

    def lines(self) -> list[str]:
        """Return the report as text."""
        named = sorted(self.kills.keys() | self.missed.keys())
        table = [f"  {self.kills[at]:6}  {self.missed[at]:6}  {at}" for at in named]
        states = ", ".join(f"{count} {state}" for state, count in self.states.most_common())
        violations = [f"  {violation}" for violation in self.violations]
        return [
            "   kills  missed  at",
            *table,
            f"{self.total} kills, {self.kills_in_start} of them before the agent served",
            f"{self.missed.total()} died at random because their point was not reached",
            f"{self.starts} starts, {self.seconds:.0f} s, seed {self.seed}",
            f"{self.wishes.total()} wishes, {self.executions} executions",
            f"{self.approvals} approvals and {self.denials} denials that were answered",
            f"requests: {states or 'none'}",
            f"{self.records} audit records, {self.caught_up} of them caught up with at a start",
            f"{self.recoveries} torn lines accounted for",
            f"{len(self.violations)} violations",
            *violations,
        ]
