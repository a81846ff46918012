"""Rates: exact bursts, separate allowances, and a wait that is long enough."""

import pytest

from host_agent.config import LimitsSection as Section
from host_agent.errors import RateLimitedError
from host_agent.policy.limits import Limits

SECTION = Section(asks_per_second=10, ask_burst=5, decisions_per_second=2, decision_burst=3)


def asked(limits: Limits, cn: str, now: float, *, most: int = 1000) -> int:
    """Return how many asks of `cn` get through at `now`."""
    for count in range(most):
        try:
            limits.ask(cn, now)
        except RateLimitedError:
            return count
    return most


def wait_of(limits: Limits, cn: str, now: float) -> float:
    with pytest.raises(RateLimitedError) as refused:
        limits.ask(cn, now)
    assert refused.value.code == "rate:limited"
    assert refused.value.retry_after_seconds is not None
    return refused.value.retry_after_seconds


def test_a_burst_is_exact() -> None:
    assert asked(Limits(SECTION), "a", 100.0) == 5


def test_the_bucket_fills_at_its_rate_and_not_over_its_burst() -> None:
    limits = Limits(SECTION)
    asked(limits, "a", 0.0)
    assert asked(limits, "a", 0.25) == 2
    assert asked(limits, "a", 3600.0) == 5


@pytest.mark.parametrize("edge", [0.999, 1.0, 1.001, 59.999, 60.0])
def test_no_edge_lets_two_bursts_through(edge: float) -> None:
    limits = Limits(SECTION)
    before = asked(limits, "a", edge - 0.001)
    after = asked(limits, "a", edge + 0.001)
    assert before + after == 5


def test_the_wait_is_long_enough_and_no_longer() -> None:
    limits = Limits(SECTION)
    asked(limits, "a", 0.0)
    wait = wait_of(limits, "a", 0.05)
    assert wait == pytest.approx(0.05)
    assert asked(limits, "a", 0.05 + wait + 1e-9) == 1


def test_a_refused_ask_costs_nothing() -> None:
    limits = Limits(SECTION)
    asked(limits, "a", 0.0)
    for _ in range(100):
        wait_of(limits, "a", 0.0)
    assert asked(limits, "a", 0.1) == 1


def test_identities_do_not_share() -> None:
    limits = Limits(SECTION)
    asked(limits, "a", 0.0)
    assert asked(limits, "b", 0.0) == 5


def test_asking_and_deciding_do_not_share() -> None:
    limits = Limits(SECTION)
    asked(limits, "a", 0.0)
    for _ in range(3):
        limits.decision("a", 0.0)
    with pytest.raises(RateLimitedError, match="decisions") as refused:
        limits.decision("a", 0.0)
    assert refused.value.retry_after_seconds == pytest.approx(0.5)
    assert asked(limits, "a", 0.1) == 1


def test_a_clock_that_stands_or_falls_back_adds_nothing() -> None:
    limits = Limits(SECTION)
    asked(limits, "a", 100.0)
    assert asked(limits, "a", 50.0) == 0
    assert asked(limits, "a", 100.0) == 0
    assert asked(limits, "a", 100.125) == 1


def test_a_reload_is_no_fresh_burst() -> None:
    limits = Limits(SECTION)
    asked(limits, "a", 0.0)
    limits.reconfigure(Section(asks_per_second=10, ask_burst=50))
    assert asked(limits, "a", 0.0) == 0
    assert asked(limits, "a", 0.1) == 1
    assert asked(limits, "a", 3600.0) == 50


def test_a_reload_to_a_smaller_burst_cuts_the_level() -> None:
    limits = Limits(Section(asks_per_second=10, ask_burst=50))
    limits.ask("a", 0.0)
    limits.reconfigure(SECTION)
    assert asked(limits, "a", 0.0) == 5


@pytest.mark.promise("c45")
def test_memory_is_bounded_and_the_longest_idle_is_forgotten() -> None:
    limits = Limits(SECTION, max_buckets=100)
    for number in range(1000):
        asked(limits, f"caller{number}", float(number))
    assert len(limits) == 100
    assert asked(limits, "caller999", 999.0) == 0
    assert asked(limits, "caller0", 999.0) == 5
