"""Finished files: their names, their newest records, and which of them may go."""

import os
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.audit.rotation import (
    finished,
    finished_name,
    newest_record,
    predecessor,
    read_tail,
    remove_old,
)
from tests.support.audit_files import joined, lines

TIME = "2026-11-20T22:00:00.123456Z"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_a_finished_file_is_named_by_its_instant_and_never_by_a_taken_name(live: Path) -> None:
    names = []
    for _ in range(3):
        name = finished_name(live, TIME)
        name.touch()
        names.append(name.name)
    assert names == [f"audit-20261120T22000012345{n}Z.jsonl" for n in (6, 7, 8)]


def test_a_name_without_suffix_works_too(tmp_path: Path) -> None:
    name = finished_name(tmp_path / "audit", TIME)
    assert name.name == "audit-20261120T220000123456Z"
    name.touch()
    assert [path for _, path in finished(tmp_path / "audit")] == [name]


@pytest.mark.parametrize(
    "name",
    [
        "audit-99999999T999999999999Z.jsonl",
        "audit-20261120T220000Z.jsonl",
        "audit-20261120T220000123456Z.jsonl.gz",
        "other-20261120T220000123456Z.jsonl",
    ],
)
def test_names_of_others_are_not_taken_for_finished_files(live: Path, name: str) -> None:
    (live.parent / name).touch()
    assert list(finished(live)) == []


def test_the_newest_record_of_what_is_no_file_is_none(live: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(live)
    live.write_bytes(joined(lines(1)[0]))
    for name in ("fifo", "link", "none", "."):
        assert newest_record(tmp_path / name) is None
    assert newest_record(live) is not None


def test_the_newest_record_is_found_far_from_the_end(live: Path) -> None:
    made, last = lines(3)
    live.write_bytes(joined(made) + b"\0" * 900_000)
    descriptor = os.open(live, os.O_RDONLY)
    try:
        tail = read_tail(descriptor)
    finally:
        os.close(descriptor)
    assert tail.record is not None
    assert tail.record.link == last
    assert (tail.end, len(tail.rest)) == (len(joined(made)) - 1, 900_000)


def test_the_predecessor_is_the_file_with_the_highest_sequence(live: Path) -> None:
    assert predecessor(live) is None
    for count, name in ((2, "audit.jsonl.2"), (5, "audit.jsonl.1"), (3, "audit-x.jsonl")):
        live.with_name(name).write_bytes(joined(lines(count)[0]))
    live.with_name("audit.jsonl.3.gz").write_bytes(b"\x1f\x8b")
    found = predecessor(live)
    assert found is not None
    assert found.sequence == 5


def test_a_file_that_cannot_be_removed_stops_the_removal(
    live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _ = lines(2)
    for year in (2020, 2021):
        name = finished_name(live, f"{year}-01-01T00:00:00Z")
        name.write_bytes(joined(made))
    late = "2027-11-20T22:00:00Z"

    def refuse(_self: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        assert remove_old(live, retain=timedelta(days=1), time=late) == []
    assert len(list(finished(live))) == 2
    assert len(remove_old(live, retain=timedelta(days=1), time=late)) == 2
