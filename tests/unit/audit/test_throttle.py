"""A flood of refusals: ten a second for each identity are recorded, the rest is counted."""

from hypothesis import given
from hypothesis import strategies as st

from host_agent.audit.throttle import OTHERS, RefusalThrottle, Suppressed


def test_ten_a_second_are_recorded_and_the_rest_is_counted() -> None:
    throttle = RefusalThrottle()
    answers = [throttle.admit("mallory", 100.0 + number / 100) for number in range(25)]
    assert answers == [0] * 10 + [None] * 15
    assert throttle.due(100.5) == []
    assert throttle.due(101.0) == [Suppressed(identity="mallory", count=15)]
    assert throttle.due(102.0) == []


def test_the_next_record_tells_what_was_counted_before_it() -> None:
    throttle = RefusalThrottle()
    for _ in range(12):
        throttle.admit("mallory", 100.0)
    assert throttle.admit("mallory", 101.0) == 2
    assert throttle.admit("mallory", 101.1) == 0


def test_one_identity_does_not_silence_another() -> None:
    throttle = RefusalThrottle()
    for _ in range(100):
        throttle.admit("mallory", 100.0)
    assert throttle.admit("librarian", 100.0) == 0


def test_everything_is_told_before_the_log_closes() -> None:
    throttle = RefusalThrottle()
    for _ in range(11):
        throttle.admit("mallory", 100.0)
    assert throttle.due(100.1, everything=True) == [Suppressed(identity="mallory", count=1)]


def test_memory_is_bounded_and_the_many_are_counted_together() -> None:
    throttle = RefusalThrottle(max_identities=3)
    answers = [throttle.admit(f"name-{number}", 100.0) for number in range(20)]
    assert answers == [0] * 13 + [None] * 7
    assert throttle.due(101.0) == [Suppressed(identity=OTHERS, count=7)]
    assert throttle.admit("name-19", 101.0) == 0


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.floats(0, 0.7)), max_size=200))
def test_every_refusal_is_recorded_or_counted_once(asks: list[tuple[str, float]]) -> None:
    throttle = RefusalThrottle(per_second=2, max_identities=3)
    now, told = 0.0, 0
    for identity, later in asks:
        now += later
        counted = throttle.admit(identity, now)
        told += 0 if counted is None else 1 + counted
        if later > 0.5:
            told += sum(entry.count for entry in throttle.due(now))
    told += sum(entry.count for entry in throttle.due(now, everything=True))
    assert told == len(asks)
