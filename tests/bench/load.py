"""Closed loops: so many in flight, each one begun when the one before it has ended."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

Act = Callable[[], object]
"""One whole run or exchange; raises where it did not go as it must."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a loop did: its duration, and how long each act took, in seconds, shortest first."""

    seconds: float
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Return acts a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """Return the latency that `share` of the acts did not exceed, in seconds."""
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


def closed_loop(acts: Sequence[Act], seconds: float) -> Load:
    """Run each of `acts` again and again in a thread of its own for `seconds`.

    Raises:
        Exception: the first that an act raised.
    """
    latencies: list[list[float]] = [[] for _ in acts]
    errors: list[Exception] = []
    start = threading.Barrier(len(acts) + 1)

    def work(act: Act, taken: list[float]) -> None:
        start.wait()
        begun = time.perf_counter()
        end = begun + seconds
        while begun < end and not errors:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
                errors.append(error)
                return
            now = time.perf_counter()
            taken.append(now - begun)
            begun = now

    threads = [
        threading.Thread(target=work, args=pair) for pair in zip(acts, latencies, strict=True)
    ]
    for thread in threads:
        thread.start()
    start.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    took = time.perf_counter() - begun
    return Load(seconds=took, latencies=sorted(one for taken in latencies for one in taken))


def alternate(acts: Sequence[Act], times: int) -> list[float]:
    """Run each of `acts` in turn, alone, `times` times; return the median of each, in seconds."""
    taken: list[list[float]] = [[] for _ in acts]
    for _ in range(times):
        for act, latencies in zip(acts, taken, strict=True):
            begun = time.perf_counter()
            act()
            latencies.append(time.perf_counter() - begun)
    return [median(latencies) for latencies in taken]
