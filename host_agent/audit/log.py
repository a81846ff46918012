"""The audit log as the agent sees it: `append` returns when the record is on disk.

Records are linked in the order of the calls. One thread writes: it takes everything that is queued,
writes it at once, syncs once, and tells the event loop once, so that many callers share a sync. It
fails closed: where a record cannot be written, its caller is told and runs nothing.
"""

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from host_agent.audit.batch import Written
from host_agent.audit.file import AuditFile, AuditFileError
from host_agent.audit.recent import Recent, recent
from host_agent.audit.record import ORIGIN, Event, Link, Members, build
from host_agent.canonical import JsonValue
from host_agent.clock import Clock, rfc3339
from host_agent.errors import AuditUnavailableError

logger = logging.getLogger(__name__)

MAX_BATCH: Final = 512
RETRY_SECONDS: Final = 1.0
"""How often a log that failed looks whether it can write again."""


@dataclass(slots=True, eq=False)
class _Entry:
    """One record on its way. `is_abandoned`: its caller has been told that it failed."""

    members: Members
    time: str
    future: "asyncio.Future[int]"
    deadline: float
    is_abandoned: bool = False


@dataclass(frozen=True, slots=True)
class _Look:
    """Looks after the file without a record of a caller's."""

    time: str


def _ignore(_count: int) -> None: ...


def _ignore_failure() -> None: ...


def _ignore_record(_sequence: int, _members: Mapping[str, JsonValue]) -> None: ...


