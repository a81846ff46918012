"""The newest records of a log, read backwards: what a start has to know about the life before.

A kill can fall between a step of a request and its record. A start compares what the store has with
what is here and writes down what is missing; so all that can be missing must lie in what is read.
Blocking; the chain is the verifier's, it is not looked at here.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from host_agent.audit.record import Members
from host_agent.audit.rotation import finished

WINDOW = timedelta(seconds=30)
"""How long a step can be stored before its record is written or given up, and more."""
MAX_BYTES = 16_777_216
"""No more than this is read, whatever was written in the window."""
CAUGHT_UP = "caught-up"
"""The `cause` of a record that a start writes for the life before."""

_BLOCK_BYTES = 262_144
_OWN = ("agent.", "audit.", "clock.", "config.")
"""Events of the agent itself: it may write these and die before it has caught up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """Records, newest first, from `since` on without a gap; None where there is no record."""

    since: datetime | None
    records: tuple[Members, ...]


def recent(live: Path) -> Recent:
    """Return the records from `WINDOW` before the last one that was written in service.

    What a start writes is no sign of service: one that died half-way has not caught up.

    Raises:
        OSError: a file cannot be read.
    """
    records: list[Members] = []
    since: datetime | None = None
    time: datetime | None = None
    size = 0
    for line in _lines_backwards(live):
        members = _members(line)
        if members is None:
            continue
        time = datetime.fromisoformat(str(members["time"]))
        if since is not None and time < since:
            return Recent(since=since, records=tuple(records))
        records.append(members)
        if since is None and _is_of_service(members):
            since = time - WINDOW
        size += len(line)
        if size > MAX_BYTES:
            break
    return Recent(since=time, records=tuple(records))


def _is_of_service(members: Mapping[str, object]) -> bool:
    return not str(members["event"]).startswith(_OWN) and members.get("cause") != CAUGHT_UP


def _members(line: bytes) -> Members | None:
    """Return the record in a line, or None for what a torn write left."""
    try:
        members = json.loads(line)
        datetime.fromisoformat(members["time"])
    except (ValueError, TypeError, KeyError):
        return None
    return members if "event" in members else None


def _lines_backwards(live: Path) -> Iterator[bytes]:
    """Yield the lines of the chain's files, newest first."""
    yield from _file_backwards(live)
    for _instant, path in reversed(tuple(finished(live))):
        yield from _file_backwards(path)


def _file_backwards(path: Path) -> Iterator[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    try:
        end, rest = os.fstat(descriptor).st_size, b""
        while end:
            begin = max(0, end - _BLOCK_BYTES)
            head, *lines = (os.pread(descriptor, end - begin, begin) + rest).split(b"\n")
            yield from reversed(lines)
            end, rest = begin, head
        yield rest
    finally:
        os.close(descriptor)
