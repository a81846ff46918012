"""C8: a clock that is set back revives nothing, one that is set forward accepts nothing late."""

from datetime import UTC, datetime, timedelta

import pytest

from host_agent.clock import SystemClock, rfc3339, span

START = datetime(2026, 11, 20, 12, tzinfo=UTC)


class Hands:
    """The two clocks of a host, moved by the test."""

    def __init__(self) -> None:
        self.wall = START.timestamp()
        self.monotonic = 100.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self, *, floor: datetime | None = None) -> SystemClock:
        return SystemClock(floor=floor, wall=lambda: self.wall, monotonic=lambda: self.monotonic)


def test_time_passes() -> None:
    hands = Hands()
    clock = hands.clock()
    assert clock.now() == START
    hands.pass_time(90)
    assert clock.now() == START + timedelta(seconds=90)
    assert clock.monotonic() == 190.0


@pytest.mark.promise("c8")
@pytest.mark.parametrize("back", [3600.0, START.timestamp(), 1.0])
def test_a_clock_set_back_goes_on_from_where_it_was(back: float) -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_time(60)
    assert clock.now() == START + timedelta(seconds=60)
    hands.wall -= back
    assert clock.now() == START + timedelta(seconds=60)
    hands.pass_time(30)
    assert clock.now() == START + timedelta(seconds=90)


@pytest.mark.promise("c8")
def test_a_clock_set_forward_is_followed_and_not_left_again() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.wall += 3600
    assert clock.now() == START + timedelta(hours=1)
    hands.wall -= 3600
    hands.pass_time(10)
    assert clock.now() == START + timedelta(hours=1, seconds=10)


@pytest.mark.promise("c8")
def test_a_clock_set_back_before_the_start_begins_at_the_floor() -> None:
    hands = Hands()
    floor = START + timedelta(days=1)
    assert hands.clock(floor=floor).now() == floor
    assert hands.clock(floor=START - timedelta(days=1)).now() == START


@pytest.mark.promise("c8")
def test_the_floor_can_be_raised_and_never_lowered() -> None:
    hands = Hands()
    clock = hands.clock()
    clock.raise_floor(START + timedelta(hours=2))
    hands.pass_time(5)
    assert clock.now() == START + timedelta(hours=2, seconds=5)
    clock.raise_floor(START)
    assert clock.now() == START + timedelta(hours=2, seconds=5)


@pytest.mark.promise("c8")
def test_a_jump_is_told_once() -> None:
    hands = Hands()
    clock = hands.clock()
    hands.pass_time(1)
    assert clock.jump() is None
    hands.wall += 7200
    assert clock.jump() == timedelta(hours=2)
    assert clock.jump() is None
    hands.wall -= 4
    assert clock.jump() is None


def test_times_are_written_in_utc_with_microseconds() -> None:
    paris = datetime(2026, 11, 20, 13, 0, 0, 5, tzinfo=UTC).astimezone()
    assert rfc3339(paris) == "2026-11-20T13:00:00.000005Z"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (7260, "2 h"),
        (86_399, "23 h"),
        (86_400, "1 day"),
        (12 * 86_400 + 5, "12 days"),
    ],
)
def test_a_span_has_one_unit_rounded_down(seconds: float, text: str) -> None:
    assert span(seconds) == text
