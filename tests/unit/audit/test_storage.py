"""A log whose files root begins, with root played by the test."""

import errno
import json
import logging
import os
from pathlib import Path

import pytest

from host_agent.audit.record import Event
from host_agent.audit.rotation import finished_name
from host_agent.audit.storage import NOTHING_FINISHED, OwnPlace, RootPlace
from host_agent.audit.verify import Concern, verify
from host_agent.errors import AuditUnavailableError
from tests.support.audit_files import HeldClock, events, opened

NAME = "audit-20261120T220000000000Z.jsonl"


class Root:
    """Begins files as the wrapper does; says what `says` has instead, or fails with `error`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs = 0
        self.says: str | None = None
        self.error: OSError | None = None

    def __call__(self) -> str:
        self.runs += 1
        if self.error is not None:
            raise self.error
        said = NOTHING_FINISHED
        self.path.parent.mkdir(exist_ok=True)
        if self.path.exists() and self.path.stat().st_size:
            finished = finished_name(self.path, f"2026-11-20T22:00:{self.runs:02}.000000Z")
            self.path.rename(finished)
            said = finished.name
        for path in (self.path, self.path.with_name(f".{self.path.name}.lock")):
            path.touch()
        return said if self.says is None else self.says


@pytest.fixture(autouse=True)
def _sealed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every file count as one that can only be appended to: no test here is about that."""
    monkeypatch.setattr("host_agent.audit.storage.is_wanting", lambda _descriptor: False)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "log" / "audit.jsonl")


async def test_root_begins_the_first_file_and_every_next_one(root: Root) -> None:
    async with opened(root.path, max_bytes=4096, rotate=root) as log:
        assert root.runs == 1
        for number in range(40):
            await log.append(Event.OPERATION_STARTED, params={"number": number})
        assert root.runs > 2
    files = sorted(root.path.parent.glob("audit-*.jsonl"))
    report = verify([*files, root.path])
    assert len(files) == root.runs - 1
    assert all(report.is_clean(concern) for concern in Concern)


async def test_a_log_that_was_begun_is_gone_on_with_and_root_is_not_asked(root: Root) -> None:
    for expected in (1, 2, 3):
        async with opened(root.path, rotate=root) as log:
            assert await log.append(Event.AGENT_STARTED) == expected
    assert root.runs == 1


async def test_a_new_day_is_a_new_file_of_roots(root: Root) -> None:
    clock = HeldClock()
    async with opened(root.path, clock=clock, rotate=root) as log:
        await log.append(Event.AGENT_STARTED)
        clock.advance(days=1)
        await log.append(Event.AGENT_STARTED)
    assert [name for _, name in events(root.path)] == ["audit.rotated", "agent.started"]


async def test_where_root_does_not_the_log_goes_on_in_the_same_file(
    root: Root, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(root.path, max_bytes=4096, rotate=root) as log:
        root.error = OSError(errno.EACCES, "sudo refuses it")
        with caplog.at_level(logging.WARNING):
            for _ in range(40):
                await log.append(Event.AGENT_STARTED)
        assert "due for rotation and stays" in caplog.text
        assert caplog.text.count("sudo refuses it") == 1
        root.error = None
        await log.append(Event.AGENT_STARTED)
    assert len(list(root.path.parent.glob("audit-*.jsonl"))) == 1


async def test_where_root_does_not_begin_one_there_is_no_log(root: Root) -> None:
    root.error = OSError(errno.EACCES, "sudo refuses it")
    with pytest.raises(AuditUnavailableError, match="sudo refuses it"):
        async with opened(root.path, rotate=root):
            pass
    assert not root.path.parent.exists()


@pytest.mark.parametrize("name", ["../../etc/passwd", "audit.jsonl", "", "x", f"{NAME}\n"])
async def test_what_is_no_name_of_a_finished_file_is_not_believed(root: Root, name: str) -> None:
    root.says = name
    with pytest.raises(OSError, match="no name of a finished file"):
        RootPlace(root.path, root).put_aside("2026-11-20T22:00:00.000000Z")


async def test_a_file_with_content_where_an_empty_one_belongs_is_finished_first(root: Root) -> None:
    root()
    root.path.write_bytes(b"x\n")
    descriptor, is_own = RootPlace(root.path, root).create()
    os.close(descriptor)
    assert (is_own, root.path.read_bytes()) == (False, b"")
    assert [p.read_bytes() for p in root.path.parent.glob("audit-*")] == [b"x\n"]


async def test_another_rotation_is_followed(root: Root) -> None:
    async with opened(root.path, rotate=root) as log:
        await log.append(Event.AGENT_STARTED)
        root()
        await log.append(Event.AGENT_STARTED)
    assert [name for _, name in events(root.path)] == ["audit.rotated", "agent.started"]
    files = sorted(root.path.parent.glob("audit-*.jsonl"))
    assert all(verify([*files, root.path]).is_clean(concern) for concern in Concern)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch, root: Root) -> list[int]:
    """How often the directory is found closed before it opens, first number; counted down."""
    left = [0]
    lstat = Path.lstat

    def look(path: Path) -> os.stat_result:
        if path == root.path and left[0] > 0:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "Permission denied")
        return lstat(path)

    monkeypatch.setattr("host_agent.audit.storage._CLOSED_SECONDS", 0)
    monkeypatch.setattr(Path, "lstat", look)
    return left


