"""What the callers wished for, what they were told, and what may be true after that.

A wish is one operation under a name of its own (`b-000123`), asked for until its request is known,
with one idempotency key. What the agent answered is kept as told; nothing told may turn out false.
"""

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tests.crash.place import Place

RANK = {"pending": 0, "approved": 1, "running": 2}
ENDED = 3
RAN = frozenset({"running", "succeeded", "failed", "timed_out", "unknown"})
"""States in which a wrapper may have been started."""


class Kind(StrEnum):
    """What becomes of a wish if nobody dies."""

    READ = "read"  # allowed, nothing is stored
    CHANGE = "change"  # allowed, with a durable row
    APPROVE = "approve"
    DENY = "deny"
    RACE = "race"  # one approves while the other denies
    QUORUM = "quorum"  # two approve, one after the other
    VETO = "veto"  # one approves, then the other denies
    CANCEL = "cancel"
    EXPIRE = "expire"  # nobody decides, and its time is short
    LEAVE = "leave"  # nobody decides, and it waits


VOICES: dict[Kind, tuple[tuple[str, str], ...]] = {
    Kind.APPROVE: (("alice", "approve"),),
    Kind.DENY: (("alice", "deny"),),
    Kind.RACE: (("alice", "approve"), ("erin", "deny")),
    Kind.QUORUM: (("alice", "approve"), ("erin", "approve")),
    Kind.VETO: (("erin", "approve"), ("alice", "deny")),
}
EXPECTED: dict[Kind, frozenset[str]] = {
    Kind.CHANGE: frozenset({"succeeded", "unknown"}),
    Kind.APPROVE: frozenset({"succeeded", "unknown"}),
    Kind.QUORUM: frozenset({"succeeded", "unknown"}),
    Kind.DENY: frozenset({"denied"}),
    Kind.VETO: frozenset({"denied"}),
    Kind.RACE: frozenset({"denied", "succeeded", "unknown"}),
    Kind.CANCEL: frozenset({"cancelled"}),
    Kind.EXPIRE: frozenset({"expired"}),
    Kind.LEAVE: frozenset(),
}
"""How a wish may end. Nothing here fails by itself, so `failed` is a defect."""


@dataclass(slots=True)
class Wish:
    """One wish. `state` is the newest one seen, whoever showed it."""

    number: int
    kind: Kind
    request_id: str | None = None
    digest: str = ""
    state: str = ""
    told_held: bool = False
    told_done: bool = False
    told_cancelled: bool = False
    told_voices: set[tuple[str, str]] = field(default_factory=set)
    has_attached: bool = False
    is_settled: bool = False
    """The caller knows its end; a read whose connection was lost is settled too."""

    @property
    def name(self) -> str:
        return f"b-{self.number:06}"

    @property
    def verb(self) -> str:
        match self.kind:
            case Kind.READ:
                return "log"
            case Kind.CHANGE:
                return "pull"
            case Kind.QUORUM | Kind.VETO:
                return "reset"
            case _:
                return "switch"

    @property
    def caller(self) -> str:
        # A reset does what a switch does, and one caller's pending switch would be in its way.
        return {
            Kind.CHANGE: "robot",
            Kind.READ: "robot",
            Kind.EXPIRE: "late",
            Kind.QUORUM: "keeper",
            Kind.VETO: "keeper",
        }.get(self.kind, "deployer")

    def body(self, place: Place) -> bytes:
        """Return the body of its ask: the same bytes each time."""
        params: dict[str, Any] = {"repository": place.repository(self.number)}
        match self.verb:
            case "log":
                params |= {"limit": 1, "ref": self.name}
            case "pull":
                params |= {"remote": "origin", "branch": self.name}
            case "reset":
                params["ref"] = self.name
            case _:
                params["branch"] = self.name
        return json.dumps({"operation": f"git.{self.verb}", "params": params}).encode()

    # -- what is seen -----------------------------------------------------------------------------

    def observe(self, state: str, voices: set[tuple[str, str]]) -> list[str]:
        """Take a state that the agent showed or stored; return what contradicts what was told."""
        wrong = list(self._contradictions(state, voices))
        self.state = state
        return wrong

    def _contradictions(self, state: str, voices: set[tuple[str, str]]) -> list[str]:
        wrong = []
        before, now = RANK.get(self.state, ENDED), RANK.get(state, ENDED)
        if self.state and (now < before or (before == ENDED and state != self.state)):
            wrong.append(f"was {self.state} and is {state}")
        if now == ENDED and state not in EXPECTED[self.kind]:
            wrong.append(f"ended as {state}")
        lost = self.told_voices - voices
        if lost:
            wrong.append(f"lost the decisions {sorted(lost)}")
        if (now == 0 or state == "denied") and self.is_approved(self.told_voices):
            wrong.append(f"was approved and is {state}")
        if state != "denied" and any(verb == "deny" for _, verb in self.told_voices):
            wrong.append(f"was denied and is {state}")
        if self.told_cancelled and state != "cancelled":
            wrong.append(f"was cancelled and is {state}")
        if self.told_done and state != "succeeded":
            wrong.append(f"was told as done and is {state}")
        if state in RAN and self.kind is not Kind.CHANGE and not self.is_approved(voices):
            wrong.append(f"is {state} and has only the decisions {sorted(voices)}")
        return wrong

    def is_approved(self, voices: set[tuple[str, str]]) -> bool:
        """Return whether `voices` are enough for it to run."""
        needed = 2 if self.kind in {Kind.QUORUM, Kind.VETO} else 1
        return sum(verb == "approve" for _, verb in voices) >= needed


class Ledger:
    """All wishes of one place, by their names."""

    def __init__(self) -> None:
        self.wishes: dict[str, Wish] = {}

    def wish(self, kind: Kind) -> Wish:
        """Return a new wish."""
        made = Wish(len(self.wishes) + 1, kind)
        self.wishes[made.name] = made
        return made

    @property
    def unsettled(self) -> list[Wish]:
        """Return those whose callers still want to know."""
        return [wish for wish in self.wishes.values() if not wish.is_settled]
