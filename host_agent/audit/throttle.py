"""One identity's flood of refusals becomes a few records and a count. Pure: time is an argument."""

from dataclasses import dataclass

PER_SECOND = 10
MAX_IDENTITIES = 4_096
OTHERS = ""
"""Whom refusals are counted for when more identities are refused at once than are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """How many refusals of one identity were counted instead of recorded."""

    identity: str
    count: int


@dataclass(slots=True)
class _Window:
    since: float
    seen: int = 0
    suppressed: int = 0


class RefusalThrottle:
    """Says which refusals are recorded: the first ten of an identity in each second.

    Every refusal is either admitted or in exactly one count that `admit` or `due` returns, so none
    is lost. Memory is bounded by `max_identities`.
    """

    def __init__(
        self, *, per_second: int = PER_SECOND, max_identities: int = MAX_IDENTITIES
    ) -> None:
        self._per_second = per_second
        self._max_identities = max_identities
        self._windows: dict[str, _Window] = {}

    def admit(self, identity: str, monotonic: float) -> int | None:
        """Return None where this refusal is only counted, else how many were counted before it.

        Where that is not 0, the record says so in `suppressed`.
        """
        window = self._window(identity, monotonic)
        if monotonic - window.since >= 1.0:
            window.since, window.seen = monotonic, 0
        if window.seen >= self._per_second:
            window.suppressed += 1
            return None
        window.seen += 1
        counted, window.suppressed = window.suppressed, 0
        return counted

    def due(self, monotonic: float, *, everything: bool = False) -> list[Suppressed]:
        """Return the counts whose second is over, each once; with `everything`, all of them.

        To be asked about once a second, and with `everything` before the log is closed. Each count
        is written as one record with `suppressed`.
        """
        over = [
            (identity, window)
            for identity, window in self._windows.items()
            if everything or monotonic - window.since >= 1.0
        ]
        for identity, _ in over:
            del self._windows[identity]
        return [
            Suppressed(identity=identity, count=window.suppressed)
            for identity, window in over
            if window.suppressed
        ]

    def _window(self, identity: str, monotonic: float) -> _Window:
        window = self._windows.get(identity)
        if window is None and len(self._windows) >= self._max_identities:
            identity = OTHERS
            window = self._windows.get(identity)
        if window is None:
            window = self._windows[identity] = _Window(since=monotonic)
        return window
