"""How many prompts an approver gets, and how long a failing channel is left alone."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from host_agent.notify.rate import LONGEST_QUEUE, MINUTE, Pace, backoff
from tests.support.stored_requests import NOW


def highest(_low: float, high: float) -> float:
    return high


def lowest(low: float, _high: float) -> float:
    return low


def pace_of(limit: int) -> Pace:
    return Pace(lambda: limit)


def test_so_many_a_minute_go_at_once() -> None:
    pace = pace_of(3)
    assert [pace.turn("bob", "signal", NOW) for _ in range(3)] == [None] * 3
    assert pace.turn("bob", "signal", NOW) == NOW + MINUTE


def test_owners_and_channels_are_counted_apart() -> None:
    pace = pace_of(1)
    assert pace.turn("bob", "signal", NOW) is None
    assert pace.turn("carol", "signal", NOW) is None
    assert pace.turn("bob", "ntfy", NOW) is None
    assert pace.turn("bob", "ntfy", NOW) is not None


def test_those_who_wait_are_spread() -> None:
    pace = pace_of(2)
    for _ in range(2):
        pace.turn("bob", "signal", NOW)
    turns = [pace.turn("bob", "signal", NOW) for _ in range(3)]
    assert turns == [NOW + MINUTE + timedelta(seconds=30 * number) for number in range(3)]


def test_nobody_is_put_off_for_longer_than_five_minutes_at_a_time() -> None:
    pace = pace_of(1)
    turns = [pace.turn("bob", "signal", NOW) for _ in range(50)]
    assert turns[-1] == NOW + LONGEST_QUEUE


@pytest.mark.parametrize("limit", [1, 2, 7, 10])
def test_no_minute_has_more_than_its_share(limit: int) -> None:
    pace, sent = pace_of(limit), []
    waiting = [(NOW, number) for number in range(60)]
    while waiting:
        waiting.sort()
        now, number = waiting.pop(0)
        later = pace.turn("bob", "signal", now)
        if later is None:
            sent.append(now)
        else:
            assert later > now
            waiting.append((later, number))
    assert len(sent) == 60
    assert all(
        later - earlier >= MINUTE for earlier, later in zip(sent, sent[limit:], strict=False)
    )
    assert sent[-1] - NOW <= MINUTE * (60 / limit + 2)


def test_a_lower_limit_holds_at_once() -> None:
    limits = [5]
    pace = Pace(lambda: limits[0])
    for _ in range(5):
        pace.turn("bob", "signal", NOW)
    limits[0] = 2
    later = NOW + timedelta(seconds=30)
    assert pace.turn("bob", "signal", later) == NOW + MINUTE
    assert pace.turn("bob", "signal", NOW + MINUTE) is None


def test_a_limit_below_one_lets_one_through() -> None:
    assert pace_of(0).turn("bob", "signal", NOW) is None


@pytest.mark.parametrize(
    ("tries", "seconds"), [(1, 2), (2, 4), (3, 8), (7, 128), (8, 256), (9, 300), (12, 300)]
)
def test_backoff_doubles_to_five_minutes(tries: int, seconds: int) -> None:
    assert backoff(tries, None, highest) == timedelta(seconds=seconds)
    assert backoff(tries, None, lowest) == timedelta(0)


@pytest.mark.parametrize("draw", [highest, lowest])
def test_what_the_other_side_asks_for_is_the_least(draw: Callable[[float, float], float]) -> None:
    assert backoff(1, 90.0, draw) == timedelta(seconds=90) + backoff(1, None, draw)


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(-5.0, 0), (float("nan"), 0), (float("inf"), 0), (float("-inf"), 0), (1e18, 86_400)],
)
def test_nonsense_is_not_waited_for(asked: float, seconds: int) -> None:
    assert backoff(1, asked, lowest) == timedelta(seconds=seconds)
