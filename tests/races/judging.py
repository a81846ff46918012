"""What may have become of a request that everybody wanted: pure, so that it can be told lies."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from host_agent.requests.model import Request, State

MAX_VIOLATIONS = 20
_SPOKEN = frozenset({State.APPROVED, State.DENIED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A step that the store told a racer it has made."""

    racer: int
    before: State
    after: State


def judge(stored: Request | None, claims: Sequence[Claim], runs: int) -> Iterator[str]:
    """Tell every broken promise about one request that has been raced for.

    `claims` are in any order; `runs` is how often the ledger says that it ran.
    """
    if stored is None:
        yield "it is gone"
        return
    winners = Counter(claim.before for claim in claims)
    if winners[State.PENDING] != 1:
        yield f"{winners[State.PENDING]} won the decision"
    yield from (f"{count} won the step from {at}" for at, count in winners.items() if count > 1)
    steps = {claim.before: claim.after for claim in claims}
    at = State.PENDING
    while at in steps:
        at = steps.pop(at)
    if at is not stored.state:
        yield f"its winners left it {at} and it is stored as {stored.state}"
    if stored.version != len(claims) + 1:
        yield f"{stored.version - 1} steps are stored and {len(claims)} were won"
    started = winners[State.APPROVED] and any(claim.after is State.RUNNING for claim in claims)
    if runs != int(bool(started)):
        yield f"it ran {runs} times and was {'' if started else 'not '}started"
    spoke = any(claim.before is State.PENDING and claim.after in _SPOKEN for claim in claims)
    if len(stored.decisions) != int(spoke):
        yield f"{len(stored.decisions)} decisions are stored"


@dataclass(slots=True)
class Report:
    """Counts of all races; a broken promise is a sentence with its request and the seed."""

    seed: int
    races: int = 0
    winners: Counter[str] = field(default_factory=Counter)
    followers: Counter[str] = field(default_factory=Counter)
    by_racer: Counter[int] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    executions: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    def raced(self, name: str, stored: Request | None, claims: Sequence[Claim], runs: int) -> None:
        """Count a race, and note what is wrong with it."""
        self.races += 1
        self.executions += runs
        for claim in claims:
            if claim.before is State.PENDING:
                self.winners[claim.after.value] += 1
                self.by_racer[claim.racer] += 1
            elif claim.before is State.APPROVED:
                self.followers[claim.after.value] += 1
        wrong = [
            f"seed {self.seed}, request {name}: {what}" for what in judge(stored, claims, runs)
        ]
        self.violations.extend(wrong[: MAX_VIOLATIONS - len(self.violations)])

    def lines(self) -> list[str]:
        """Return the report as text."""
        by_racer = ", ".join(f"{self.by_racer[racer]}" for racer in sorted(self.by_racer))
        return [
            f"{self.races} races in {self.seconds:.1f} s, seed {self.seed}",
            f"won by: {_counted(self.winners)}; by process: {by_racer or 'none'}",
            f"approved went on to: {_counted(self.followers)}",
            f"lost: {_counted(self.lost)}",
            f"{self.executions} executions",
            f"{len(self.violations)} violations",
            *(f"  {violation}" for violation in self.violations),
        ]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "none"
