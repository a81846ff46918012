"""The log: durable in order, fail closed, continued after a restart, rotated, never two writers."""

import asyncio
import errno
import json
import os
import stat
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.audit.log import AuditLog
from host_agent.audit.record import GENESIS, Event, build, digest_of, link, read
from host_agent.audit.verify import Concern, verify
from host_agent.canonical import JsonValue
from host_agent.errors import AuditUnavailableError
from tests.support.audit_files import (
    NOW,
    HeldClock,
    events,
    failing,
    first_record,
    joined,
    lines,
    opened,
)
from tests.support.patience import PATIENCE

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def finished(path: Path) -> list[Path]:
    return sorted(path.parent.glob("audit-*.jsonl"))


def everything(path: Path) -> list[Path]:
    return [*finished(path), path]


def no_sync(_descriptor: int) -> None:
    """Stand in for a sync where only the bytes matter."""


def is_healthy(log: AuditLog) -> bool:
    return log.healthy  # a call, so that mypy does not believe that it stays


async def append(log: AuditLog, count: int = 1) -> list[int]:
    return await asyncio.gather(*(log.append(Event.OPERATION_STARTED) for _ in range(count)))


# -- records --------------------------------------------------------------------------------------


async def test_records_are_on_disk_in_the_order_of_the_calls(path: Path) -> None:
    synced: list[int] = []

    def sync(descriptor: int) -> None:
        os.fdatasync(descriptor)
        synced.append(path.read_bytes().count(b"\n"))

    async with opened(path, fsync=sync) as log:
        sequences = await asyncio.gather(
            *(log.append(Event.OPERATION_STARTED, caller=f"c{n}") for n in range(100))
        )
        assert synced[-1] == 100
        assert len(synced) < 100
        records = [read(line) for line in path.read_bytes().splitlines()]
        assert log.head == records[-1].hash
        assert log.sequence == 100
    assert sequences == list(range(1, 101))
    assert [record.members["caller"] for record in records] == [f"c{n}" for n in range(100)]
    assert records[0].previous == GENESIS


async def test_a_record_holds_what_was_told_and_the_time_of_the_clock(path: Path) -> None:
    async with opened(path) as log:
        await log.append(
            Event.REQUEST_DECIDED,
            caller="librarian",
            owner="alice",
            params={"repository": "/srv/app"},
            outcome={"exit_code": 0},
            approver="bob",
        )
    record = first_record(path)
    assert record["time"] == "2026-11-20T22:00:00.000000Z"
    assert record["event"] == "request.decided"
    assert record["params"] == {"repository": "/srv/app"}
    assert (record["approver"], record["owner"]) == ("bob", "alice")
    assert "reason" not in record


async def test_an_empty_log_has_no_head(path: Path) -> None:
    async with opened(path) as log:
        assert (log.head, log.sequence, log.healthy) == (GENESIS, 0, True)


async def test_what_became_durable_is_counted(path: Path) -> None:
    counted: list[int] = []
    async with opened(path, on_records=counted.append) as log:
        await append(log, 50)
    assert sum(counted) == 50


async def test_a_defective_record_fails_alone(path: Path) -> None:
    async with opened(path) as log:
        results = await asyncio.gather(
            log.append(Event.OPERATION_STARTED, caller="a"),
            log.append(Event.OPERATION_STARTED, params={"ratio": 0.5}),  # type: ignore[dict-item]
            log.append(Event.OPERATION_STARTED, caller="b"),
            return_exceptions=True,
        )
        assert results[0] == 1
        assert isinstance(results[1], ValueError)
        assert results[2] == 2
        assert is_healthy(log)
    assert verify([path]).found == 0


async def test_a_detail_cannot_take_the_chains_names(path: Path) -> None:
    async with opened(path) as log:
        with pytest.raises(ValueError, match="set by the log alone"):
            await log.append(Event.OPERATION_STARTED, sequence=7)
    assert path.read_bytes() == b""


