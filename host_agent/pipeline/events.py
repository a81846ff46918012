"""What has happened, as it is written down: audit records as events, for those who may see them.

An event is a record that is on disk, and its id is the record's sequence, so a reader who comes
back says where it was. Memory is bounded: a reader who is too slow loses the oldest, and is told.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from host_agent.api.wire.events import EVENTS_DROPPED, EVENTS_GAP, EventView, MissedEvents
from host_agent.audit.recent import Recent
from host_agent.canonical import JsonValue
from host_agent.errors import IdentityError, RateLimitedError
from host_agent.identity.registry import Principal, Role
from host_agent.pipeline.authorize import as_now
from host_agent.pipeline.context import Context

STREAMS_PER_IDENTITY = 4
RECHECK_SECONDS = 5.0
"""How often a quiet stream asks whether its identity is still welcome."""
KEEPALIVE_SECONDS = 15.0
MAX_KEPT, MAX_KEPT_BYTES = 10_000, 8 * 1024 * 1024
"""What is kept for readers who come back."""
MAX_WAITING = 1_000
"""What one reader may have unread, beside what it came back for. Beyond that the oldest goes, and
is counted."""
SINK = "sse"

_OWN = ("request.", "operation.")
_OF_APPROVERS = (*_OWN, "grant.")
_HIDDEN = frozenset({"previous", "hash"})

_log = logging.getLogger("host_agent.pipeline")

OnResult = Callable[[str, str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """One event: the record's sequence, its name, whose it is, and the record as JSON, one line."""

    sequence: int
    event: str
    caller: str | None
    data: bytes


class Reader:
    """What one stream has still to send, from the moment it began."""

    def __init__(
        self,
        on_result: OnResult,
        wants: Callable[[EventRecord], bool],
        backlog: Iterable[EventRecord] = (),
    ) -> None:
        self._on_result = on_result
        self._wants = wants
        self._waiting: deque[EventRecord] = deque(told for told in backlog if wants(told))
        self._room = max(MAX_WAITING, len(self._waiting))
        self._news = asyncio.Event()
        self.dropped = 0

    def put(self, told: EventRecord) -> None:
        """Add an event that is for this reader; the oldest goes where there are too many."""
        if not self._wants(told):
            return
        if len(self._waiting) >= self._room:
            self._waiting.popleft()
            self.dropped += 1
            self._on_result(SINK, "dropped")
        self._waiting.append(told)
        self._news.set()

    def wake(self) -> None:
        """Let the stream look around: the agent may be ending."""
        self._news.set()

    def take(self) -> EventRecord | None:
        """Return the oldest event that is unread."""
        return self._waiting.popleft() if self._waiting else None

    async def wait(self, seconds: float) -> None:
        """Return once there is something to look at, or the time is over."""
        self._news.clear()
        if self._waiting:
            return
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except TimeoutError:
            return