@pytest.mark.promise("c6")
async def test_a_record_waits_while_files_change_places(root: Root, closed: list[int]) -> None:
    async with opened(root.path, rotate=root) as log:
        closed[0] = 100
        assert await log.append(Event.AGENT_STARTED) == 1
    assert (closed, root.runs) == ([0], 1)


@pytest.mark.promise("c6")
async def test_a_directory_that_nobody_opens_again_is_opened_by_root(
    root: Root, closed: list[int]
) -> None:
    async with opened(root.path, rotate=root) as log:
        await log.append(Event.AGENT_STARTED)
        closed[0] = 200
        assert await log.append(Event.AGENT_STARTED) == 3
    assert root.runs == 2
    assert [name for _, name in events(root.path)] == ["audit.rotated", "agent.started"]


@pytest.mark.promise("c6")
async def test_a_directory_that_stays_closed_takes_no_record(root: Root, closed: list[int]) -> None:
    async with opened(root.path, rotate=root) as log:
        closed[0] = 1000
        with pytest.raises(AuditUnavailableError):
            await log.append(Event.AGENT_STARTED)
    assert root.path.read_bytes() == b""


# -- others have the file finished while a batch is written ---------------------------------------


class Meanwhile:
    """Root finishes the file between a write and its sync; the copy has `keeps` of its end.

    `keeps` of None is all of it. The old file is linked elsewhere, as who may append could do.
    """

    def __init__(self, root: Root, keeps: int | None) -> None:
        self._root = root
        self._keeps = keeps
        self.is_due = False

    def __call__(self, descriptor: int) -> None:
        os.fdatasync(descriptor)
        if not self.is_due:
            return
        self.is_due = False
        path = self._root.path
        whole = path.read_bytes()
        begin = whole.rfind(b"\n", 0, len(whole) - 1) + 1
        os.link(path, path.parent.with_name("elsewhere"))
        path.unlink()
        finished = finished_name(path, "2026-11-20T23:00:00.000000Z")
        finished.write_bytes(whole if self._keeps is None else whole[: begin + self._keeps])
        path.touch()


@pytest.mark.promise("c6")
@pytest.mark.parametrize("keeps", [None, 0, 1, 40])
async def test_what_root_did_not_copy_is_written_again_and_nothing_twice(
    root: Root, keeps: int | None
) -> None:
    meanwhile = Meanwhile(root, keeps)
    async with opened(root.path, rotate=root, fsync=meanwhile) as log:
        await log.append(Event.AGENT_STARTED)
        meanwhile.is_due = True
        await log.append(Event.OPERATION_STARTED, caller="one")
        await log.append(Event.OPERATION_STARTED, caller="two")
    files = [*sorted(root.path.parent.glob("audit-*.jsonl")), root.path]
    report = verify(files)
    assert all(report.is_clean(concern) for concern in Concern), report.findings
    records = [json.loads(line) for file in files for line in whole_lines(file)]
    assert [r.get("caller") for r in records if r["event"] == "operation.started"] == ["one", "two"]
    (rotated,) = (r for r in records if r["event"] == "audit.rotated")
    assert rotated["cause"] == "replaced"
    assert rotated.get("length") == (keeps or None)


