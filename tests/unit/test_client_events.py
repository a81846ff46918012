"""How a client reads a stream of events, and stays with it: no socket, no waiting."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from host_agent.api.wire.events import EventView, MissedEvents
from host_agent.client.events import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    MAX_EVENT_BYTES,
    AgentEvent,
    EventParser,
    Position,
)
from host_agent.client.exchange import HandshakeError
from host_agent.errors import (
    CertificateRefusedError,
    ConnectionFailedError,
    InvalidAnswerError,
    ProblemError,
)


def held(sequence: int, **members: object) -> EventView:
    told = {"time": "2026-11-20T21:00:00.123456Z", "event": "request.held", **members}
    return EventView.parse(json.loads(json.dumps({"sequence": sequence, **told})))


STREAM = (
    b": events\n\n"
    b'id: 7\nevent: request.held\ndata: {"sequence":7,"reason":"\xc3\xa4",'
    b'"time":"2026-11-20T21:00:00.123456Z","event":"request.held"}\n\n'
    b"event: events.of-another-version\ndata: {}\n\n"
    b": \n\n"
    b'event: events.dropped\r\ndata: {"count":3}\r\n\r\n'
    b'id:8\nevent:request.decided\nretry: 9\ndata:{"a":\ndata: 1,"sequence":8,'
    b'"time":"2026-11-20T21:00:01.5Z","event":"request.decided"}\n\n'
    b"id: 9\nevent: request.held\n\n"
)
EVENTS = [
    AgentEvent(sequence=7, name="request.held", data=held(7, reason="ä")),
    AgentEvent(sequence=None, name="events.dropped", data=MissedEvents.parse({"count": 3})),
    AgentEvent(
        sequence=8,
        name="request.decided",
        data=held(8, a=1, event="request.decided", time="2026-11-20T21:00:01.5Z"),
    ),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_events_are_the_same_however_the_bytes_come(cuts: list[int]) -> None:
    parser = EventParser()
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in itertools.pairwise(edges)]
    assert [event for piece in pieces for event in parser.feed(piece)] == EVENTS


@pytest.mark.parametrize(
    "bad",
    [
        b"id: x\ndata: {}\n\n",
        b"id: -1\ndata: {}\n\n",
        b"id: \xd9\xa3\ndata: {}\n\n",
        b"id: 1234567890123456\ndata: {}\n\n",
        b"id: 1\ndata: []\n\n",
        b"id: 1\ndata: {}\n\n",
        b"event: events.gap\ndata: {}\n\n",
        b"event: events.gap\ndata: []\n\n",
        b"data: {\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        b"data: \xff\n\n",
    ],
    ids=lambda bad: bad[:12],
)
def test_what_is_no_event_of_this_service_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidAnswerError):
        list(EventParser().feed(bad))


@pytest.mark.parametrize("piece", [b"x" * 65536, b"data: " + b"x" * 65530, b"a\n" * 32768])
def test_an_event_without_end_is_refused_and_not_kept(piece: bytes) -> None:
    parser = EventParser()

    def feed() -> None:
        for _ in range(MAX_EVENT_BYTES // 1024):
            list(parser.feed(piece))

    with pytest.raises(InvalidAnswerError):
        feed()


def test_it_goes_on_after_the_last_event_that_was_seen() -> None:
    position = Position(None)
    assert "Last-Event-ID" not in position.call().headers
    position.seen(EVENTS[0])
    position.seen(EVENTS[1])
    assert position.call().headers["Last-Event-ID"] == "7"
    assert Position(0).call().headers["Last-Event-ID"] == "0"


def test_it_waits_longer_each_time_and_is_quick_again_after_an_event() -> None:
    position = Position(None, jitter=lambda: 1.0)
    error = ConnectionFailedError("gone")
    pauses = [position.lost(error) for _ in range(8)]
    assert pauses[:3] == [FIRST_PAUSE_SECONDS, 2.0, 4.0]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    position.seen(EVENTS[0])
    assert position.lost(None) == FIRST_PAUSE_SECONDS


def test_many_readers_do_not_come_back_together() -> None:
    early, late = Position(None, jitter=lambda: 0.0), Position(None, jitter=lambda: 1.0)
    assert early.lost(None) * 2 == late.lost(None)


def problem(status: int, retry_after_seconds: float | None = None) -> ProblemError:
    return ProblemError(
        status=status,
        code="rate:limited",
        detail="Wait.",
        retry_after_seconds=retry_after_seconds,
    )


@pytest.mark.parametrize("status", [429, 503])
def test_it_waits_as_long_as_it_was_asked_to_but_not_for_ever(status: int) -> None:
    position = Position(None, jitter=lambda: 1.0)
    assert position.lost(problem(status, 17.0)) == 17.0
    assert position.lost(problem(status, 1e9)) == LONGEST_RETRY_AFTER_SECONDS


@pytest.mark.parametrize(
    "error",
    [
        problem(403),
        problem(404),
        CertificateRefusedError("revoked"),
        HandshakeError("no"),
        InvalidAnswerError("no"),
    ],
    ids=repr,
)
def test_what_waiting_does_not_mend_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        Position(None).lost(error)


def test_it_tells_once_when_a_stream_begins_and_ends() -> None:
    told: list[bool] = []
    position = Position(None, on_state=told.append)
    position.lost(ConnectionFailedError("no"))
    position.opened()
    position.lost(None)
    position.lost(ConnectionFailedError("no"))
    position.opened()
    assert told == [True, False, True]
