"""How `pki renew --daemon` goes on: when it looks again, what it says, and when it gives up."""

import itertools
from collections.abc import Iterable

import pytest

from host_agent.cli.renewing import RenewalStep, keep, lasting
from host_agent.errors import ConfigurationError, InvalidIdentityError

DONE = RenewalStep(status=0, sentence="renewed", seconds=3600)
WAITING = RenewalStep(status=75, sentence="waits", seconds=600)
FAILED = RenewalStep(status=69, sentence="no connection")
FINAL = RenewalStep(status=77, sentence="revoked", is_final=True)
FAR = RenewalStep(status=0, sentence="not due", seconds=60 * 86_400)


def kept(steps: Iterable[RenewalStep]) -> tuple[int, list[str], list[float]]:
    told: list[str] = []
    slept: list[float] = []
    coming = iter(steps)
    status = keep(
        lambda: next(coming),
        lambda step: told.append(step.sentence),
        slept.append,
        lambda low, high: (low + high) / 2,
    )
    return status, told, slept


def test_it_waits_as_long_as_there_is_nothing_to_do_and_at_most_a_day() -> None:
    status, told, slept = kept([DONE, WAITING, WAITING, FAR, FINAL])
    assert status == 77
    assert told == ["renewed", "waits", "not due", "revoked"]
    assert slept == [3600, 600, 600, 86_400]


def test_what_fails_is_tried_later_and_later_and_begins_anew_once_it_works() -> None:
    _, told, slept = kept([*itertools.repeat(FAILED, 8), WAITING, FAILED, FINAL])
    assert slept == [60, 120, 240, 480, 960, 1920, 3600, 3600, 600, 60]
    assert told == ["no connection", "waits", "no connection", "revoked"]


@pytest.mark.parametrize("edge", [0.75, 1.25])
def test_every_pause_is_spread(edge: float) -> None:
    steps = iter([WAITING, FINAL])
    slept: list[float] = []

    def uniform(low: float, high: float) -> float:
        assert (low, high) == (0.75, 1.25)
        return edge

    keep(lambda: next(steps), lambda _step: None, slept.append, uniform)
    assert slept == [600 * edge]


def test_a_full_disk_is_outlasted_and_what_is_wrong_from_the_first_is_not() -> None:
    full = ConfigurationError(["own.key cannot be replaced: no space left on device"])
    copied = InvalidIdentityError("it is a server's")
    coming: list[RenewalStep | Exception] = [full, copied, WAITING, full, full, DONE, copied, FINAL]

    def step() -> RenewalStep:
        done = coming.pop(0)
        if isinstance(done, Exception):
            raise done
        return done

    for wrong in (ConfigurationError, InvalidIdentityError):
        with pytest.raises(wrong):
            keep(lasting(step), lambda _step: None, lambda _pause: None, lambda low, _high: low)
    told: list[str] = []
    slept: list[float] = []
    status = keep(
        lasting(step),
        lambda done: told.append(done.sentence),
        slept.append,
        lambda low, high: (low + high) / 2,
    )
    assert status == 77
    assert told == ["waits", full.faults[0], "renewed", copied.detail, "revoked"]
    assert slept == [600, 60, 120, 3600, 60]
