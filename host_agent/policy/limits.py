"""Rates per identity: token buckets, one for asking and one for deciding.

A bucket holds at most its burst and fills evenly, so no stretch of time lets more through than the
burst and what the rate adds in it. Pure but for the levels: `now` is the monotonic clock's.
"""

from collections import OrderedDict
from dataclasses import dataclass

from host_agent.config import LimitsSection as LimitsSection
from host_agent.errors import RateLimitedError

MAX_BUCKETS = 100_000
"""Identities whose levels are kept. Only registered ones get here, so the configuration bounds them
too; the one that was idle longest is forgotten first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast a bucket fills, and how much it holds."""

    per_second: float
    burst: int


class TokenBucket:
    """One identity's allowance. Begins full."""

    __slots__ = ("_level", "_seen")

    def __init__(self, rate: Rate, now: float) -> None:
        self._level = float(rate.burst)
        self._seen = now

    def take(self, rate: Rate, now: float) -> float:
        """Take one token and return 0, or return the seconds until there is one.

        A refused attempt costs nothing. `rate` may differ from call to call: the level stays, and
        is cut to a smaller burst. An instant before the last one adds nothing.
        """
        filled = self._level + max(0.0, now - self._seen) * rate.per_second
        self._level = min(float(rate.burst), filled)
        self._seen = max(self._seen, now)
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / rate.per_second


class _Buckets:
    """The buckets of one kind, by common name; the least recently used one is at the front."""

    def __init__(self, rate: Rate, *, max_buckets: int) -> None:
        self.rate = rate
        self._max = max_buckets
        self._by_cn: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_cn)

    def take(self, cn: str, now: float) -> float:
        bucket = self._by_cn.get(cn)
        if bucket is None:
            bucket = self._by_cn[cn] = TokenBucket(self.rate, now)
            if len(self._by_cn) > self._max:
                self._by_cn.popitem(last=False)
        else:
            self._by_cn.move_to_end(cn)
        return bucket.take(self.rate, now)


class Limits:
    """The `[limits]` of all identities. One identity's asks never use up another's allowance."""

    def __init__(self, section: LimitsSection, *, max_buckets: int = MAX_BUCKETS) -> None:
        self._asks = _Buckets(_ask_rate(section), max_buckets=max_buckets)
        self._decisions = _Buckets(_decision_rate(section), max_buckets=max_buckets)

    def __len__(self) -> int:
        return len(self._asks) + len(self._decisions)

    def reconfigure(self, section: LimitsSection) -> None:
        """Take other rates; the levels stay, so a reload is no fresh burst."""
        self._asks.rate = _ask_rate(section)
        self._decisions.rate = _decision_rate(section)

    def ask(self, cn: str, now: float) -> None:
        """Count one ask of `cn` at the monotonic instant `now`.

        Raises:
            RateLimitedError: its bucket is empty; `retry_after_seconds` says until when.
        """
        _refuse(self._asks.take(cn, now), "asks")

    def decision(self, cn: str, now: float) -> None:
        """Count one decision of `cn` at the monotonic instant `now`.

        Raises:
            RateLimitedError: its bucket is empty; `retry_after_seconds` says until when.
        """
        _refuse(self._decisions.take(cn, now), "decisions")


def _ask_rate(section: LimitsSection) -> Rate:
    return Rate(per_second=section.asks_per_second, burst=section.ask_burst)


def _decision_rate(section: LimitsSection) -> Rate:
    return Rate(per_second=section.decisions_per_second, burst=section.decision_burst)


def _refuse(wait: float, what: str) -> None:
    if wait > 0.0:
        message = f"Too many {what} from this identity; send the next one after a pause."
        raise RateLimitedError(message, retry_after_seconds=wait)
