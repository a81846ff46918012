"""The short form of the races: a few hundred requests that four processes want at once.

`python -m tests.races` is the long form.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from host_agent.requests import model as machine
from host_agent.requests.model import Request, State, Verb
from tests.races import __main__ as command
from tests.races.driver import RACERS, Driver, Settings
from tests.races.judging import Claim, judge
from tests.support.request_stores import approved
from tests.support.stored_requests import NOW, a_decision, a_request

SEED = 20_261_121


@pytest.mark.promise("c29")
async def test_processes_that_race_for_a_request_have_one_winner_and_one_run(
    tmp_path: Path,
) -> None:
    report = await Driver(Settings(races=300, seed=SEED, directory=tmp_path)).run()
    assert report.violations == []
    assert report.races == report.winners.total() == report.by_racer.total() == 300
    # It was a race: several won, in every way, and the others were overtaken at the store itself.
    assert set(report.winners) == {"approved", "denied", "expired", "cancelled"}
    assert 2 <= len(report.by_racer) <= RACERS
    assert report.lost["overtaken at the store"] > 300
    assert report.executions == report.followers["running"] > 50


# -- refusal twins: races that find nothing wherever they look prove nothing -----------------------


def claim(before: State, after: State, racer: int = 0) -> Claim:
    return Claim(racer=racer, before=before, after=after)


APPROVED = claim(State.PENDING, State.APPROVED)
STARTED = claim(State.APPROVED, State.RUNNING, 1)
ENDED = claim(State.RUNNING, State.SUCCEEDED, 1)
DENIED = claim(State.PENDING, State.DENIED, 2)
EXPIRED = claim(State.PENDING, State.EXPIRED)
CANCELLED = claim(State.APPROVED, State.CANCELLED, 3)


def ran() -> Request:
    running = machine.start(approved(a_request()), now=NOW)
    return machine.finish(running, state=State.SUCCEEDED, outcome={}, problem=None, now=NOW)


def denied() -> Request:
    spoken = a_decision("bob", Verb.DENY)
    return machine.deny(a_request(), spoken, roles=["approver"], now=NOW)


@pytest.mark.parametrize(
    ("stored", "claims", "runs"),
    [
        (ran(), [ENDED, APPROVED, STARTED], 1),
        (denied(), [DENIED], 0),
        (
            machine.cancel(approved(a_request()), problem=None, now=NOW),
            [CANCELLED, APPROVED],
            0,
        ),
        (machine.expire(a_request(), now=a_request().expires_at), [EXPIRED], 0),
    ],
)
def test_sound_race_is_not_blamed(stored: Request, claims: Sequence[Claim], runs: int) -> None:
    assert list(judge(stored, claims, runs)) == []


@pytest.mark.parametrize(
    ("stored", "claims", "runs", "wrong"),
    [
        (None, [], 0, "it is gone"),
        (a_request(), [], 0, "0 won the decision"),
        (denied(), [DENIED, APPROVED], 0, "2 won the decision"),
        (ran(), [APPROVED, STARTED, STARTED, ENDED], 1, "2 won the step from approved"),
        (ran(), [APPROVED, STARTED, CANCELLED, ENDED], 1, "2 won the step from approved"),
        (ran(), [APPROVED, STARTED, ENDED], 2, "it ran 2 times and was started"),
        (ran(), [APPROVED, STARTED, ENDED], 0, "it ran 0 times and was started"),
        (denied(), [DENIED], 1, "it ran 1 times and was not started"),
        (denied(), [EXPIRED], 0, "its winners left it expired and it is stored as denied"),
        (ran(), [APPROVED, STARTED], 1, "3 steps are stored and 2 were won"),
        (denied(), [EXPIRED], 0, "1 decisions are stored"),
    ],
)
def test_broken_promise_is_told(
    stored: Request | None, claims: Sequence[Claim], runs: int, wrong: str
) -> None:
    assert wrong in judge(stored, claims, runs)


def test_command_ends_with_1_and_keeps_the_place_where_something_ran_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = Driver._runs

    def twice(driver: Driver) -> Counter[str]:
        return told(driver) + Counter({a_request(0).id: 2})

    arguments = ["races", "--races", "3", "--seed", "1", "--directory", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(Driver, "_runs", twice)
    assert command.main() == 1
    said = capsys.readouterr().out
    assert f"seed 1, request {a_request(0).id}: it ran" in said
    assert f"kept: {tmp_path}" in said
    assert (tmp_path / "state").is_dir()


def test_command_ends_with_0_and_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(sys, "argv", ["races", "--races", "3", "--directory", str(place)])
    assert command.main() == 0
    assert "3 races" in capsys.readouterr().out
    assert not place.exists()
