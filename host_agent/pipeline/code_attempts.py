"""Who guesses at codes is not listened to for a while."""

from collections import OrderedDict, deque
from datetime import timedelta

from host_agent.clock import Clock
from host_agent.errors import RateLimitedError

WRONG_CODES, WRONG_CODES_WINDOW = 5, timedelta(minutes=10)
MAX_MUTED = 10_000


class Muting:
    """Counts wrong codes by who sent them; memory is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def refuse(self, key: str) -> None:
        """Refuse who has sent too many wrong codes.

        Raises:
            RateLimitedError: five within ten minutes.
        """
        wrong = self._wrong.get(key)
        if not wrong:
            return
        oldest_that_counts = self._clock.monotonic() - WRONG_CODES_WINDOW.total_seconds()
        while wrong and wrong[0] <= oldest_that_counts:
            wrong.popleft()
        if len(wrong) >= WRONG_CODES:
            message = "Too many wrong codes; this approver is not listened to for a while."
            left = wrong[0] - oldest_that_counts
            raise RateLimitedError(message, retry_after_seconds=left)

    def count(self, key: str) -> None:
        """Count one wrong code."""
        wrong = self._wrong.setdefault(key, deque(maxlen=WRONG_CODES))
        wrong.append(self._clock.monotonic())
        self._wrong.move_to_end(key)
        while len(self._wrong) > MAX_MUTED:
            self._wrong.popitem(last=False)
