"""What the agent tells while it happens: `GET /events` as typed values, and how to stay with it.

Server-sent events, read piece by piece and bounded. A stream that ends or breaks is begun again
after the last event that was seen, later and later while that fails.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from host_agent.api.wire.events import (
    EVENT_STREAM,
    EVENTS_DROPPED,
    EVENTS_GAP,
    EventView,
    MissedEvents,
)
from host_agent.client.exchange import Call, HandshakeError
from host_agent.errors import (
    CertificateRefusedError,
    ConnectionFailedError,
    InvalidAnswerError,
    ProblemError,
)

TARGET = "/events"
MAX_EVENT_BYTES = 2 * 1024 * 1024
"""One event is one audit record; the agent's are far smaller."""
SILENCE_SECONDS = 45.0
"""The agent says something every 15 seconds; after so much silence the stream is begun again."""
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
LONGEST_RETRY_AFTER_SECONDS = 300.0
_MAX_ID_DIGITS = 15

OnState = Callable[[bool], None]
"""Told True when a stream has begun, and False when one has ended or broken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent:
    """One event. `sequence` is its id: None for `events.gap` and `events.dropped`.

    These two say how many others are missing before what comes next.
    """

    sequence: int | None
    name: str
    data: EventView | MissedEvents


@dataclass(slots=True)
class EventParser:
    """Makes events of bytes as they come.

    Comments, unknown fields and events without an id that are not known are passed over.
    """

    _rest: bytes = b""
    _fields: dict[str, str] = field(default_factory=dict)
    _size: int = 0

    def feed(self, chunk: bytes) -> Iterator[AgentEvent]:
        """Yield the events that `chunk` completes.

        Raises:
            InvalidAnswerError: an event is too large, or is none of this service's.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            event = self._take(line.removesuffix(b"\r"))
            if event is not None:
                yield event
        if len(self._rest) + self._size > MAX_EVENT_BYTES:
            raise _unusable()

    def _take(self, line: bytes) -> AgentEvent | None:
        if not line:
            fields, self._fields, self._size = self._fields, {}, 0
            return _event(fields) if "data" in fields else None
        self._size += len(line)
        if self._size > MAX_EVENT_BYTES:
            raise _unusable()
        try:
            name, _, value = line.decode("utf-8").partition(":")
        except UnicodeDecodeError:
            raise _unusable() from None
        if name in ("id", "event", "data"):
            value = value.removeprefix(" ")
            before = self._fields.get(name)
            is_more = name == "data" and before is not None
            self._fields[name] = f"{before}\n{value}" if is_more else value
        return None


def _event(fields: dict[str, str]) -> AgentEvent | None:
    number = fields.get("id")
    if number is not None:
        is_number = number.isascii() and number.isdecimal() and len(number) <= _MAX_ID_DIGITS
        if not is_number:
            raise _unusable()
    try:
        data = json.loads(fields["data"])
    except (ValueError, RecursionError):
        raise _unusable() from None
    if not isinstance(data, dict):
        raise _unusable()
    name = fields.get("event", "message")
    if number is not None:
        return AgentEvent(sequence=int(number), name=name, data=EventView.parse(data))
    if name in (EVENTS_GAP, EVENTS_DROPPED):
        return AgentEvent(sequence=None, name=name, data=MissedEvents.parse(data))
    return None


def _unusable() -> InvalidAnswerError:
    return InvalidAnswerError("The agent's stream of events cannot be read: is it another version?")


class Position:
    """Where a reader is, and how long it waits before it tries again. One for each reader."""

    def __init__(
        self,
        after: int | None,
        *,
        on_state: OnState | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.after = after
        self._on_state = on_state
        self._jitter = jitter
        self._pause = FIRST_PAUSE_SECONDS
        self._is_open = False

    def call(self) -> Call:
        """Return the exchange that begins the stream here."""
        headers = {"Accept": EVENT_STREAM, "Cache-Control": "no-store"}
        if self.after is not None:
            headers["Last-Event-ID"] = str(self.after)
        return Call(method="GET", target=TARGET, seconds=SILENCE_SECONDS, headers=headers)

    def opened(self) -> None:
        """Note that the stream has begun."""
        self._tell(is_open=True)

    def seen(self, event: AgentEvent) -> None:
        """Note an event: the stream goes on after it."""
        self._pause = FIRST_PAUSE_SECONDS
        if event.sequence is not None:
            self.after = event.sequence

    def lost(self, error: Exception | None) -> float:
        """Return the seconds to wait before the stream is begun again.

        `error` is what broke it; None where it just ended.

        Raises:
            Exception: `error`, where trying again does not mend it.
        """
        self._tell(is_open=False)
        pause = self._pause * (0.5 + self._jitter() / 2)
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)
        if error is None:
            return pause
        if isinstance(error, ProblemError) and error.status in (429, 503):
            asked = min(error.retry_after_seconds or 0.0, LONGEST_RETRY_AFTER_SECONDS)
            return max(pause, asked)
        is_lasting = isinstance(error, CertificateRefusedError | HandshakeError)
        if is_lasting or not isinstance(error, ConnectionFailedError):
            raise error
        return pause

    def _tell(self, *, is_open: bool) -> None:
        if self._on_state is not None and is_open != self._is_open:
            self._on_state(is_open)
        self._is_open = is_open
