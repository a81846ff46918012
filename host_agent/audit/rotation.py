"""Names of finished audit files, the newest record in a file, and which files may go.

A finished file is `NAME-YYYYMMDDTHHMMSSffffffZ.SUFFIX` beside the live one: the UTC instant at
which it was finished, so names sort as the chain runs.
"""

import errno
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from host_agent.audit.record import MAX_RECORD_BYTES, NotARecordError, Record, read

logger = logging.getLogger(__name__)

MAX_TAIL_BYTES = 1_048_576
"""How far back from a file's end a record is looked for: torn writes are far shorter."""

_STAMP = "%Y%m%dT%H%M%S%fZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """The end of a file: its newest record and what lies behind it.

    `end` is the offset behind the record, its newline not counted; `owes_newline` is true where
    the record lacks only that. `rest` is what a torn write left after the record's newline.
    """

    record: Record | None
    end: int
    owes_newline: bool
    rest: bytes


def read_tail(descriptor: int) -> Tail:
    """Return the tail of the open file, reading no more than `MAX_TAIL_BYTES` of it.

    Raises:
        OSError: the file cannot be read.
    """
    size = os.fstat(descriptor).st_size
    data, start, wanted = b"", size, MAX_RECORD_BYTES
    while True:
        begin = max(0, size - wanted)
        data = _read_range(descriptor, begin, start) + data
        start = begin
        tail = _find(data, start)
        if tail is not None:
            return tail
        if start == 0 or wanted >= MAX_TAIL_BYTES:
            return Tail(record=None, end=0, owes_newline=False, rest=data)
        wanted = min(4 * wanted, MAX_TAIL_BYTES)


def _find(data: bytes, start: int) -> Tail | None:
    end = len(data)
    while end > 0:
        newline = data.rfind(b"\n", 0, end)
        if newline < 0 and start > 0:
            return None  # the line begins before what was read
        record = _record(data[newline + 1 : end])
        if record is not None:
            return Tail(
                record=record,
                end=start + end,
                owes_newline=end == len(data),
                rest=data[end + 1 :],
            )
        end = newline
    return None


def has_whole_object(rest: bytes) -> bool:
    """Return whether an ended line in `rest` is a whole JSON object: no torn write leaves one."""
    for line in rest.split(b"\n")[:-1]:
        try:
            read(line)
        except NotARecordError as error:
            if not error.is_cut:
                return True
        else:
            return True
    return False


def _record(line: bytes) -> Record | None:
    try:
        return read(line)
    except NotARecordError:
        return None


def _read_range(descriptor: int, begin: int, end: int) -> bytes:
    pieces = []
    while begin < end:
        piece = os.pread(descriptor, end - begin, begin)
        if not piece:
            break
        pieces.append(piece)
        begin += len(piece)
    return b"".join(pieces)


def newest_record(path: Path) -> Record | None:
    """Return the newest record of the regular file at `path`; None where there is none."""
    try:
        return _newest(path)
    except OSError:
        return None


def _newest(path: Path) -> Record | None:
    """Return the newest record; None for what is no regular file, is gone, or has none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ELOOP, errno.ENXIO}:
            return None
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        return read_tail(descriptor).record
    finally:
        os.close(descriptor)


def finished_name(live: Path, time: str) -> Path:
    """Return a free name for the file that is finished at `time` (RFC 3339, UTC)."""
    instant = datetime.fromisoformat(time)
    while True:
        name = live.with_name(f"{live.stem}-{instant.strftime(_STAMP)}{live.suffix}")
        if not os.path.lexists(name):
            return name
        instant += timedelta(microseconds=1)


def finished(live: Path) -> Iterator[tuple[datetime, Path]]:
    """Yield the finished files beside `live` with their instants, oldest first."""
    pattern = re.compile(re.escape(live.stem) + r"-([0-9]{8}T[0-9]{12}Z)" + re.escape(live.suffix))
    for path in sorted(live.parent.iterdir()):
        match = pattern.fullmatch(path.name)
        if match is None:
            continue
        try:
            instant = datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC)
        except ValueError:
            continue
        yield instant, path


def predecessor(live: Path) -> Record | None:
    """Return the newest record beside `live`, in a file that we or logrotate finished.

    Asked for when the live file has none. logrotate's names are `NAME.SUFFIX.1` and
    `NAME.SUFFIX-20261120`; compressed files hold nothing readable and are passed over.

    Raises:
        OSError: one of them cannot be read, and the chain may go on from it.
    """
    prefixes = (f"{live.stem}-", f"{live.name}.", f"{live.name}-")
    records = (_newest(path) for path in live.parent.iterdir() if path.name.startswith(prefixes))
    return max(
        (record for record in records if record is not None),
        key=lambda record: record.sequence,
        default=None,
    )


def remove_old(live: Path, *, retain: timedelta, time: str) -> list[Path]:
    """Remove finished files, oldest first, whose newest record is over `retain` old at `time`.

    It stops at the first that stays, so the files that remain have no gap. A file whose age cannot
    be read stays. Returns what was removed.
    """
    oldest_kept = datetime.fromisoformat(time) - retain
    removed = []
    for instant, path in finished(live):
        record = newest_record(path)
        if instant >= oldest_kept or record is None or not _is_before(record, oldest_kept):
            break
        try:
            path.unlink()
        except OSError as error:
            logger.warning("audit: %s is past its retention and stays: %s", path, error.strerror)
            break
        removed.append(path)
    return removed


def _is_before(record: Record, instant: datetime) -> bool:
    try:
        return datetime.fromisoformat(str(record.members["time"])) < instant
    except (ValueError, TypeError):
        return False
