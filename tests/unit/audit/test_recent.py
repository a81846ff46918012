"""Reading a log backwards: as far as a record of the life before can be missing, no further."""

from datetime import timedelta
from pathlib import Path

import pytest

from host_agent.audit import recent as module
from host_agent.audit.log import AuditLog
from host_agent.audit.recent import CAUGHT_UP, WINDOW, recent
from host_agent.audit.record import Event
from host_agent.errors import AuditUnavailableError
from tests.support.audit_files import NOW, HeldClock, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


async def write(log: AuditLog, clock: HeldClock, *steps: tuple[Event, int]) -> None:
    """Append one record after the other, each so many seconds after the one before."""
    for event, seconds in steps:
        clock.advance(seconds=seconds)
        await log.append(event, request_id=f"at-{clock.now():%M:%S}")


def seen(path: Path) -> list[str]:
    return [str(record["event"]) for record in recent(path).records]


def test_no_file_is_nothing(path: Path) -> None:
    assert recent(path) == module.Recent(since=None, records=())


async def test_it_reaches_back_a_window_before_the_last_service(path: Path) -> None:
    clock = HeldClock()
    async with opened(path, clock=clock) as log:
        await write(
            log,
            clock,
            (Event.REQUEST_HELD, 0),
            (Event.REQUEST_HELD, 20),
            (Event.REQUEST_DECIDED, 20),
        )
        assert await log.recent() == recent(path)
    assert recent(path).since == NOW + timedelta(seconds=40) - WINDOW
    assert seen(path) == ["request.decided", "request.held"]


async def test_a_start_that_died_before_it_had_caught_up_is_no_service(path: Path) -> None:
    clock = HeldClock()
    async with opened(path, clock=clock) as log:
        await write(log, clock, (Event.REQUEST_HELD, 0), (Event.AGENT_STARTED, 3600))
        await log.append(Event.REQUEST_DECIDED, cause=CAUGHT_UP)
    assert recent(path).since == NOW  # the beginning of the log
    assert seen(path) == ["request.decided", "agent.started", "request.held"]


async def test_without_any_service_it_is_everything(path: Path) -> None:
    clock = HeldClock()
    async with opened(path, clock=clock) as log:
        await write(log, clock, (Event.AGENT_STARTED, 0), (Event.CONFIG_LOADED, 99))
    assert recent(path).since == NOW
    assert seen(path) == ["config.loaded", "agent.started"]


async def test_it_goes_on_in_the_files_before(path: Path) -> None:
    clock = HeldClock()
    async with opened(path, clock=clock, max_bytes=400) as log:
        await write(log, clock, *[(Event.REQUEST_HELD, 1)] * 9)
    assert len(list(path.parent.glob("audit-*.jsonl"))) > 2
    assert seen(path).count("request.held") == 9


async def test_a_block_boundary_cuts_no_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HeldClock()
    async with opened(path, clock=clock) as log:
        await write(log, clock, *[(Event.REQUEST_HELD, 1)] * 9)
    whole = recent(path)
    for size in (1, 7, 64, 300):
        monkeypatch.setattr(module, "_BLOCK_BYTES", size)
        assert recent(path) == whole


async def test_what_is_too_much_is_not_read_and_not_claimed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HeldClock()
    async with opened(path, clock=clock) as log:
        await write(log, clock, *[(Event.REQUEST_HELD, 1)] * 9)
    monkeypatch.setattr(module, "MAX_BYTES", 600)
    cut = recent(path)
    assert 1 < len(cut.records) < 9
    assert cut.since == NOW + timedelta(seconds=10 - len(cut.records))


@pytest.mark.parametrize(
    "torn", [b'{"caller":"li', b"\xff\n", b"[]\n", b"{}\n", b'{"time":1}\n', b'{"time":"x"}\n']
)
async def test_torn_lines_are_passed_over(path: Path, torn: bytes) -> None:
    clock = HeldClock()
    async with opened(path, clock=clock) as log:
        await write(log, clock, (Event.REQUEST_HELD, 1))
    with path.open("ab") as file:
        file.write(torn)
    assert seen(path) == ["request.held"]


async def test_a_log_that_cannot_be_read_is_unavailable(path: Path) -> None:
    async with opened(path) as log:
        await log.append(Event.REQUEST_HELD)
        path.unlink()
        path.symlink_to("elsewhere")
        with pytest.raises(AuditUnavailableError, match="cannot be read"):
            await log.recent()
