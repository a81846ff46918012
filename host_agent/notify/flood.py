"""What keeps a stranger who writes without end from filling the log, or from being answered.

Anybody may write to an account of the agent's, as often as they like.
"""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable

MAX_ANSWERS_EACH = 20
"""Answers to one person within a minute: services count what an account sends."""
MAX_PEOPLE = 1_000
MINUTE_SECONDS = 60.0


class Complaints:
    """Writes each kind of complaint into the log at most once a minute, and how often it was."""

    def __init__(
        self, log: logging.Logger, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._log = log
        self._monotonic = monotonic
        self._told: dict[str, tuple[float, int]] = {}

    def add(self, kind: str) -> None:
        """Complain; `kind` is a sentence of ours, one of few."""
        now = self._monotonic()
        told_at, unsaid = self._told.get(kind, (-MINUTE_SECONDS, 0))
        if now - told_at < MINUTE_SECONDS:
            self._told[kind] = (told_at, unsaid + 1)
            return
        self._told[kind] = (now, 0)
        self._log.warning(
            "%s%s", kind, f" ({unsaid} times more since the last word)" * bool(unsaid)
        )


class Manners:
    """Knows whom we have answered often enough for a minute."""

    def __init__(self, complaints: Complaints, monotonic: Callable[[], float]) -> None:
        self._complaints = complaints
        self._monotonic = monotonic
        self._answered: OrderedDict[str, deque[float]] = OrderedDict()

    def may_answer(self, address: str) -> bool:
        """Return whether one more answer is in place, and count it."""
        now = self._monotonic()
        times = self._answered.setdefault(address, deque())
        self._answered.move_to_end(address)
        while len(self._answered) > MAX_PEOPLE:
            self._answered.popitem(last=False)
        while times and now - times[0] >= MINUTE_SECONDS:
            times.popleft()
        if len(times) >= MAX_ANSWERS_EACH:
            self._complaints.add("somebody gets no more answers for a minute")
            return False
        times.append(now)
        return True
