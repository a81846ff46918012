"""The agent's clock: aware UTC that never runs backwards while the agent lives or across restarts.

Expiry must survive a clock that is set back (an expired request must not revive) and one that is
set forward (nothing may be accepted late). So `now` follows the wall clock forward, and the
monotonic clock when the wall clock falls behind it.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

JUMP_SECONDS = 5.0
"""A difference between wall and monotonic time that is worth an audit record."""


class Clock(Protocol):
    """What the pipeline asks for the time."""

    def now(self) -> datetime:
        """Return the present as aware UTC; never earlier than a value returned before."""
        ...

    def wall(self) -> datetime:
        """Return the host's wall clock as it is: what certificates and lists are held to."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that only runs forward."""
        ...


class SystemClock:
    """The host's clocks, held together.

    `floor` is the newest time known from before (the store's newest timestamp).
    """

    def __init__(
        self,
        *,
        floor: datetime | None = None,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        start = wall()
        self._base_wall = max(start, floor.timestamp()) if floor is not None else start
        self._base_monotonic = monotonic()
        self._seen_wall = start
        self._seen_monotonic = self._base_monotonic

    def raise_floor(self, floor: datetime) -> None:
        """Make sure that `now` is not earlier than `floor`."""
        if floor.timestamp() > self.now().timestamp():
            self._base_wall = floor.timestamp()
            self._base_monotonic = self._monotonic()

    def now(self) -> datetime:
        """Return the present as aware UTC; never earlier than a value returned before."""
        monotonic = self._monotonic()
        held = self._base_wall + (monotonic - self._base_monotonic)
        present = max(self._wall(), held)
        if present > held:
            self._base_wall = present
            self._base_monotonic = monotonic
        return datetime.fromtimestamp(present, UTC)

    def wall(self) -> datetime:
        """Return the host's wall clock as it is.

        Certificates and revocation lists are held to it: a clock that was once in the future, and
        is right again, must not keep everybody out.
        """
        return datetime.fromtimestamp(self._wall(), UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that only runs forward."""
        return self._monotonic()

    def jump(self) -> timedelta | None:
        """Return how far the wall clock was set since the last call, or None under 5 seconds."""
        wall, monotonic = self._wall(), self._monotonic()
        moved = (wall - self._seen_wall) - (monotonic - self._seen_monotonic)
        self._seen_wall, self._seen_monotonic = wall, monotonic
        return timedelta(seconds=moved) if abs(moved) >= JUMP_SECONDS else None


def rfc3339(instant: datetime) -> str:
    """Return `instant` as RFC 3339 in UTC with microseconds and `Z`."""
    return f"{instant.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='microseconds')}Z"


def span(seconds: float) -> str:
    """Return a span of time in the one unit that matters, rounded down: `12 days`."""
    whole = max(int(seconds), 0)
    for unit, length in (("day", 86_400), ("h", 3_600), ("min", 60)):
        if whole >= length:
            count = whole // length
            return f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return f"{whole} s"