def whole_lines(file: Path) -> list[bytes]:
    return [line for line in file.read_bytes().split(b"\n") if line.endswith(b"}")]


@pytest.mark.promise("c6")
async def test_a_log_that_somebody_wrote_to_and_had_finished_is_left(root: Root) -> None:
    async with opened(root.path, rotate=root) as log:
        await log.append(Event.AGENT_STARTED)
        with root.path.open("ab") as file:
            file.write(b"not a record\n")
        rotate, root.says = root.__call__, NOTHING_FINISHED
        rotate()  # theirs comes first: the agent's own finds nothing
        assert await log.append(Event.AGENT_STARTED) == 3
        root.says = None
        assert await log.append(Event.AGENT_STARTED) == 4


@pytest.mark.promise("c6")
async def test_what_is_no_log_is_put_aside_by_root_at_a_start(root: Root) -> None:
    async with opened(root.path, rotate=root) as log:
        await log.append(Event.AGENT_STARTED)
    root()
    root.path.write_bytes(b"x" * 1_200_000)
    async with opened(root.path, rotate=root) as log:
        assert await log.append(Event.AGENT_STARTED) == 3
    assert [name for _, name in events(root.path)] == ["audit.rotated", "agent.started"]


@pytest.mark.promise("c6")
async def test_a_finished_file_that_cannot_be_read_is_not_passed_over(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(root.path, rotate=root) as log:
        await log.append(Event.AGENT_STARTED)
    root()
    open_ = os.open

    def refuse(path: Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if "audit-2026" in str(path):
            raise OSError(errno.EIO, "Input/output error")
        return open_(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(AuditUnavailableError):
        async with opened(root.path, rotate=root):
            pass
    assert root.path.read_bytes() == b""


def test_a_finish_that_somebody_else_was_quicker_with_finishes_nothing(root: Root) -> None:
    root()
    place = RootPlace(root.path, root)
    with pytest.raises(FileNotFoundError, match="somebody else"):
        place.put_aside("2026-11-20T22:00:00.000000Z")
    root.path.write_bytes(b"x")
    assert place.put_aside("2026-11-20T22:00:00.000000Z").startswith("audit-")


@pytest.mark.parametrize("is_begun", [True, False])
def test_a_file_that_root_did_not_begin_empty_is_none(root: Root, is_begun: bool) -> None:
    root()
    root.path.write_bytes(b"x")
    place = RootPlace(root.path, root if is_begun else lambda: NOTHING_FINISHED)
    if is_begun:
        descriptor, _ = place.create()
        assert os.fstat(descriptor).st_size == 0
        os.close(descriptor)
    else:
        with pytest.raises(FileExistsError, match="no empty file"):
            place.create()
        assert root.path.read_bytes() == b"x"


@pytest.mark.parametrize(("copied", "kept"), [(b"context+new", 4), (b"context+old", 0)])
def test_only_what_root_copied_of_a_record_is_kept(root: Root, copied: bytes, kept: int) -> None:
    """The directory was closed and the file finished under our hands: root's copy decides."""
    root()
    with root.path.open("wb+") as live:
        live.write(b"context+new")
        live.flush()
        root.path.unlink()
        finished_name(root.path, "2026-11-20T22:00:01.000000Z").write_bytes(copied)
        begin = len(b"context")
        assert RootPlace(root.path, root).kept(live.fileno(), begin, b"+new") == kept


def test_what_is_not_ours_is_moved_aside_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for number in range(3):
        path.write_text(f"of somebody else, {number}")
        descriptor, _ = OwnPlace(path).create()
        os.close(descriptor)
    aside = sorted(tmp_path.glob("*.displaced-*"))
    assert [file.name for file in aside] == [f"audit.jsonl.displaced-{n}" for n in range(3)]
    assert [file.read_text() for file in aside] == [f"of somebody else, {n}" for n in range(3)]
    descriptor, _ = OwnPlace(path).create()  # an empty one is nobody's
    os.close(descriptor)
    assert sorted(tmp_path.glob("*.displaced-*")) == aside
