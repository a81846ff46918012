"""What seldom happens to a log: a batch that is full, a loop that is gone, a caller that is."""

import asyncio
import errno
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.audit import log as log_module
from host_agent.audit.log import MAX_BATCH, AuditLog
from host_agent.audit.record import ORIGIN, Event, build, link
from host_agent.audit.rotation import has_whole_object, remove_old
from host_agent.audit.verify import Concern, verify
from host_agent.errors import AuditUnavailableError
from tests.support.audit_files import HeldClock, events, failing, joined, lines, opened
from tests.support.patience import PATIENCE

BROKEN = OSError(errno.EIO, "Input/output error")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


async def test_more_than_a_batch_is_written_in_batches_and_in_order(path: Path) -> None:
    gate = threading.Event()
    async with opened(path, fsync=lambda _descriptor: gate.wait(PATIENCE)) as log:
        appends = [
            asyncio.ensure_future(log.append(Event.OPERATION_STARTED)) for _ in range(2 * MAX_BATCH)
        ]
        await asyncio.sleep(0)  # all of them are queued while the first sync is under way
        gate.set()
        assert await asyncio.gather(*appends) == list(range(1, 2 * MAX_BATCH + 1))
    assert not verify([path]).findings


async def test_a_log_that_works_again_by_the_time_of_the_retry_is_left_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "RETRY_SECONDS", 0.02)
    sync, seen = failing(1, BROKEN)
    async with opened(path, fsync=sync) as log:
        with pytest.raises(AuditUnavailableError):
            await log.append(Event.OPERATION_STARTED)
        await log.append(Event.OPERATION_STARTED)
        syncs = len(seen)
        async with asyncio.timeout(PATIENCE):
            while log._retry_timer is not None:
                await asyncio.sleep(0.005)
        assert log.healthy
        assert len(seen) == syncs


async def test_a_closed_log_does_not_look_at_its_file(path: Path) -> None:
    async with opened(path) as log:
        await log.append(Event.OPERATION_STARTED)
    path.unlink()
    log.reopen()
    assert not path.exists()
    with pytest.raises(AuditUnavailableError):
        await log.append(Event.OPERATION_STARTED)


async def test_a_caller_that_left_before_the_sink_was_given_up_is_not_told(path: Path) -> None:
    gate = threading.Event()
    async with opened(
        path, fsync=lambda _descriptor: gate.wait(PATIENCE), append_seconds=0.05
    ) as log:
        left = asyncio.ensure_future(log.append(Event.OPERATION_STARTED))
        stays = asyncio.ensure_future(log.append(Event.OPERATION_STARTED))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(AuditUnavailableError):
            await stays
        assert not log.healthy
        gate.set()
    assert left.cancelled()


def test_a_log_whose_loop_has_ended_says_so_and_is_given_up(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = AuditLog(path, max_bytes=10**8, retain_days=90, clock=HeldClock())
    asyncio.run(log.open())
    writer = log._thread
    assert writer is not None
    log._queue.put(None)
    writer.join(PATIENCE)
    assert not writer.is_alive()
    assert "the event loop ended before the log was closed" in caplog.text


@pytest.mark.promise("c5")
async def test_a_sync_that_fails_behind_a_line_without_its_newline(path: Path) -> None:
    made, _ = lines(2)
    path.write_bytes(joined(made).removesuffix(b"\n"))
    path.chmod(0o600)
    sync, _ = failing(1, BROKEN)
    async with opened(path, fsync=sync) as log:
        with pytest.raises(AuditUnavailableError):
            await log.append(Event.OPERATION_STARTED, caller="lost")
        await log.append(Event.OPERATION_STARTED, caller="kept")
    report = verify([*path.parent.glob("audit-*.jsonl"), path])
    assert report.concerns == {Concern.COMPLETENESS}
    assert b'"caller":"kept"' in path.read_bytes()


def test_a_finished_file_whose_age_cannot_be_read_stays(path: Path) -> None:
    members = build(Event.OPERATION_STARTED, "yesterday", {})
    line, _ = link(members, ORIGIN)
    old = path.with_name("audit-20200101T000000000000Z.jsonl")
    old.write_bytes(line + b"\n")
    assert remove_old(path, retain=timedelta(days=1), time="2026-11-20T22:00:00.000000Z") == []
    assert old.exists()


def test_a_whole_record_behind_the_newest_one_is_no_torn_write() -> None:
    (line,), _ = lines(1)
    assert has_whole_object(line + b"\n")
    assert not has_whole_object(line[:-5])
    assert not has_whole_object(b'{"caller":"li\n')


async def test_a_file_that_takes_no_bytes_takes_no_record(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(path) as log:
        assert await log.append(Event.AGENT_STARTED) == 1
        with monkeypatch.context() as patched:
            patched.setattr("host_agent.audit.file.os.write", lambda _descriptor, _data: 0)
            with pytest.raises(AuditUnavailableError):
                await log.append(Event.AGENT_STOPPED)
        await log.append(Event.AGENT_STOPPED)
    names = [name for _, name in events(path)]
    assert (names[0], names[-1], names.count("agent.stopped")) == (
        "agent.started",
        "agent.stopped",
        1,
    )