async def test_a_cancelled_caller_does_not_take_its_record_back(path: Path) -> None:
    gate = threading.Event()

    def sync(_descriptor: int) -> None:
        gate.wait(PATIENCE)

    async with opened(path, fsync=sync) as log:
        task = asyncio.create_task(log.append(Event.OPERATION_STARTED))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.set()
        assert await log.append(Event.OPERATION_FINISHED) == 2
    assert events(path) == [(1, "operation.started"), (2, "operation.finished")]


async def test_a_closed_log_refuses(path: Path) -> None:
    async with opened(path) as log:
        await append(log)
    with pytest.raises(AuditUnavailableError):
        await append(log)
    assert not is_healthy(log)
    assert events(path) == [(1, "operation.started")]


async def test_closing_writes_what_is_queued(path: Path) -> None:
    async with opened(path) as log:
        tasks = [asyncio.create_task(log.append(Event.OPERATION_STARTED)) for _ in range(20)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*tasks) == list(range(1, 21))
    assert len(events(path)) == 20


# -- opening --------------------------------------------------------------------------------------


async def test_the_chain_goes_on_after_a_restart(path: Path) -> None:
    async with opened(path) as log:
        await append(log, 3)
        head = log.head
    async with opened(path) as log:
        assert (log.head, log.sequence) == (head, 3)
        assert log.newest_time == "2026-11-20T22:00:00.000000Z"
        assert await append(log, 2) == [4, 5]
    report = verify([path], head)
    assert (report.found, report.records, report.head_sequence) == (0, 5, 3)


async def test_opening_reads_only_the_end(path: Path) -> None:
    made, last = lines(20_000)
    path.write_bytes(b"junk, never read\n" + joined(made))
    path.chmod(0o600)
    async with opened(path) as log:
        assert log.head == last.hash


async def test_the_file_is_the_agents_alone(path: Path) -> None:
    old = os.umask(0)
    try:
        async with opened(path) as log:
            await append(log)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_two_agents_never_write_one_file(path: Path) -> None:
    async with opened(path) as log:
        await append(log)
        for lock in path.parent.glob(".*.lock"):
            with pytest.raises(AuditUnavailableError, match="another agent"):
                async with opened(path):
                    pass
            lock.unlink()
        with pytest.raises(AuditUnavailableError, match="another agent"):
            async with opened(path):
                pass
        assert await append(log) == [2]


@pytest.mark.promise("c43")
async def test_a_symlink_is_refused(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"")
    path.symlink_to(target)
    with pytest.raises(AuditUnavailableError, match="not a regular file"):
        async with opened(path):
            pass
    assert target.read_bytes() == b""


@pytest.mark.promise("c43")
async def test_a_fifo_or_a_directory_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(AuditUnavailableError, match="not a regular file"):
        async with opened(path):
            pass
    path.unlink()
    path.mkdir()
    with pytest.raises(AuditUnavailableError, match="not a regular file"):
        async with opened(path):
            pass


@pytest.mark.parametrize("content", [b"root:x:0:0:root:/root:/bin/bash\n", b"{}\n", b"\n", b"x"])
async def test_a_file_that_is_no_audit_log_is_refused_and_left_alone(
    path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(AuditUnavailableError, match="no audit record"):
        async with opened(path):
            pass
    assert path.read_bytes() == content


async def test_a_long_file_without_a_record_at_its_end_is_refused(path: Path) -> None:
    made, _ = lines(1)
    content = joined(made) + b"{" * 1_200_000
    path.write_bytes(content)
    with pytest.raises(AuditUnavailableError, match="no audit record"):
        async with opened(path):
            pass
    assert path.stat().st_size == len(content)


async def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AuditUnavailableError, match="cannot be opened"):
        async with opened(tmp_path / "file" / "audit.jsonl"):
            pass


# -- C3: torn lines -------------------------------------------------------------------------------


