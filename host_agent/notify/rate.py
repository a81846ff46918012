"""When a notification goes out: an approver is not flooded, and a failing channel is not hammered.

Kept in memory and bounded by the approvers and channels there are: after a restart an approver may
get one minute's prompts anew.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

MINUTE = timedelta(minutes=1)
LONGEST_QUEUE = timedelta(minutes=5)
"""A prompt that has to wait is looked at again after so long, however many are before it."""
FIRST_BACKOFF_SECONDS = 2.0
LONGEST_BACKOFF_SECONDS = 300.0
LONGEST_RETRY_AFTER_SECONDS = 86_400.0


@dataclass(slots=True)
class _RecentPrompts:
    sent: deque[datetime] = field(default_factory=deque)
    last_turn: datetime | None = None


class Pace:
    """Counts the prompts of the last minute for each owner and channel.

    `per_minute` is asked each time: a reload may change it.
    """

    def __init__(self, per_minute: Callable[[], int]) -> None:
        self._per_minute = per_minute
        self._lines: dict[tuple[str, str], _RecentPrompts] = {}

    def turn(self, owner: str, channel: str, now: datetime) -> datetime | None:
        """Count a prompt that is sent now and return None, or return when to ask again.

        Those that have to wait are spread over the time to come, so that few of them come back in
        vain.
        """
        limit = max(self._per_minute(), 1)
        line = self._lines.setdefault((owner, channel), _RecentPrompts())
        while line.sent and now - line.sent[0] >= MINUTE:
            line.sent.popleft()
        if len(line.sent) < limit:
            line.sent.append(now)
            return None
        free_at = line.sent[len(line.sent) - limit] + MINUTE
        behind = free_at if line.last_turn is None else line.last_turn + MINUTE / limit
        line.last_turn = min(max(free_at, behind), now + LONGEST_QUEUE)
        return line.last_turn


def backoff(
    tries: int, retry_after_seconds: float | None, uniform: Callable[[float, float], float]
) -> timedelta:
    """Return how long to wait after `tries` failed sendings.

    Exponential with full jitter (2 s to 5 min), on top of what the other side asked for.
    """
    ceiling = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(tries - 1, 30), LONGEST_BACKOFF_SECONDS)
    return asked_for(retry_after_seconds) + timedelta(seconds=uniform(0.0, ceiling))


def asked_for(retry_after_seconds: float | None) -> timedelta:
    """Return what the other side asked for, within a day; nothing where it makes no sense."""
    if retry_after_seconds is None or not math.isfinite(retry_after_seconds):
        return timedelta(0)
    return timedelta(seconds=min(max(retry_after_seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS))
