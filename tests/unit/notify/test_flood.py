"""Who is answered how often, and how many people that is remembered of."""

import logging

import pytest

from host_agent.notify import flood
from host_agent.notify.flood import MAX_ANSWERS_EACH, Complaints, Manners

LOG = logging.getLogger("host_agent.notify.flood")


def manners() -> Manners:
    """Return manners whose minute does not end."""
    return Manners(Complaints(LOG, lambda: 100.0), lambda: 100.0)


def exhaust(it: Manners, who: str) -> None:
    assert all(it.may_answer(who) for _ in range(MAX_ANSWERS_EACH))
    assert not it.may_answer(who)


def test_others_do_not_bring_somebody_more_answers() -> None:
    it = manners()
    exhaust(it, "somebody")
    assert all(it.may_answer(f"person {number}") for number in range(flood.MAX_PEOPLE - 1))
    assert not it.may_answer("somebody")


def test_of_too_many_people_the_one_of_the_longest_silence_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flood, "MAX_PEOPLE", 3)
    it = manners()
    exhaust(it, "somebody")
    exhaust(it, "another")
    assert it.may_answer("a third")
    assert not it.may_answer("somebody")  # who is the newest by that
    assert it.may_answer("a fourth")
    assert not it.may_answer("somebody")
    assert it.may_answer("another")