@pytest.mark.promise("c3")
async def test_a_line_torn_at_any_byte_stays_and_the_chain_goes_on(path: Path) -> None:
    made, _ = lines(3)
    whole = joined(made)
    start = len(joined(made[:2]))
    for cut in range(start, len(whole) + 1):
        path.write_bytes(whole[:cut])
        before = verify([path])
        assert before.found == 0
        is_torn = start < cut < len(whole) - 1  # a record that lacks only its newline is whole
        assert [torn.sequence for torn in before.torn] == ([3] if is_torn else [])
        async with opened(path) as log:
            await append(log)
        after = verify([path])
        assert after.found == 0
        assert path.read_bytes().startswith(whole[:cut])
        if is_torn:
            assert [(torn.sequence, torn.length) for torn in after.torn] == [(3, cut - start)]
            recovered = read(path.read_bytes().split(b"\n")[3])
            assert recovered.members["event"] == "audit.recovered"
            assert recovered.members["length"] == cut - start
            assert recovered.members["cause"] == "torn"
            assert after.records == 4
        else:
            assert after.torn == []
        path.unlink()


@pytest.mark.promise("c3")
async def test_a_torn_first_line_is_followed_by_a_recovery_that_begins_the_chain(
    path: Path,
) -> None:
    path.write_bytes(b'{"caller":"lib')
    async with opened(path) as log:
        assert await append(log) == [2]
    assert events(path) == [(1, "audit.recovered"), (2, "operation.started")]
    assert verify([path]).found == 0


@pytest.mark.promise("c3")
async def test_a_recovery_that_was_torn_itself_is_recovered(path: Path) -> None:
    made, _ = lines(2)
    torn = joined(made) + b'{"caller":"lib'
    path.write_bytes(torn)
    async with opened(path) as log:
        await append(log)
    recovered = path.read_bytes()
    for cut in range(len(torn), len(recovered)):
        path.write_bytes(recovered[:cut])
        async with opened(path) as log:
            await append(log)
        report = verify([path])
        assert report.found == 0, (cut, report.findings)
        assert len(report.torn) >= 1


@pytest.mark.promise("c3")
async def test_zeros_that_a_power_cut_leaves_are_torn_bytes(path: Path) -> None:
    made, _ = lines(2)
    path.write_bytes(joined(made) + bytes(4096))
    async with opened(path) as log:
        await append(log)
    report = verify([path])
    assert (report.found, report.torn[0].length) == (0, 4096)


async def test_an_edited_last_line_is_not_taken_for_torn(path: Path) -> None:
    made, _ = lines(3)
    path.write_bytes(joined(made).replace(b'"number":2', b'"number":9'))
    async with opened(path) as log:
        assert await append(log) == [4]
    assert first_record(path)["cause"] == "damaged"
    report = verify(everything(path))
    assert report.first_bad == 3
    assert [Path(finding.file) for finding in report.findings] == finished(path)


# -- C4: full disk --------------------------------------------------------------------------------


