"""The audit file itself: opened, appended to, synced, repaired and rotated. Blocking; one thread.

What holds: a record counts once it is synced, and only then does the chain move; a record that
failed is not part of the chain and its sequence is used again; nothing that is in a file is ever
changed or cut; a file whose sync failed is never written again.
"""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from host_agent.audit.batch import Plan, Written
from host_agent.audit.record import ORIGIN, Event, Members, build, digest_of
from host_agent.audit.rotation import (
    MAX_TAIL_BYTES,
    has_whole_object,
    read_tail,
)
from host_agent.audit.storage import OwnPlace, Place, RootPlace
from host_agent.canonical import JsonValue

logger = logging.getLogger(__name__)

_GONE = frozenset({"unlinked", "moved", "replaced"})
"""Why the path is not the open file's any more."""
_ATTEMPTS = 3
"""How often one batch is written anew because its file went away under it."""


class AuditFileError(Exception):
    """The file at the configured path cannot be the audit log; the message says why."""


@dataclass(slots=True)
class _Header:
    """A record of the file's own that goes in front of the next batch."""

    event: Event
    members: dict[str, JsonValue]


class AuditFile:
    """The live file of one chain.

    Not thread-safe: `log.AuditLog` calls it from its one writer thread.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        retain_days: int,
        fsync: Callable[[int], None] = os.fdatasync,
        rotate: Callable[[], str] | None = None,
    ) -> None:
        self._path = path
        self._is_kept_by_root = rotate is not None
        self._place: Place = OwnPlace(path) if rotate is None else RootPlace(path, rotate)
        self._max_bytes = max_bytes
        self._retain = timedelta(days=retain_days)
        self._fsync = fsync
        self._lock: int | None = None
        self._descriptor: int | None = None
        self.head = ORIGIN
        self.newest_time: str | None = None
        self._end = 0  # offset behind the newest record that counts, with its newline if it has one
        self._owes_newline = False
        self._rest = b""  # what a torn write left behind `_end`
        self._size = 0
        self._is_ours = False  # created by this process
        self._is_unsealed = False  # found at the start without the attribute that it could have
        self._must_leave: str | None = None  # why this file is not written any more
        self._headers: list[_Header] = []
        self._has_failed = False
        self._lost = 0
        self._has_warned = False

    # -- opening --------------------------------------------------------------------------------

    def open(self) -> None:
        """Lock the path, read the tail of the newest file and be ready to continue its chain.

        Raises:
            AuditFileError: another agent writes here, or what lies there is no audit log.
            OSError: the directory or the file cannot be used.
        """
        try:
            self._take_lock()
            self._open_live()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file and give up the lock. What was not synced is not written."""
        self._close_live()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        self._lock = self._place.open_lock()
        self._exclude_others(self._lock)

    def _exclude_others(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"another agent writes {self._path}; two never write one chain"
            raise AuditFileError(message) from error

    def _open_live(self) -> None:
        try:
            descriptor = self._place.open()
        except FileNotFoundError:
            self._follow_predecessor()
            self._create()
            return
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                message = f"{self._path} is not a regular file"
                raise AuditFileError(message) from error
            raise
        self._descriptor = descriptor
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            message = f"{self._path} is not a regular file"
            raise AuditFileError(message)
        self._exclude_others(descriptor)
        self._continue(descriptor)

    def _continue(self, descriptor: int) -> None:
        tail = read_tail(descriptor)
        self._size = os.fstat(descriptor).st_size
        self._rest = tail.rest
        if tail.record is None:
            self._check_beginning(tail.rest)
            self._follow_predecessor()
            if tail.rest:
                self._headers = []  # `audit.recovered` links instead
            return
        self.head = tail.record.link
        self.newest_time = str(tail.record.members["time"])
        self._owes_newline = tail.owes_newline
        self._end = tail.end + (not tail.owes_newline)
        self._is_unsealed = self._place.is_unsealed(descriptor)
        if has_whole_object(tail.rest):
            # No crash leaves a whole line with a wrong hash: it stays as it is, for the verifier.
            self._must_leave = "damaged"

    def _check_beginning(self, data: bytes) -> None:
        """Take a file without any record only where it is empty or a torn first line."""
        is_torn = data.startswith(b'{"') and not has_whole_object(data)
        if data and (not is_torn or self._size > MAX_TAIL_BYTES):
            if self._is_kept_by_root:  # nobody else can put it out of the way
                self._must_leave = "damaged"
                return
            message = (
                f"{self._path} holds data and no audit record at its end; "
                "keep it under another name, then start again"
            )
            raise AuditFileError(message)

    def _follow_predecessor(self) -> None:
        before = self._place.predecessor()
        if before is None:
            return
        self.head = before.link
        self.newest_time = str(before.members["time"])
        self._headers = [_Header(Event.AUDIT_ROTATED, {"cause": "restarted"})]

    # -- writing --------------------------------------------------------------------------------

    def write(self, batch: Sequence[Members], *, time: str) -> Written:
        """Append `batch` in order, synced when this returns, and say what became of each.

        `time` is the instant for records of the file's own. An empty batch looks after the file
        only: it follows a rename, and ends a failure that is over.
        """
        stale = _stale()
        error: OSError | None = stale
        results: Sequence[int | Exception] = [stale] * len(batch)
        for _ in range(_ATTEMPTS):
            try:
                self._settle(time)
                results, error = self._append(batch, time)
            except _FileGoneError:
                continue
            except OSError as failure:
                results, error = [failure] * len(batch), failure
            break
        if error is not None:
            self._has_failed = True
            self._lost += sum(isinstance(result, OSError) for result in results)
        return Written(results=results, head=self.head, error=error)

    def _append(
        self, batch: Sequence[Members], time: str
    ) -> tuple[Sequence[int | Exception], OSError | None]:
        prefix, headers = self._preface()
        plan = Plan(prefix, self.head)
        for header in headers:
            plan.add(build(header.event, time, header.members))
        own = len(headers)
        for members in batch:
            plan.add(members)
        begin = self._size
        written, error = self._put(plan.data())
        self._sync(plan, written)
        kept = self._kept(plan, begin, written)
        if kept < written:
            written, error = kept, _stale()
        done = plan.complete(written)
        self._advance(plan, done, written)
        self._headers = self._headers[done:]
        if done:
            self.newest_time = time
        if headers and done >= own:
            self._has_failed, self._lost = False, 0
        return (plan.results if error is None else plan.results_after(done, error))[own:], error

    def _preface(self) -> tuple[bytes, list[_Header]]:
        """Return what ends a torn or unended line, and the records that go before the batch."""
        headers = list(self._headers)
        rest = self._rest.removesuffix(b"\n")
        if rest or self._has_failed:
            members: dict[str, JsonValue] = {
                "cause": "write-failed" if self._has_failed else "torn",
                "length": len(rest),
                "sha256": digest_of(rest),
            }
            if self._lost:
                members["lost"] = self._lost
            headers.append(_Header(Event.AUDIT_RECOVERED, members))
        is_open = self._owes_newline or (self._rest and not self._rest.endswith(b"\n"))
        return (b"\n" if is_open else b""), headers

    def _put(self, data: bytes) -> tuple[int, OSError | None]:
        """Write all of `data`, or say how much of it there is and what stopped it."""
        descriptor = self._opened()
        written = 0
        view = memoryview(data)
        while written < len(data):
            try:
                count = os.write(descriptor, view[written:])
            except OSError as error:
                return written, error
            if count == 0:
                return written, OSError(errno.EIO, "the file takes no bytes")
            written += count
            self._size += count
        return written, None

    def _sync(self, plan: Plan, written: int) -> None:
        if not written:
            return
        descriptor = self._opened()
        try:
            self._fsync(descriptor)
        except OSError:
            # The kernel may have dropped the pages and forgotten the error: a second sync that
            # succeeds proves nothing (fsync(2), "fsyncgate"). This file is never written again.
            self._note_rest(plan, written)
            self._must_leave = "sync-failed"
            raise

    def _kept(self, plan: Plan, begin: int, written: int) -> int:
        """Return how much of what was written and synced stands where the log goes on from."""
        descriptor = self._opened()
        try:
            kept = self._place.kept(descriptor, begin, plan.data()[:written]) if written else None
        except OSError:
            self._note_rest(plan, written)
            self._must_leave = "sync-failed"
            raise
        if kept is None:
            return written
        self._must_leave = "replaced" if os.fstat(descriptor).st_nlink else "unlinked"
        self._size = begin + kept
        if kept < written and not plan.complete(kept):
            self._note_rest(plan, kept)
            raise _FileGoneError
        return kept

    def _note_rest(self, plan: Plan, written: int) -> None:
        data = plan.data()[:written]
        if self._owes_newline and data:
            self._end += 1
            self._owes_newline = False
            data = data[1:]
        self._rest += data

    def _advance(self, plan: Plan, done: int, written: int) -> None:
        """Move the chain over the `done` records that are whole and synced."""
        if not done:
            self._note_rest(plan, written)
            return
        self.head = plan.links[done - 1]
        end = plan.ends[done - 1]
        self._owes_newline = written == end
        self._rest = plan.data()[end + 1 : written]
        self._end = self._size - len(self._rest)

    # -- following and leaving the file ------------------------------------------------------------

    def _settle(self, time: str) -> None:
        """Make sure that the descriptor is the file at the path, and that it may be written."""
        if self._descriptor is None:
            self._create()
        why = self._why_gone()
        self._must_leave = self._must_leave or why
        if self._must_leave is None and self._rest and self._is_worthless:
            self._must_leave = "write-failed"
        if self._must_leave is not None:
            self._leave(self._must_leave, time, is_there=why not in _GONE)
            return
        full = self._why_full(time)
        if full is not None and not self._rest:
            self._rotate(full, time)

    @property
    def _is_worthless(self) -> bool:
        """Whether this process made the file and no record in it counts."""
        return self._is_ours and self._end == 0

    def _why_gone(self) -> str | None:
        held = os.fstat(self._opened())
        if held.st_nlink == 0:
            return "unlinked"
        try:
            there = self._place.look()
        except FileNotFoundError:
            return "moved"
        if (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            return "replaced"
        return None if held.st_size == self._size else "altered"

    def _why_full(self, time: str) -> str | None:
        if self._size >= self._max_bytes:
            return "size"
        if self._is_unsealed:
            return "unsealed"
        is_new_day = self.newest_time is not None and self.newest_time[:10] != time[:10]
        return "day" if is_new_day and self._end > 0 else None

    def _rotate(self, cause: str, time: str) -> None:
        """Go on in a new file, or in this one where the directory will not have it."""
        self._is_unsealed = False  # tried once: a file system may not take the attribute at all
        try:
            self._leave(cause, time)
        except _CannotLeaveError as error:
            if not self._has_warned:
                logger.warning("audit: %s is due for rotation and stays: %s", self._path, error)
                self._has_warned = True
            return
        self._has_warned = False
        for path in self._place.remove_old(retain=self._retain, at=time):
            logger.info("audit: removed %s, past its retention", path)

    def _leave(self, cause: str, time: str, *, is_there: bool = True) -> None:
        """Put the file aside under a finished name and create the next one.

        The first record of the next one links to the last that counts here. Where a failed write or
        sync left more bytes than that here, it has their length and hash.
        """
        members: dict[str, JsonValue] = {"cause": cause}
        if self._rest and cause not in {"altered", "damaged"}:
            rest = self._rest.removesuffix(b"\n")
            members |= {"length": len(rest), "sha256": digest_of(rest)}
        name = self._put_aside(cause, time) if is_there else None
        if name is not None:
            members["file"] = name
        has_nothing = self._end == 0 and not self._rest and bool(self._headers)
        if not (self._is_worthless or has_nothing):  # else it is as if it had never been made
            self._headers = [_Header(Event.AUDIT_ROTATED, members)]
        self._close_live()
        self._must_leave = None
        self._create()

    def _put_aside(self, cause: str, time: str) -> str | None:
        """Take the file off its path and return its name now; None where somebody else did."""
        try:
            if self._is_worthless and cause in {"sync-failed", "write-failed"}:
                self._path.unlink()
                return ""
            return self._place.put_aside(time)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _CannotLeaveError(error.errno, error.strerror) from error

    def _create(self) -> None:
        self._descriptor, self._is_ours = self._place.create()
        self._end, self._size, self._rest, self._owes_newline = 0, 0, b"", False

    def _opened(self) -> int:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the audit file is not open")
        return self._descriptor

    def _close_live(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)


def _stale() -> OSError:
    return OSError(errno.ESTALE, "the file goes away as often as it is made")


class _FileGoneError(Exception):
    """The file was unlinked while the batch was written: the batch goes to a new one."""


class _CannotLeaveError(OSError):
    """The file cannot be put aside."""
