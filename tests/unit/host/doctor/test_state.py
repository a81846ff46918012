"""What the doctor says of clock, store, audit log and disk, without touching any of them."""

import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from host_agent.audit.record import Record, read
from host_agent.audit.rotation import finished_name
from host_agent.host.doctor import state as state_module
from host_agent.host.doctor.state import (
    NOT_BEFORE,
    audit_checks,
    clock_check,
    disk_check,
    store_check,
)
from host_agent.host.doctor.values import Check, CheckState
from tests.support.audit_files import NOW, joined, lines


def newest(count: int = 3) -> Record:
    return read(lines(count)[0][-1])


# -- clock ----------------------------------------------------------------------------------------


def test_a_clock_later_than_everything_recorded_is_good() -> None:
    assert clock_check(NOW + timedelta(hours=1), newest()).state is CheckState.OK


@pytest.mark.promise("c8")
@pytest.mark.parametrize("now", [datetime(1970, 1, 1, tzinfo=UTC), NOT_BEFORE - timedelta(days=1)])
def test_a_clock_before_this_release_is_a_problem(now: datetime) -> None:
    assert clock_check(now, None).state is CheckState.PROBLEM


@pytest.mark.promise("c8")
def test_a_clock_behind_the_audit_log_is_a_problem() -> None:
    check = clock_check(NOW - timedelta(hours=1), newest())

    assert check.state is CheckState.PROBLEM
    assert "2026-11-20 22:00 UTC" in check.sentence


# -- store ----------------------------------------------------------------------------------------


def database(path: Path) -> Path:
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE requests (id TEXT)")
    raw.executemany("INSERT INTO requests VALUES (?)", [("x" * 900,)] * 50)
    raw.commit()
    raw.close()
    return path


def test_a_whole_store_is_good_and_nothing_is_made_beside_it(tmp_path: Path) -> None:
    check = store_check(database(tmp_path / "a b.db"))

    assert check.state is CheckState.OK
    assert "requests in it: 50" in check.sentence
    assert [entry.name for entry in tmp_path.iterdir()] == ["a b.db"]


def test_a_store_that_is_missing_is_not_made(tmp_path: Path) -> None:
    assert store_check(tmp_path / "none.db").state is CheckState.WARNING
    assert not list(tmp_path.iterdir())


@pytest.mark.promise("c46")
def test_a_damaged_store_is_a_problem(tmp_path: Path) -> None:
    path = database(tmp_path / "store.db")
    data = bytearray(path.read_bytes())
    data[4096:12288] = b"\xff" * 8192
    path.write_bytes(data)

    check = store_check(path)

    assert check.state is CheckState.PROBLEM
    assert "restore" in check.remedy


@pytest.mark.promise("c46")
def test_what_is_no_database_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_text("nonsense " * 100)

    assert store_check(path).state is CheckState.PROBLEM


# -- audit ----------------------------------------------------------------------------------------


def audited(path: Path, record: Record | OSError | None) -> dict[str, Check]:
    return {check.name: check for check in audit_checks(path, record)}


def test_a_log_says_its_head_and_that_it_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(joined(lines(3)[0]))

    found = audited(path, newest())

    assert {check.state for check in found.values()} == {CheckState.OK}
    assert newest().hash in found["audit log"].sentence
    assert "3 records" in found["audit chain"].sentence


@pytest.mark.promise("c7")
def test_an_edited_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(joined(lines(3)[0]).replace(b'"number":1', b'"number":9'))

    check = audited(path, newest())["audit chain"]

    assert check.state is CheckState.PROBLEM
    assert "record 2" in check.sentence


@pytest.mark.promise("c7")
@pytest.mark.parametrize("is_altered", [True, False])
def test_an_edited_line_of_a_finished_file_is_named(tmp_path: Path, is_altered: bool) -> None:
    path, made = tmp_path / "audit.jsonl", lines(6)[0]
    older = finished_name(path, "2026-11-20T22:00:00.000000Z")
    content = joined(made[:3])
    if is_altered:
        content = content.replace(b'"number":1', b'"number":9')
    older.write_bytes(content)
    path.write_bytes(joined(made[3:]))

    check = audited(path, newest())["audit chain"]

    if is_altered:
        assert check.state is CheckState.PROBLEM
        assert check.sentence.startswith(f"{older} is not what was written, first at record 2")
    else:
        assert check.state is CheckState.OK
        assert "6 records" in check.sentence
        assert "the 1 before it" in check.sentence


def test_finished_files_are_read_as_far_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = tmp_path / "audit.jsonl", lines(6)[0]
    older = finished_name(path, "2026-11-20T22:00:00.000000Z")
    older.write_bytes(joined(made[:3]).replace(b'"number":1', b'"number":9'))
    path.write_bytes(joined(made[3:]))
    monkeypatch.setattr(state_module, "_VERIFIED_BYTES", path.stat().st_size + 10)

    assert audited(path, newest())["audit chain"].state is CheckState.OK


def test_a_log_that_is_no_log_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("nonsense\n")

    assert audited(path, None)["audit chain"].state is CheckState.PROBLEM


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (FileNotFoundError(2, "missing"), CheckState.WARNING),
        (PermissionError(13, "refused"), CheckState.WARNING),
        (OSError(5, "input/output error"), CheckState.PROBLEM),
    ],
)
def test_a_log_that_cannot_be_read_says_why(
    tmp_path: Path, error: OSError, state: CheckState
) -> None:
    (check,) = audit_checks(tmp_path / "audit.jsonl", error)

    assert check.state is state
    assert check.remedy


# -- disk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mebibytes", "files", "state"),
    [
        (5000, 10**6, CheckState.OK),
        (500, 10**6, CheckState.WARNING),
        (50, 10**6, CheckState.PROBLEM),
        (5000, 10, CheckState.PROBLEM),
    ],
)
def test_room_on_the_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mebibytes: int,
    files: int,
    state: CheckState,
) -> None:
    real = os.statvfs(tmp_path)
    facts = list(real[:10])
    facts[1], facts[4], facts[5], facts[7] = 4096, mebibytes * 256, 10**7, files
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result(facts))

    assert disk_check(tmp_path).state is state