class Disk:
    """Stands in for `os.write`: takes only so many bytes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.room is None:
            return self._write(descriptor, data)
        if self.room == 0:
            raise NO_SPACE
        written = self._write(descriptor, data[: self.room])
        self.room -= written
        return written


@pytest.mark.promise("c4")
async def test_a_full_disk_refuses_and_recovers_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    failures: list[str] = []
    monkeypatch.setattr("host_agent.audit.log.RETRY_SECONDS", 0.01)
    recovered_alone = asyncio.Event()
    async with opened(
        path,
        on_records=lambda _: recovered_alone.set(),
        on_failure=lambda: failures.append("failed"),
    ) as log:
        await append(log, 2)
        disk.room = 10
        with pytest.raises(AuditUnavailableError, match="No space left"):
            await append(log)
        assert not is_healthy(log)
        assert log.sequence == 2
        with pytest.raises(AuditUnavailableError):
            await append(log)
        recovered_alone.clear()
        disk.room = None
        await asyncio.wait_for(recovered_alone.wait(), PATIENCE)
        assert is_healthy(log)
        assert await append(log) == [4]
    assert failures
    assert events(path)[2:] == [(3, "audit.recovered"), (4, "operation.started")]
    recovered = read(path.read_bytes().split(b"\n")[3])
    assert recovered.members["cause"] == "write-failed"
    assert recovered.members["length"] == 10
    assert recovered.members["lost"] == 2
    report = verify([path])
    assert (report.found, [torn.length for torn in report.torn]) == (0, [10])


@pytest.mark.promise("c4")
async def test_at_every_byte_what_was_told_as_written_is_what_is_in_the_chain(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    sample, _ = lines(3)
    for room in range(len(joined(sample)) + 40):
        disk.room = None
        told: list[int] = []
        async with opened(path, fsync=no_sync) as log:
            await append(log)
            disk.room = room
            for _ in range(2):
                results = await asyncio.gather(
                    *(log.append(Event.OPERATION_STARTED, caller=f"c{n}") for n in range(4)),
                    return_exceptions=True,
                )
                told += [result for result in results if isinstance(result, int)]
            disk.room = None
            told += await append(log)
        report = verify([path])
        assert report.found == 0, (room, report.findings)
        in_chain = [s for s, event in events(path)[1:] if event == "operation.started"]
        assert in_chain == told
        assert report.records == len(events(path))
        path.unlink()


@pytest.mark.promise("c4")
async def test_a_new_file_that_the_disk_has_no_room_for_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    clock = HeldClock()
    async with opened(path, clock=clock) as log:
        await append(log)
        clock.advance(days=1)
        disk.room = 25
        with pytest.raises(AuditUnavailableError):
            await append(log)
        disk.room = None
        assert await append(log) == [4]
    assert first_record(path)["cause"] == "day"
    assert events(path)[:2] == [(2, "audit.rotated"), (3, "audit.recovered")]
    report = verify(everything(path))
    assert (report.found, report.torn) == (0, [])


# -- C5: failed sync ------------------------------------------------------------------------------


@pytest.mark.promise("c5")
async def test_a_file_whose_sync_failed_is_never_written_again(path: Path) -> None:
    sync, seen = failing(0, BROKEN)
    calls = {"fail": False}

    def fsync(descriptor: int) -> None:
        sync(descriptor)
        if calls["fail"]:
            calls["fail"] = False
            raise BROKEN

    async with opened(path, fsync=fsync) as log:
        await append(log, 3)
        calls["fail"] = True
        with pytest.raises(AuditUnavailableError, match="Input/output"):
            await append(log)
        assert not is_healthy(log)
        left = path.read_bytes()
        assert await append(log) == [6]
        assert is_healthy(log)
    (old,) = finished(path)
    assert old.read_bytes() == left
    rotated = first_record(path)
    assert (rotated["event"], rotated["cause"]) == ("audit.rotated", "sync-failed")
    assert rotated["sequence"] == 4
    assert rotated["file"] == old.name
    assert events(path) == [(4, "audit.rotated"), (5, "audit.recovered"), (6, "operation.started")]
    report = verify(everything(path))
    (finding,) = report.findings
    assert (finding.concern, finding.sequence) == (Concern.COMPLETENESS, 4)
    assert "whole records, 4 to 4," in finding.message
    assert [torn.sequence for torn in report.torn] == [4]
    assert len(seen) == 3


@pytest.mark.promise("c5")
async def test_what_a_failed_sync_left_may_be_lost_and_may_not_be_changed(path: Path) -> None:
    calls = {"fail": False}

    def fsync(_descriptor: int) -> None:
        if calls["fail"]:
            calls["fail"] = False
            raise BROKEN

    async with opened(path, fsync=fsync) as log:
        await append(log, 2)
        calls["fail"] = True
        await asyncio.gather(append(log), return_exceptions=True)
        await append(log)
    (old,) = finished(path)
    whole = old.read_bytes()
    kept = len(b"\n".join(whole.split(b"\n")[:2])) + 1
    for cut in range(kept, len(whole) + 1):
        old.write_bytes(whole[:cut])
        report = verify(everything(path))
        assert report.is_clean(Concern.INTEGRITY)
        assert report.found == (cut >= len(whole) - 1)  # a whole record is named
    for at in range(kept, len(whole) - 1):
        old.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert verify(everything(path)).found == 1
    old.write_bytes(whole + whole[kept:])
    assert verify(everything(path)).found == 1


async def test_whole_records_are_not_passed_over_for_a_write_that_was_cut_short(path: Path) -> None:
    """Who may append says that a sync failed, and that nothing of what followed was told."""
    async with opened(path) as log:
        await append(log, 50)
    lines = path.read_bytes().splitlines(keepends=True)
    path.rename(path.with_name("audit-20261120T220000000000Z.jsonl"))
    hidden = b"".join(lines[10:]).removesuffix(b"\n")
    told: dict[str, JsonValue] = {"length": len(hidden), "sha256": digest_of(hidden)}
    members = build(
        Event.AUDIT_ROTATED, "2026-11-20T22:00:00.000000Z", {**told, "cause": "sync-failed"}
    )
    forged, _ = link(members, read(lines[9].removesuffix(b"\n")).link)
    path.write_bytes(forged + b"\n")
    path.chmod(0o600)
    async with opened(path) as log:
        await append(log, 2)
    (finding,) = verify(everything(path)).findings
    assert finding.concern is Concern.COMPLETENESS
    assert "whole records, 11 to 50," in finding.message


@pytest.mark.promise("c5")
async def test_a_disk_that_stays_broken_leaves_no_litter(path: Path) -> None:
    broken = {"is": False}

    def fsync(_descriptor: int) -> None:
        if broken["is"]:
            raise BROKEN

    async with opened(path, fsync=fsync) as log:
        await append(log, 2)
        broken["is"] = True
        for _ in range(5):
            with pytest.raises(AuditUnavailableError):
                await append(log)
        assert len(finished(path)) == 1
        broken["is"] = False
        assert await append(log) == [5]
    assert len(finished(path)) == 1
    assert first_record(path)["cause"] == "sync-failed"
    assert verify(everything(path)).concerns == {Concern.COMPLETENESS}


@pytest.mark.promise("c5")
async def test_a_first_sync_that_fails_begins_the_chain_anew(path: Path) -> None:
    sync, _ = failing(1, BROKEN)
    async with opened(path, fsync=sync) as log:
        with pytest.raises(AuditUnavailableError):
            await append(log)
        assert await append(log) == [2]
    assert events(path) == [(1, "audit.recovered"), (2, "operation.started")]
    assert verify([path]).found == 0


# -- C6: the file goes away -----------------------------------------------------------------------


@pytest.mark.promise("c6")
async def test_an_unlinked_file_is_noticed_and_nothing_is_written_to_it(path: Path) -> None:
    async with opened(path) as log:
        await append(log, 3)
        head = log.head
        with path.open("rb") as held:
            path.unlink()
            assert await append(log) == [5]
            assert len(held.read().splitlines()) == 3
    rotated = first_record(path)
    assert (rotated["sequence"], rotated["previous"]) == (4, head)
    assert (rotated["event"], rotated["cause"]) == ("audit.rotated", "unlinked")
    report = verify([path])
    assert (report.found, report.first, report.records) == (0, 4, 2)


@pytest.mark.promise("c6")
async def test_a_file_unlinked_under_the_write_is_written_anew(path: Path) -> None:
    doomed = {"is": False}

    def sync(descriptor: int) -> None:
        os.fdatasync(descriptor)
        if doomed["is"]:
            doomed["is"] = False
            path.unlink()

    async with opened(path, fsync=sync) as log:
        await append(log, 2)
        doomed["is"] = True
        assert await append(log) == [4]
    assert events(path) == [(3, "audit.rotated"), (4, "operation.started")]


@pytest.mark.promise("c6")
async def test_a_file_that_goes_away_every_time_is_a_failure(path: Path) -> None:
    def sync(_descriptor: int) -> None:
        path.unlink()

    async with opened(path, fsync=sync) as log:
        with pytest.raises(AuditUnavailableError):
            await append(log)
        assert not is_healthy(log)


@pytest.mark.promise("c6")
async def test_a_moved_file_is_followed_by_one_that_links_to_it(path: Path) -> None:
    moved = path.with_name("audit.jsonl.1")
    async with opened(path) as log:
        await append(log, 3)
        path.rename(moved)
        content = moved.read_bytes()
        assert await append(log) == [5]
        assert moved.read_bytes() == content
    assert first_record(path)["cause"] == "moved"
    report = verify([path, moved])
    assert (report.found, report.records) == (0, 5)


@pytest.mark.promise("c6")
async def test_a_replaced_file_is_kept_and_not_written(path: Path) -> None:
    async with opened(path) as log:
        await append(log)
        path.rename(path.with_name("audit.jsonl.1"))
        path.write_bytes(b"somebody else's\n")
        assert await append(log) == [3]
    assert first_record(path)["cause"] == "replaced"
    assert path.with_name("audit.jsonl.displaced-0").read_bytes() == b"somebody else's\n"


@pytest.mark.promise("c6")
async def test_an_empty_file_that_logrotate_made_is_replaced(path: Path) -> None:
    async with opened(path) as log:
        await append(log)
        path.rename(path.with_name("audit.jsonl.1"))
        path.touch(mode=0o644)
        assert await append(log) == [3]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not list(path.parent.glob("*.displaced-*"))


@pytest.mark.promise("c6")
async def test_a_symlink_put_in_its_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    async with opened(path) as log:
        await append(log)
        path.unlink()
        path.symlink_to(target)
        assert await append(log) == [3]
    assert target.read_bytes() == b"precious"
    assert not path.is_symlink()


@pytest.mark.promise("c6")
@pytest.mark.parametrize("change", ["append", "truncate"])
async def test_a_file_that_others_changed_is_left_and_the_change_is_found(
    path: Path, change: str
) -> None:
    made, _ = lines(9)
    async with opened(path) as log:
        await append(log, 5)
        if change == "append":
            with path.open("ab") as foreign:
                foreign.write(made[5] + b"\n")
        else:
            os.truncate(path, path.stat().st_size // 2)
        assert await append(log) == [7]
    assert first_record(path)["cause"] == "altered"
    assert verify(everything(path)).found >= 1


@pytest.mark.promise("c6")
async def test_an_idle_log_notices_when_it_is_asked_to_look(path: Path) -> None:
    noticed = asyncio.Event()
    async with opened(path, on_records=lambda _: noticed.set()) as log:
        await append(log)
        path.unlink()
        log.reopen()
        noticed.clear()
        await asyncio.wait_for(noticed.wait(), PATIENCE)
    assert events(path) == [(2, "audit.rotated")]


@pytest.mark.promise("c6")
async def test_a_directory_that_is_gone_fails_closed_and_recovers(path: Path) -> None:
    log_path = path.parent / "log" / "audit.jsonl"
    async with opened(log_path) as log:
        await append(log)
        log_path.parent.rename(path.parent / "away")
        with pytest.raises(AuditUnavailableError, match="No such file"):
            await append(log)
        assert not is_healthy(log)
        (path.parent / "away").rename(log_path.parent)
        assert (await append(log))[0] > 1
    assert verify([*log_path.parent.glob("*.jsonl")]).found == 0


# -- rotation -------------------------------------------------------------------------------------


async def test_a_full_file_is_finished_and_the_next_links_to_it(path: Path) -> None:
    clock = HeldClock()
    async with opened(path, clock=clock, max_bytes=2000) as log:
        for _ in range(40):
            await append(log)
            clock.advance(seconds=1)
        head = log.head
    files = everything(path)
    assert len(files) > 3
    for file in files[1:]:
        assert first_record(file)["event"] == "audit.rotated"
        assert first_record(file)["cause"] == "size"
        assert file.stat().st_size < 2600
    assert files[0].name.startswith("audit-20261120T2200")
    assert files[0].name.endswith("Z.jsonl")
    report = verify(list(reversed(files)), head)
    assert (report.found, report.first, report.head) == (0, 1, head)


async def test_a_new_day_begins_a_new_file(path: Path) -> None:
    clock = HeldClock()
    async with opened(path, clock=clock) as log:
        await append(log)
        clock.advance(hours=1, minutes=59)
        await append(log)
        assert finished(path) == []
        clock.advance(minutes=1)
        await append(log)
    assert [file.name for file in finished(path)] == ["audit-20261121T000000000000Z.jsonl"]
    assert first_record(path)["cause"] == "day"


async def test_a_new_day_is_noticed_after_a_restart(path: Path) -> None:
    async with opened(path) as log:
        await append(log)
    async with opened(path, clock=HeldClock(NOW + timedelta(days=1))) as log:
        await append(log)
    assert len(finished(path)) == 1


async def test_files_of_one_instant_do_not_overwrite_each_other(path: Path) -> None:
    async with opened(path, max_bytes=1) as log:
        for _ in range(5):
            await append(log)
    assert len(finished(path)) == 4
    assert verify(everything(path)).found == 0


async def test_files_past_their_retention_go_oldest_first_and_no_other(path: Path) -> None:
    clock = HeldClock()
    other = path.with_name("audit-20200101T000000000000Z.jsonl.bak")
    other.write_bytes(b"not ours")
    async with opened(path, clock=clock, retain_days=3) as log:
        for _ in range(8):
            await append(log)
            clock.advance(days=1)
    names = [file.name for file in finished(path)]
    assert names == [f"audit-202611{day}T220000000000Z.jsonl" for day in (24, 25, 26, 27)]
    assert other.exists()
    report = verify(everything(path))
    assert report.found == 0
    assert report.first is not None
    assert report.first > 1


async def test_a_file_whose_newest_record_is_young_is_not_removed_whatever_its_name(
    path: Path,
) -> None:
    made, _ = lines(3)
    young = path.with_name("audit-20200101T000000000000Z.jsonl")
    young.write_bytes(joined(made))
    clock = HeldClock()
    async with opened(path, clock=clock, retain_days=3) as log:
        await append(log)
        clock.advance(days=1)
        await append(log)
    assert young.exists()


async def test_an_unreadable_finished_file_is_not_removed(path: Path) -> None:
    odd = path.with_name("audit-20200101T000000000000Z.jsonl")
    odd.write_bytes(b"no record")
    clock = HeldClock()
    async with opened(path, clock=clock, retain_days=1) as log:
        await append(log)
        clock.advance(days=1)
        await append(log)
    assert odd.exists()


async def test_a_crash_between_rename_and_the_new_file_continues_the_chain(path: Path) -> None:
    async with opened(path) as log:
        await append(log, 3)
        head = log.head
    path.rename(path.with_name("audit-20261120T220000000000Z.jsonl"))
    async with opened(path) as log:
        assert (log.sequence, log.head) == (3, head)
        assert await append(log) == [5]
    assert first_record(path)["cause"] == "restarted"
    assert verify(everything(path)).found == 0


async def test_an_empty_or_torn_new_file_after_a_crash_continues_the_chain(path: Path) -> None:
    for content in (b"", b'{"cause":"da'):
        made, _ = lines(3)
        old = path.with_name("audit-20261120T220000000000Z.jsonl")
        old.write_bytes(joined(made))
        path.write_bytes(content)
        async with opened(path) as log:
            assert await append(log) == [5]
        report = verify([path, old])
        assert (report.found, report.records, len(report.torn)) == (0, 5, bool(content))


async def test_a_file_that_logrotate_renamed_while_the_agent_was_down_is_continued(
    path: Path,
) -> None:
    made, _ = lines(3)
    path.with_name("audit.jsonl.1").write_bytes(joined(made))
    path.with_name("audit.jsonl.2.gz").write_bytes(b"\x1f\x8b")
    async with opened(path) as log:
        assert await append(log) == [5]


async def test_a_rotation_that_the_directory_refuses_goes_on_in_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_self: Path, _target: Path) -> Path:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    async with opened(path, max_bytes=1) as log:
        await append(log)
        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", refuse)
            assert await append(log) == [2]
            assert await append(log) == [3]
        assert await append(log) == [5]
    assert caplog.text.count("due for rotation") == 1
    assert verify(everything(path)).found == 0


# -- a sink that hangs ----------------------------------------------------------------------------


async def test_a_sink_that_hangs_refuses_in_time_and_writes_nothing_late(path: Path) -> None:
    gate = threading.Event()
    hangs, over = threading.Event(), asyncio.Event()
    hang = {"is": False}

    def sync(descriptor: int) -> None:
        if hang["is"]:
            hangs.set()
            gate.wait(PATIENCE)
        os.fdatasync(descriptor)

    failures: list[str] = []
    async with opened(
        path,
        fsync=sync,
        append_seconds=0.05,
        on_records=lambda _: over.set(),
        on_failure=lambda: failures.append(""),
    ) as log:
        await append(log)
        hang["is"] = True
        first = asyncio.create_task(log.append(Event.OPERATION_STARTED, caller="in the write"))
        assert await asyncio.to_thread(hangs.wait, 5)
        second = asyncio.create_task(log.append(Event.OPERATION_STARTED, caller="in the queue"))
        for task in (first, second):
            with pytest.raises(AuditUnavailableError):
                await task
        assert not is_healthy(log)
        assert failures
        with pytest.raises(AuditUnavailableError):
            await append(log)  # at once: nothing more piles up
        hang["is"] = False
        over.clear()
        gate.set()
        await asyncio.wait_for(over.wait(), PATIENCE)
        assert is_healthy(log)
        assert await append(log) == [3]
    assert b"in the queue" not in path.read_bytes()
    assert verify([path]).found == 0


async def test_closing_a_log_that_hangs_is_bounded_and_tells_the_callers(path: Path) -> None:
    gate = threading.Event()

    def sync(_descriptor: int) -> None:
        gate.wait(PATIENCE)

    async with opened(path, fsync=sync, append_seconds=0.05) as log:
        task = asyncio.create_task(log.append(Event.OPERATION_STARTED))
        await asyncio.sleep(0)
        await log.close()
        with pytest.raises(AuditUnavailableError):
            await task
        gate.set()
        thread = next((t for t in threading.enumerate() if t.name == "audit-writer"), None)
        if thread is not None:
            await asyncio.to_thread(thread.join, 5)


async def test_a_defect_of_the_writer_refuses_and_the_log_lives_on(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(_self: object) -> None:
        raise RuntimeError("a defect")

    async with opened(path) as log:
        with monkeypatch.context() as patched:
            patched.setattr("host_agent.audit.file.AuditFile._why_gone", defect)
            with pytest.raises(AuditUnavailableError, match="RuntimeError"):
                await append(log)
            assert "RuntimeError" in str(log.failure)
        assert await append(log) == [1]
        assert is_healthy(log)
    assert verify([path]).found == 0


# -- C32 ------------------------------------------------------------------------------------------


@pytest.mark.promise("c32")
async def test_hostile_text_stays_one_json_object_a_line(path: Path) -> None:
    hostile = [
        '\n{"sequence":2,"event":"operation.finished"}',
        "\r\n\x85\u2028\u2029\x0b\x0c",
        '"}\n{"',
        "\x00\ud800\\u{a}",
    ]
    async with opened(path) as log:
        for text in hostile:
            await log.append(
                Event.REQUEST_REFUSED,
                caller=text,
                operation=text,
                params={text: [text]},
                reason=text,
                detail=text,
            )
    content = path.read_bytes()
    assert content.count(b"\n") == len(hostile) == len(content.decode().splitlines())
    assert [json.loads(line)["sequence"] for line in content.splitlines()] == [1, 2, 3, 4]
    assert verify([path]).found == 0
