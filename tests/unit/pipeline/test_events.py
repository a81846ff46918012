"""Streams of events: who sees what, from where on, and how they end."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from host_agent.api.wire.events import CutView, EventView
from host_agent.audit.recent import Recent
from host_agent.errors import RateLimitedError
from host_agent.identity.credential import Credential
from host_agent.identity.registry import Autonomy, Principal, Role
from host_agent.pipeline import events as module
from host_agent.pipeline.events import EventRecord, Events, Reader, may_see
from tests.support.patience import PATIENCE
from tests.support.pipeline import AUTHORITY, Workbench, opened, serial_of

Counts = list[tuple[str, str]]


def _everything(_told: EventRecord) -> bool:
    return True


def principal(cn: str, *roles: Role) -> Principal:
    return Principal(
        cn=cn,
        unix_user=None,
        owner=cn,
        roles=frozenset(roles),
        autonomy=Autonomy.SUPERVISED,
        skip_ask=False,
        credential=Credential(
            cn=cn,
            fingerprint="sha256:" + "a" * 64,
            serial=1,
            issuer=AUTHORITY,
            ends=datetime(2100, 1, 1, tzinfo=UTC),
        ),
    )


def told(sequence: int = 1, event: str = "request.held", caller: str = "deployer") -> EventRecord:
    return EventRecord(sequence=sequence, event=event, caller=caller, data=b"{}")


def record(caller: str = "deployer", event: str = "request.held") -> dict[str, Any]:
    return {
        "event": event,
        "caller": caller,
        "time": "2026-11-20T21:00:00.123456Z",
        "operation": "git.pull",
    }


def parsed(frame: bytes) -> tuple[str | None, str, dict[str, Any]]:
    fields = dict(line.split(": ", 1) for line in frame.decode().strip().split("\n"))
    return fields.get("id"), fields["event"], json.loads(fields["data"])


# -- scope ----------------------------------------------------------------------------------------

CALLER, APPROVER, ADMIN = Role.CALLER, Role.APPROVER, Role.ADMIN


@pytest.mark.parametrize(
    ("role", "event", "caller", "is_seen"),
    [
        (CALLER, "request.held", "me", True),
        (CALLER, "operation.finished", "me", True),
        (CALLER, "request.held", "other", False),
        (CALLER, "identity.refused", "me", False),
        (CALLER, "config.loaded", "me", False),
        (APPROVER, "request.held", "other", True),
        (APPROVER, "grant.revoked", "other", True),
        (APPROVER, "identity.refused", "other", False),
        (APPROVER, "approver.enrolled", "other", False),
        (ADMIN, "identity.refused", "other", True),
        (ADMIN, "config.loaded", "other", True),
    ],
)
def test_everybody_sees_what_is_theirs(role: Role, event: str, caller: str, is_seen: bool) -> None:
    assert may_see(principal("me", role), told(event=event, caller=caller)) is is_seen


# -- memory ---------------------------------------------------------------------------------------


def test_a_slow_reader_loses_the_oldest_and_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    counts: Counts = []
    reader = Reader(lambda sink, result: counts.append((sink, result)), _everything)
    for number in range(5):
        reader.put(told(number))
    assert reader.dropped == 2
    assert counts == [("sse", "dropped")] * 2
    left = [one.sequence for one in (reader.take(), reader.take(), reader.take()) if one]
    assert left == [2, 3, 4]
    assert reader.take() is None


def test_what_is_kept_is_bounded_and_what_is_missed_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    events = Events(lambda _sink, _result: None)
    for sequence in range(1, 6):
        events.publish(sequence, record())
    reader, missed = events.begin(4, _everything)
    first = reader.take()
    assert first is not None
    assert (first.sequence, reader.take(), missed) == (5, None, 0)
    _, missed = events.begin(1, _everything)
    assert missed == 1  # the second is not kept any more
    reader, missed = events.begin(None, _everything)
    assert (reader.take(), missed) == (None, 0)


def test_what_was_written_before_the_start_can_be_read_again() -> None:
    events = Events(lambda _sink, _result: None)
    newest_first = tuple({**record(), "sequence": number, "hash": "h"} for number in (3, "2", 2, 1))
    events.fill(Recent(since=None, records=newest_first))
    reader, _ = events.begin(1, _everything)
    seen = [reader.take(), reader.take()]
    assert [one.sequence for one in seen if one] == [2, 3]
    assert all(one is not None and b"hash" not in one.data for one in seen)


@pytest.mark.parametrize("wrong", [{"time": "now"}, {"caller": 7}])
def test_a_record_that_is_no_event_is_left_out_and_logged(
    wrong: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    events = Events(lambda _sink, _result: None)
    events.fill(Recent(since=None, records=({**record(), **wrong, "sequence": 1},)))
    events.publish(2, {**record(), **wrong})
    events.publish(3, record())
    reader, missed = events.begin(0, _everything)
    seen = reader.take()
    assert seen is not None
    assert (seen.sequence, reader.take(), missed) == (3, None, 2)
    assert [line.split(" cannot ")[0] for line in caplog.messages] == [
        "the audit record 1",
        "the audit record 2",
    ]


def test_a_member_that_was_cut_is_told_as_its_size_and_hash() -> None:
    events = Events(lambda _sink, _result: None)
    cut: dict[str, Any] = {"length": 70_000, "sha256": "sha256:" + "0" * 64}
    events.publish(1, {**record(), "reason": cut, "params": cut, "rule": "a rule"})
    reader, _ = events.begin(0, _everything)
    told = reader.take()
    assert told is not None
    view = EventView.parse(json.loads(told.data))
    assert (view.reason, view.params) == (CutView.model_validate(cut), cut)
    assert (view.body["rule"], view.event, view.caller) == ("a rule", "request.held", "deployer")


def test_events_of_others_push_out_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    events = Events(lambda _sink, _result: None)
    events.publish(1, record("deployer"))
    for sequence in range(2, 20):
        events.publish(sequence, record("robot"))
    reader, _ = events.begin(0, lambda told: told.caller == "deployer")
    for sequence in range(20, 40):
        events.publish(sequence, record("robot"))
    seen = reader.take()
    assert seen is not None
    assert (seen.sequence, reader.take(), reader.dropped) == (1, None, 0)


def test_all_that_is_kept_can_be_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    events = Events(lambda _sink, _result: None)
    for sequence in range(1, 11):
        events.publish(sequence, record())
    reader, missed = events.begin(0, _everything)
    assert (missed, reader.dropped) == (0, 0)
    assert [one.sequence for one in iter(reader.take, None)] == list(range(1, 11))


# -- streams --------------------------------------------------------------------------------------


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        yield bench


async def begun(bench: Workbench, cn: str, after: int | None = None) -> AsyncIterator[bytes]:
    """Return a stream that has begun."""
    stream = bench.pipeline.streams.open(bench.who(cn), after)
    assert (await anext(stream)).startswith(b":")
    return stream


async def test_a_caller_sees_its_own_and_nothing_of_another(bench: Workbench) -> None:
    stream = await begun(bench, "deployer")
    other = await begun(bench, "watcher")
    bench.pipeline.events.publish(7, record("robot"))
    bench.pipeline.events.publish(8, record("deployer"))
    bench.pipeline.events.publish(9, record("watcher"))
    sequence, event, data = parsed(await anext(stream))
    assert (sequence, event, data["caller"]) == ("8", "request.held", "deployer")
    assert parsed(await anext(other))[0] == "9"


async def test_an_approver_goes_on_after_what_it_has_seen(bench: Workbench) -> None:
    for sequence in (1, 2, 3):
        bench.pipeline.events.publish(sequence, record())
    stream = await begun(bench, "alice", after=1)
    assert [parsed(await anext(stream))[0] for _ in range(2)] == ["2", "3"]


async def test_a_gap_is_told_first(bench: Workbench) -> None:
    bench.pipeline.events.publish(5, record())
    stream = bench.pipeline.streams.open(bench.who("alice"), 1)
    assert parsed(await anext(stream)) == (None, "events.gap", {"count": 3})
    assert parsed(await anext(stream))[0] == "5"


async def test_a_revoked_identity_sees_nothing_more(bench: Workbench) -> None:
    stream = await begun(bench, "alice")
    bench.pipeline.events.publish(1, record())
    await anext(stream)
    bench.pipeline.events.publish(2, record())
    bench.revocations.revoked.add(serial_of("alice"))
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_lost_role_narrows_a_stream_that_runs(bench: Workbench) -> None:
    stream = await begun(bench, "alice")
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    await bench.reload(identities='[[identities]]\ncn = "alice"\nroles = ["caller"]\n')
    bench.pipeline.events.publish(1, record("deployer"))
    bench.pipeline.events.publish(2, record("alice"))
    assert parsed(await waiting)[0] == "2"


async def test_streams_of_one_identity_are_few(bench: Workbench) -> None:
    streams = [await begun(bench, "alice") for _ in range(4)]
    with pytest.raises(RateLimitedError):
        bench.pipeline.streams.open(bench.who("alice"), None)
    await begun(bench, "deployer")
    await streams[0].aclose()  # type: ignore[attr-defined]
    await begun(bench, "alice")


async def test_what_a_slow_stream_has_lost_is_told(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 2)
    stream = await begun(bench, "alice")
    for sequence in range(1, 6):
        bench.pipeline.events.publish(sequence, record())
    assert parsed(await anext(stream)) == (None, "events.dropped", {"count": 3})
    assert [parsed(await anext(stream))[0] for _ in range(2)] == ["4", "5"]


async def test_what_may_not_be_seen_any_more_is_passed_over(bench: Workbench) -> None:
    stream = await begun(bench, "alice")
    bench.pipeline.events.publish(1, record("deployer"))
    await bench.reload(identities='[[identities]]\ncn = "alice"\nroles = ["caller"]\n')
    bench.pipeline.events.publish(2, record("alice"))
    assert parsed(await anext(stream))[0] == "2"


async def test_streams_that_begin_at_once_are_no_more_than_may_be(bench: Workbench) -> None:
    most = module.STREAMS_PER_IDENTITY
    streams = [bench.pipeline.streams.open(bench.who("alice"), None) for _ in range(most + 1)]
    for stream in streams[:-1]:
        assert (await anext(stream)).startswith(b":")
    with pytest.raises(StopAsyncIteration):
        await anext(streams[-1])
    await streams[0].aclose()
    await begun(bench, "alice")
    with pytest.raises(RateLimitedError):
        await begun(bench, "alice")


async def test_a_shutdown_ends_streams_at_once(bench: Workbench) -> None:
    stream = await begun(bench, "alice")
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    bench.context.is_draining = True
    bench.pipeline.events.wake_all()
    with pytest.raises(StopAsyncIteration):
        await waiting


async def test_a_reader_with_something_to_read_does_not_wait() -> None:
    reader = Reader(lambda _sink, _result: None, _everything)
    reader.put(told())
    async with asyncio.timeout(PATIENCE):
        await reader.wait(60)
        assert reader.take() == told()
        await reader.wait(0)
    assert reader.take() is None
