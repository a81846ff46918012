"""Audit chains for tests: made in memory or through the log, with a clock that the test holds."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from host_agent.audit.log import AuditLog
from host_agent.audit.record import ORIGIN, Event, Link, build, link, read

NOW = datetime(2026, 11, 20, 22, 0, tzinfo=UTC)


class HeldClock:
    """A clock that moves only when the test says so."""

    def __init__(self, instant: datetime = NOW) -> None:
        self.instant = instant

    def now(self) -> datetime:
        return self.instant

    def wall(self) -> datetime:
        return self.instant

    def monotonic(self) -> float:
        return self.instant.timestamp()

    def advance(self, **span: float) -> None:
        self.instant += timedelta(**span)


def lines(count: int, after: Link = ORIGIN) -> tuple[list[bytes], Link]:
    """Return `count` linked lines without newlines, and the link behind them."""
    made = []
    for number in range(count):
        members = build(
            Event.OPERATION_STARTED,
            "2026-11-20T22:00:00.000000Z",
            {"caller": "librarian", "operation": "git.status", "params": {"number": number}},
        )
        line, after = link(members, after)
        made.append(line)
    return made, after


def joined(made: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in made)


@contextlib.asynccontextmanager
async def opened(
    path: Path,
    *,
    clock: HeldClock | None = None,
    max_bytes: int = 10**8,
    retain_days: int = 90,
    **others: Any,
) -> AsyncIterator[AuditLog]:
    """An open log at `path`."""
    log = AuditLog(
        path,
        max_bytes=max_bytes,
        retain_days=retain_days,
        clock=clock or HeldClock(),
        **others,
    )
    await log.open()
    try:
        yield log
    finally:
        await log.close()


def events(path: Path) -> list[tuple[int, str]]:
    """Return sequence and event of each record in the file; torn lines are passed over."""
    found = []
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):
            record = read(line)
            found.append((record.sequence, str(record.members["event"])))
    return found


def first_record(path: Path) -> dict[str, Any]:
    return dict(read(path.read_bytes().split(b"\n")[0]).members)


def failing(times: int, error: OSError) -> tuple[Callable[[int], None], list[int]]:
    """Return a sync that fails the next `times` calls, and the descriptors that it was given."""
    seen: list[int] = []

    def sync(descriptor: int) -> None:
        seen.append(descriptor)
        if len(seen) <= times:
            raise error

    return sync, seen