class AuditLog:
    """Appends to one chain; the only writer of its file.

    All methods belong to the event loop on which `open` ran. `append_seconds` bounds how long a
    caller waits for a sink that hangs. `on_records` is told how many records became durable,
    `on_failure` that a write failed, `on_appended` of the sequence and members of each record that
    was appended, in their order; all run on the event loop. `rotate` is for a directory of root's:
    it runs root's wrapper, in the writer's thread (`place.RootPlace`).
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        retain_days: int,
        clock: Clock,
        append_seconds: float = 10.0,
        on_records: Callable[[int], None] = _ignore,
        on_failure: Callable[[], None] = _ignore_failure,
        on_appended: Callable[[int, Mapping[str, JsonValue]], None] = _ignore_record,
        fsync: Callable[[int], None] = os.fdatasync,
        rotate: Callable[[], str] | None = None,
    ) -> None:
        self._path = path
        self._file = AuditFile(
            path, max_bytes=max_bytes, retain_days=retain_days, fsync=fsync, rotate=rotate
        )
        self._clock = clock
        self._append_seconds = append_seconds
        self._on_records = on_records
        self._on_failure = on_failure
        self._on_appended = on_appended
        self._queue: SimpleQueue[_Entry | _Look | None] = SimpleQueue()
        self._waiting: deque[_Entry] = deque()
        self._overdue_timer: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finished: asyncio.Future[None] | None = None
        self._is_open = False
        self._head: Link = ORIGIN
        self._failure: str | None = "it is not open"
        self._is_hung = False

    # -- what is known of it ----------------------------------------------------------------------

    @property
    def head(self) -> str:
        """Return the hash of the newest durable record; 64 zeros before the first."""
        return self._head.hash

    @property
    def sequence(self) -> int:
        """Return the sequence of the newest durable record; 0 before the first."""
        return self._head.sequence

    @property
    def newest_time(self) -> str | None:
        """Return the time of the newest record (RFC 3339, UTC): a floor for the agent's clock."""
        return self._file.newest_time

    @property
    def healthy(self) -> bool:
        """Return whether the last write succeeded and none hangs."""
        return self._failure is None

    @property
    def failure(self) -> str | None:
        """Return why the log cannot be written, in the system's words; None while it can."""
        return self._failure

    # -- its life ---------------------------------------------------------------------------------

    async def open(self) -> None:
        """Lock the file, continue its chain from the newest record, and start the writer.

        Only the end of the newest file is read.

        Raises:
            AuditUnavailableError: the file cannot be used, is no audit log, or is another agent's.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._file.open)
        except AuditFileError as error:
            raise AuditUnavailableError(f"The audit log cannot be opened: {error}.") from error
        except OSError as error:
            message = f"The audit log cannot be opened: {error.strerror}: {error.filename}."
            raise AuditUnavailableError(message) from error
        self._head = self._file.head
        self._failure = None
        self._finished = self._loop.create_future()
        self._is_open = True
        self._thread = threading.Thread(target=self._write, name="audit-writer", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Write what is queued, then give up the file. Bounded by `append_seconds`."""
        if not self._is_open or self._finished is None:
            return
        self._is_open = False
        self._failure = "it is closed"
        self._queue.put(None)
        try:
            await asyncio.wait_for(self._finished, self._append_seconds)
        except TimeoutError:
            logger.error("audit: the file does not answer; left behind unclosed")  # noqa: TRY400
        for timer in (self._overdue_timer, self._retry_timer):
            if timer is not None:
                timer.cancel()
        self._overdue_timer = self._retry_timer = None
        self._give_up(float("inf"))

    def reopen(self) -> None:
        """Look at the path again soon: follow a rename (SIGHUP, logrotate), notice a removal.

        The same look comes before every write; this makes an idle log look, so calling it once a
        second costs little and keeps `healthy` true to the disk.
        """
        if self._is_open:
            self._queue.put(_Look(self._now()))

    async def recent(self) -> Recent:
        """Return the newest records, as far back as a record of the life before may be missing.

        Raises:
            AuditUnavailableError: the files cannot be read.
        """
        try:
            return await asyncio.to_thread(recent, self._path)
        except OSError as error:
            message = f"The audit log cannot be read: {error.strerror}: {error.filename}."
            raise AuditUnavailableError(message) from error

    # -- appending --------------------------------------------------------------------------------

    async def append(
        self,
        event: Event,
        *,
        caller: str | None = None,
        fingerprint: str | None = None,
        owner: str | None = None,
        operation: str | None = None,
        resource: str | None = None,
        params: JsonValue = None,
        digest: str | None = None,
        request_id: str | None = None,
        outcome: JsonValue = None,
        code: str | None = None,
        reason: str | None = None,
        **details: JsonValue,
    ) -> int:
        """Append one record and return its sequence once it is synced to disk.

        What is None is left out. A caller that is cancelled meanwhile does not take its record
        back. A record whose caller was told that it failed is not written later, unless the system
        was writing it at that moment.

        Raises:
            AuditUnavailableError: it is not on disk; what it announces must not happen.
            ValueError: a value has no canonical form, or a name belongs to the chain: a defect.
        """
        if not self._is_open or self._loop is None or self._is_hung:
            raise _unavailable(self._failure)
        members: dict[str, JsonValue] = {
            "caller": caller,
            "fingerprint": fingerprint,
            "owner": owner,
            "operation": operation,
            "resource": resource,
            "params": params,
            "digest": digest,
            "request_id": request_id,
            "outcome": outcome,
            "code": code,
            "reason": reason,
        }
        if details:
            members |= details
        time = self._now()
        entry = _Entry(
            members=build(Event(event), time, members),
            time=time,
            future=self._loop.create_future(),
            deadline=self._loop.time() + self._append_seconds,
        )
        self._waiting.append(entry)
        if self._overdue_timer is None:
            self._overdue_timer = self._loop.call_at(entry.deadline, self._look_overdue)
        self._queue.put(entry)
        return await entry.future

    def _now(self) -> str:
        return rfc3339(self._clock.now())

    def _look_overdue(self) -> None:
        """Tell callers whose time is over that the sink hangs; look again for the next one."""
        self._overdue_timer = None
        if self._loop is None:
            return
        if self._give_up(self._loop.time()):
            self._is_hung = True
            self._fail(f"the file did not take a record in {self._append_seconds:g} seconds")
        if self._waiting:
            deadline = self._waiting[0].deadline
            self._overdue_timer = self._loop.call_at(deadline, self._look_overdue)

    def _give_up(self, now: float) -> int:
        given_up = 0
        while self._waiting and self._waiting[0].deadline <= now:
            entry = self._waiting.popleft()
            entry.is_abandoned = True
            given_up += 1
            if not entry.future.done():
                entry.future.set_exception(_unavailable("its file does not answer"))
        return given_up

    def _fail(self, why: str) -> None:
        if self._failure is None:
            logger.error("audit: cannot be written, nothing that changes the host runs: %s", why)
        if self._is_open:
            self._failure = why
        self._on_failure()

    def _settle(self, entries: Sequence[_Entry], written: Written) -> None:
        """Tell the callers of one batch what became of their records. Runs on the event loop."""
        self._is_hung = False
        moved = written.head.sequence - self._head.sequence
        self._head = written.head
        if moved:
            self._on_records(moved)
        for entry, result in zip(entries, written.results, strict=True):
            if self._waiting and self._waiting[0] is entry:
                self._waiting.popleft()
            if isinstance(result, int):
                self._on_appended(result, entry.members)
            if entry.future.done():
                continue
            if isinstance(result, int):
                entry.future.set_result(result)
            elif isinstance(result, OSError):
                entry.future.set_exception(_unavailable(result.strerror))
            else:
                entry.future.set_exception(result)
        self._note(written.error)

    def _note(self, error: OSError | None) -> None:
        if error is not None:
            self._fail(error.strerror or type(error).__name__)
            if self._retry_timer is None and self._loop is not None and self._is_open:
                self._retry_timer = self._loop.call_later(RETRY_SECONDS, self._retry)
        elif self._is_open:
            if self._failure is not None:
                logger.warning("audit: can be written again")
            self._failure = None

    def _retry(self) -> None:
        self._retry_timer = None
        if self._failure is not None:
            self.reopen()

    # -- the writer thread ------------------------------------------------------------------------

    def _write(self) -> None:
        is_open = True
        while is_open:
            batch = [self._queue.get()]
            while len(batch) < MAX_BATCH:
                try:
                    batch.append(self._queue.get_nowait())
                except Empty:
                    break
            is_open = None not in batch
            self._write_batch([item for item in batch if item is not None])
        self._file.close()
        self._tell(self._finish)

    def _write_batch(self, batch: Sequence[_Entry | _Look]) -> None:
        if not batch:
            return
        entries = [e for e in batch if isinstance(e, _Entry) and not e.is_abandoned]
        try:
            written = self._file.write([e.members for e in entries], time=batch[0].time)
        except Exception as defect:  # the thread must outlive it: callers wait for an answer
            logger.exception("audit: the writer failed")
            error = OSError(0, f"a defect, {type(defect).__name__}")
            written = Written(results=[error] * len(entries), head=self._file.head, error=error)
        self._tell(lambda: self._settle(entries, written))

    def _tell(self, what: Callable[[], None]) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop is closed: nobody waits any more
            logger.warning("audit: the event loop ended before the log was closed")

    def _finish(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)


def _unavailable(why: str | None) -> AuditUnavailableError:
    return AuditUnavailableError(
        f"The audit log cannot be written ({why or 'unknown'}), so nothing was run; "
        "ask again when the host's administrator has seen to it.",
        retry_after_seconds=5,
    )
