"""What a stand-in for one adapter's wrappers is: verbs and arguments in, what they print out."""

import hashlib
from collections.abc import Iterable
from typing import NoReturn, Protocol

MISSING, CHANGED, REFUSED = 66, 75, 77
"""Exit statuses of the wrappers (docs/reference/wrappers.md)."""


class EndedError(Exception):
    """The wrapper, or its tool, ended with `status` and `stderr`. Nothing has changed."""

    def __init__(self, status: int, stderr: str) -> None:
        super().__init__(stderr)
        self.status = status
        self.stderr = stderr


class StandIn(Protocol):
    """One adapter's part of a host in memory."""

    def answer(self, verb: str, arguments: tuple[str, ...]) -> str:
        """Return what the wrapper of `verb` prints; a change has been made by then.

        Raises:
            EndedError: it refuses or fails.
        """
        ...


def die(status: int, sentence: str) -> NoReturn:
    """End as a wrapper does that refuses.

    Raises:
        EndedError: always.
    """
    raise EndedError(status, f"host-agent: {sentence}\n")


def unknown() -> EndedError:
    """Return how a wrapper ends that does not know its arguments."""
    return EndedError(64, "host-agent: the simulated host does not know this\n")


def tabbed(rows: Iterable[Iterable[object]]) -> str:
    """Return a line for each row, its values between tabs."""
    return "".join("\t".join(str(value) for value in row) + "\n" for row in rows)


def hashed(text: str) -> str:
    """Return the SHA-256 of `text` in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def number(name: str, digits: int) -> int:
    """Return a number that is made of `name` alone: the same in every simulation."""
    least: int = 10 ** (digits - 1)
    return least + int(hashed(name), 16) % least


def require_same(held: str, now: str) -> None:
    """Refuse a change that was approved for another state.

    Raises:
        EndedError: `held` is not `now`.
    """
    if held != now:
        die(CHANGED, "it is not as it was when it was approved")