class Events:
    """Every reader's share of what happens, and what is kept for those who come back."""

    def __init__(self, on_result: OnResult) -> None:
        self._on_result = on_result
        self._kept: deque[EventRecord] = deque()
        self._bytes = 0
        self._newest = 0
        self._readers: set[Reader] = set()

    def fill(self, recent: Recent) -> None:
        """Keep what was written before this start."""
        for members in reversed(recent.records):
            sequence = members.get("sequence")
            told = _told(sequence, members) if isinstance(sequence, int) else None
            if told is not None:
                self._keep(told)

    def publish(self, sequence: int, members: Mapping[str, JsonValue]) -> None:
        """Tell everybody of a record that is on disk. Called in the order of the log."""
        told = _told(sequence, members)
        if told is None:
            return
        self._keep(told)
        for reader in self._readers:
            reader.put(told)

    def _keep(self, told: EventRecord) -> None:
        self._kept.append(told)
        self._bytes += len(told.data)
        self._newest = told.sequence
        while len(self._kept) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES:
            self._bytes -= len(self._kept.popleft().data)

    def begin(self, after: int | None, wants: Callable[[EventRecord], bool]) -> tuple[Reader, int]:
        """Return a reader of what comes, and of what came after `after`; and what it has missed.

        It gets what it `wants`, so that nobody's events push out those of another.

        Only what is kept can be read again: the second value counts the records before that.
        """
        backlog: Iterable[EventRecord] = ()
        missed = 0
        if after is not None:
            oldest = self._kept[0].sequence if self._kept else self._newest + 1
            missed = max(oldest - after - 1, 0)
            backlog = (told for told in self._kept if told.sequence > after)
        reader = Reader(self._on_result, wants, backlog)
        self._readers.add(reader)
        return reader, missed

    def end(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def wake_all(self) -> None:
        """Let every stream look around, as at a shutdown."""
        for reader in self._readers:
            reader.wake()


class Streams:
    """Streams of events over HTTP. One instance lives as long as the agent."""

    def __init__(self, context: Context, events: Events) -> None:
        self._context = context
        self._events = events
        self._streams: Counter[str] = Counter()

    def open(self, principal: Principal, after: int | None) -> AsyncGenerator[bytes]:
        """Return a stream of what `principal` may see, after the event `after` where it is given.

        It ends by itself once the principal is not welcome any more, and when the agent ends.

        Raises:
            RateLimitedError: too many streams of this identity.
        """
        if self._streams[principal.cn] >= STREAMS_PER_IDENTITY:
            message = f"At most {STREAMS_PER_IDENTITY} streams of one identity at a time."
            raise RateLimitedError(message, retry_after_seconds=RECHECK_SECONDS)
        return self._frames(principal, after)

    async def _frames(self, principal: Principal, after: int | None) -> AsyncGenerator[bytes]:
        # Begun here and not before: what is never read is never begun, and leaves nothing.
        if self._streams[principal.cn] >= STREAMS_PER_IDENTITY:
            return
        clock = self._context.clock
        spoken = clock.monotonic()
        reader, missed = self._events.begin(after, lambda told: self._is_for(principal, told))
        self._streams[principal.cn] += 1
        try:
            yield b": events\n\n" if not missed else _notice(EVENTS_GAP, missed)
            while not self._context.is_draining:
                told = reader.take()
                now = self._as_now(principal)
                if now is None:
                    return
                if reader.dropped:
                    dropped, reader.dropped = reader.dropped, 0
                    yield _notice(EVENTS_DROPPED, dropped)
                if told is None:
                    await reader.wait(RECHECK_SECONDS)
                    if clock.monotonic() - spoken >= KEEPALIVE_SECONDS:
                        spoken = clock.monotonic()
                        yield b": still here\n\n"
                elif may_see(now, told):
                    spoken = clock.monotonic()
                    yield _frame(told)
                    self._context.metrics.event_sent(SINK, "delivered")
        finally:
            self._events.end(reader)
            self._streams[principal.cn] -= 1
            if not self._streams[principal.cn]:
                del self._streams[principal.cn]

    def _is_for(self, principal: Principal, told: EventRecord) -> bool:
        now = self._as_now(principal)
        return now is not None and may_see(now, told)

    def _as_now(self, principal: Principal) -> Principal | None:
        try:
            return as_now(self._context, principal)
        except IdentityError:
            return None


def may_see(principal: Principal, told: EventRecord) -> bool:
    """Return whether an event is for `principal`: callers see their own, people who decide more."""
    if Role.ADMIN in principal.roles:
        return True
    if Role.APPROVER in principal.roles and told.event.startswith(_OF_APPROVERS):
        return True
    return told.caller == principal.cn and told.event.startswith(_OWN)


def _told(sequence: int, members: Mapping[str, JsonValue]) -> EventRecord | None:
    """Return a record as an event; None where it has not the form of one, which is in the log."""
    shown = {name: value for name, value in members.items() if name not in _HIDDEN}
    try:
        view = EventView.model_validate({**shown, "sequence": sequence})
    except ValidationError as error:
        _log.error("the audit record %d cannot be told as an event: %s", sequence, error)
        return None
    return EventRecord(
        sequence=sequence,
        event=view.event,
        caller=view.caller if isinstance(view.caller, str) else None,
        data=view.model_dump_json(exclude_unset=True).encode(),
    )


def _frame(told: EventRecord) -> bytes:
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (told.sequence, told.event.encode(), told.data)


def _notice(event: str, count: int) -> bytes:
    """Return an event of the stream itself. It has no id: what came last stays the place."""
    return f"event: {event}\ndata: {MissedEvents(count=count).model_dump_json()}\n\n".encode()
