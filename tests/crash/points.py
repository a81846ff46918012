"""Where the agent can be told to kill itself, and the fuse that does it at the n-th passing."""

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

STEPS = (
    "insert",
    "voice",
    "approved",
    "denied",
    "cancelled",
    "expired",
    "running",
    "succeeded",
    "unknown",
)
EVENTS = ("held", "attached", "decided", "cancelled", "expired", "started", "finished", "unknown")
RUNS = ("inspect", "read", "change", "probe")


def _each(prefix: str, names: Iterable[str], moments: Iterable[str]) -> tuple[str, ...]:
    moments = tuple(moments)
    return tuple(f"{prefix}.{name}.{moment}" for name in names for moment in moments)


TORN = "audit.write.torn"
"""In the middle of a write to the audit file: a part of the bytes is there, and no newline."""

POINTS: tuple[str, ...] = (
    *_each("store", STEPS, ("before", "after")),
    "store.commit.before",  # in the transaction, all of its units done
    "store.commit.after",  # committed, and nobody told yet
    *_each("audit", EVENTS, ("before", "after")),
    TORN,
    "audit.write.whole",  # written, not synced, and nobody told yet
    "audit.rotate.aside",  # the full file is renamed, the next one is not there yet
    "audit.rotate.created",
    *_each("run", RUNS, ("before", "spawned", "after")),
    "recover.before",
    "recover.listed",  # what lives is read, nothing is brought to rights yet
    "recover.after",  # everything is, and nothing is served yet
)
"""Every named point. What the names mean is in docs/explanation/crash-testing.md."""


@dataclass(slots=True)
class Fuse:
    """Kills this process when `point` is reached for the `hits`-th time; never if it is None."""

    point: str | None
    hits: int
    part: float
    """How much of a torn write is written: above 0, below 1."""
    say: Callable[[str], None]

    def reach(self, point: str) -> None:
        """Say that `point` is reached. Does not return if it is the one."""
        if self.is_due(point):
            self.blow()

    def is_due(self, point: str) -> bool:
        """Count one passing of `point`; return whether it is the one to die at."""
        if point != self.point:
            return False
        self.hits -= 1
        return self.hits == 0

    def blow(self) -> None:
        """Die here: no handler runs, no buffer is flushed, nothing is closed."""
        self.say(str(self.point))
        os.kill(os.getpid(), signal.SIGKILL)
