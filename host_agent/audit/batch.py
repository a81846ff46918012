"""One write to the audit file: which lines, where each ends, and what became of them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from host_agent.audit.record import Link, link
from host_agent.canonical import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of one batch: for each of its records a sequence, or why it was not written.

    `error` is what stopped the file, or None where all is well.
    """

    results: Sequence[int | Exception]
    head: Link
    error: OSError | None


class Plan:
    """One write: lines in order, where each ends, and the links after them."""

    def __init__(self, prefix: bytes, head: Link) -> None:
        self._pieces = [prefix]
        self._length = len(prefix)
        self._head = head
        self._data: bytes | None = None
        self.links: list[Link] = []
        self.ends: list[int] = []  # offsets in `data` behind each line, its newline not counted
        self.results: list[int | Exception] = []

    def add(self, members: Mapping[str, JsonValue]) -> None:
        """Link one record; one that has no canonical form fails alone."""
        try:
            line, self._head = link(members, self._head)
        except (ValueError, RecursionError) as error:
            self.results.append(error)
            return
        self._pieces.append(line + b"\n")
        self._length += len(line) + 1
        self.links.append(self._head)
        self.ends.append(self._length - 1)
        self.results.append(self._head.sequence)

    def data(self) -> bytes:
        if self._data is None:
            self._data = b"".join(self._pieces)
        return self._data

    def complete(self, written: int) -> int:
        """Return how many lines are whole in the first `written` bytes."""
        return sum(end <= written for end in self.ends)

    def results_after(self, done: int, error: OSError) -> list[int | Exception]:
        """Return the results with those beyond the first `done` lines replaced by `error`."""
        last = self.links[done - 1].sequence if done else 0
        return [
            error if isinstance(result, int) and result > last else result
            for result in self.results
        ]
