"""The short form of the crash harness: few kills, at the points where a promise could break.

`make crash` is the long form. Each test asserts that its points were really died at.
"""

import asyncio
import dataclasses
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.crash.driver import Driver, Settings, Stage
from tests.crash.ledger import Kind
from tests.crash.points import POINTS, TORN
from tests.crash.report import Report

SEED = 20_261_120

BEFORE_THE_RUN = (
    "store.approved.before",
    "store.commit.after",
    "store.approved.after",
    "audit.decided.after",
    "store.running.before",
    "recover.listed",
)
AROUND_THE_RUN = (
    "store.running.after",
    "audit.started.before",
    "audit.started.after",
    "run.change.spawned",
    "run.change.after",
    "audit.finished.after",
)


async def crash(
    directory: Path, points: Sequence[str], kills: int, *, last_wishes: Sequence[Kind] = ()
) -> Driver:
    driver = Driver(
        Settings(
            kills=kills,
            seed=SEED,
            directory=directory,
            points=points,
            random_share=0.0 if points else 1.0,
            patience_steps=300,
            last_wishes=last_wishes,
            keeps=True,
        )
    )
    await driver.run()
    return driver


async def unbroken(directory: Path, points: Sequence[str], kills: int) -> Report:
    report = (await crash(directory, points, kills)).report
    assert report.violations == []
    assert report.total == kills
    return report


@pytest.mark.promise("c1")
async def test_killed_between_approval_and_run_it_runs_once(tmp_path: Path) -> None:
    report = await unbroken(tmp_path, BEFORE_THE_RUN, 8)
    assert all(report.kills[point] for point in BEFORE_THE_RUN)
    assert report.states["succeeded"]


@pytest.mark.promise("c2")
async def test_killed_between_run_and_record_it_is_unknown_and_not_run_again(
    tmp_path: Path,
) -> None:
    report = await unbroken(tmp_path, AROUND_THE_RUN, 8)
    assert all(report.kills[point] for point in AROUND_THE_RUN)
    assert report.states["unknown"]


@pytest.mark.promise("c3")
async def test_killed_in_an_audit_write_the_log_goes_on_and_verifies(tmp_path: Path) -> None:
    report = await unbroken(tmp_path, (TORN,), 4)
    assert report.kills[TORN] == 4
    assert 1 <= report.recoveries <= 4  # one accounts for a torn line and for its torn repair


async def test_killed_at_any_time_nothing_told_is_lost(tmp_path: Path) -> None:
    report = await unbroken(tmp_path, (), 6)
    assert report.starts == 7


async def test_killed_between_step_and_record_the_next_start_writes_it(tmp_path: Path) -> None:
    points = ("store.insert.after", "store.denied.after", "store.unknown.after")
    report = await unbroken(tmp_path, points, 6)
    assert report.caught_up


# -- refusal twins: a harness that finds nothing wherever it looks proves nothing ------------------


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A place after two kills and a last life, in which nothing is broken yet.

    However little was done before the kills: there is a run, and a denial that was told.
    """
    points = ("run.change.spawned", "store.denied.after")
    last = (Kind.DENY, Kind.APPROVE)
    driver = asyncio.run(crash(tmp_path_factory.mktemp("crash"), points, 2, last_wishes=last))
    assert driver.report.violations == []
    assert driver.stage is not None
    return driver.stage


def examined(stage: Stage) -> list[str]:
    return stage.evidence.examine(has_served=True, whole=True)


def test_harness_notices_a_second_run(seen: Stage) -> None:
    line = seen.place.side_path.read_text().splitlines()[-1]
    _pid, verb, name = line.split(" ")
    with seen.place.side_path.open("a") as side:
        side.write(f"{line}\n")
    assert f"{name}: git.{verb} ran 2 times" in examined(seen)
    seen.evidence.executions[verb, name] = 1
    assert examined(seen) == []


def test_harness_notices_a_run_without_its_intent(seen: Stage) -> None:
    with seen.place.side_path.open("a") as side:
        side.write("1 switch b-999999\n")
    assert "b-999999: git.switch ran and no operation.started is on disk" in examined(seen)
    del seen.evidence.executions["switch", "b-999999"]
    assert examined(seen) == []


def test_harness_notices_a_lost_request_and_a_lost_decision(seen: Stage) -> None:
    (name, (row, *_)), *_ = (
        (name, rows)
        for name, rows in seen.evidence.rows().items()
        if any(verb == "deny" for _, verb in seen.ledger.wishes[name].told_voices)
    )
    wish = seen.ledger.wishes[name]
    kept = dataclasses.replace(wish)
    with sqlite3.connect(seen.place.store_path) as connection:
        statement = "UPDATE requests SET state = 'cancelled', decisions = '[]' WHERE id = ?"
        connection.execute(statement, (row.request_id,))
        wrong = "\n".join(examined(seen))
        assert f"{name} ({wish.kind}): lost the decisions" not in wrong  # not committed yet
    wrong = "\n".join(examined(seen))
    assert f"{name} ({wish.kind}): was denied and is cancelled" in wrong
    assert f"{name} ({wish.kind}): lost the decisions" in wrong
    with sqlite3.connect(seen.place.store_path) as connection:
        connection.execute("DELETE FROM requests WHERE id = ?", (row.request_id,))
    gone = f"{name} ({wish.kind}): request {row.request_id} was told and is gone"
    assert gone in examined(seen)
    del seen.ledger.wishes[kept.name]


def test_harness_notices_a_changed_audit_log(seen: Stage) -> None:
    path = seen.place.audit_path
    good = path.read_bytes()
    path.write_bytes(good.replace(b"agent.stopped", b"agent.stepped"))
    assert any(what.startswith("audit verify") for what in examined(seen))
    path.write_bytes(good)
    assert examined(seen) == []


def test_every_point_is_named_once() -> None:
    assert len(set(POINTS)) == len(POINTS)
