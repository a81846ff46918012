"""What was judged before it waited is judged again in its turn, and starts nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from host_agent.errors import HostAgentError
from host_agent.pipeline.responses import SubmitAnswer
from host_agent.requests.model import State
from tests.support.pipeline import ASIDE, FETCH, PULL, STATUS, Workbench, opened
from tests.support.site import IDENTITIES

FREE = """
[[rules]]
name = "everything is free"
operations = ["git.*"]
verdict = "allow"
"""
ASKED = FREE.replace('"allow"', '"ask"')
DENIED = FREE.replace('"allow"', '"deny"')

Change = Callable[[Workbench], None]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path) as bench:
        bench.reconfigure(rules=FREE)
        yield bench


def _nothing(_bench: Workbench) -> None:
    """Change nothing: the legitimate twin."""


def _is_removed(bench: Workbench) -> None:
    bench.reconfigure(rules=FREE, identities="")


def _is_revoked(bench: Workbench) -> None:
    bench.revocations.revoked.add(bench.certificate("deployer").serial)


def _reads_only(bench: Workbench) -> None:
    entry = 'cn = "deployer"\n'
    assert entry in IDENTITIES
    only = IDENTITIES.replace(entry, f'{entry}autonomy = "read_only"\n')
    bench.reconfigure(rules=FREE, identities=only)


def _is_denied(bench: Workbench) -> None:
    bench.reconfigure(rules=DENIED)


def _is_asked(bench: Workbench) -> None:
    bench.reconfigure(rules=ASKED)


ASKS = {
    "read": ("git.status", STATUS, "status"),
    "change": ("git.fetch", FETCH, "fetch"),
    "change with a row": ("git.pull", PULL, "pull"),
    "another change": ("git.switch", ASIDE, "switch"),
}
REFUSED = {
    "removed": (_is_removed, "identity:unknown"),
    "revoked": (_is_revoked, "identity:revoked"),
    "denied": (_is_denied, "policy:denied"),
}


async def waited(bench: Workbench, operation: str, params: object, change: Change) -> SubmitAnswer:
    """Ask while another operation has the only place; let `change` happen, then give it back."""
    slots = bench.context.slots
    slots.resize(1)
    waits = asyncio.Event()
    enter = slots.enter

    async def seen(*asked: object, **named: object) -> bool:
        waits.set()
        return await enter(*asked, **named)  # type: ignore[arg-type]

    async with slots.read():
        slots.enter = seen  # type: ignore[method-assign]
        asking = asyncio.ensure_future(bench.ask(operation, params))  # type: ignore[arg-type]
        await waits.wait()
        await asyncio.sleep(0)
        assert not asking.done()
        assert bench.host.ran == []
        change(bench)
    return await asking


@pytest.mark.parametrize(("operation", "params", "verb"), ASKS.values(), ids=ASKS)
async def test_what_waited_runs_where_nothing_has_changed(
    bench: Workbench, operation: str, params: object, verb: str
) -> None:
    assert (await waited(bench, operation, params, _nothing)).status == 200
    assert verb in [run[0] for run in bench.host.ran]


@pytest.mark.parametrize(("change", "code"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize(("operation", "params", "verb"), ASKS.values(), ids=ASKS)
async def test_what_is_refused_by_the_time_of_its_turn_starts_no_process(
    bench: Workbench, operation: str, params: object, verb: str, change: Change, code: str
) -> None:
    with pytest.raises(HostAgentError) as caught:
        await waited(bench, operation, params, change)
    assert caught.value.code == code
    assert bench.host.ran == []
    assert not {"operation.inspected", "operation.started"} & set(bench.events())
    assert await bench.store.live() == []


async def test_who_may_only_look_by_then_reads_and_changes_nothing(bench: Workbench) -> None:
    assert (await waited(bench, "git.status", STATUS, _reads_only)).status == 200
    bench.host.ran.clear()
    bench.reconfigure(rules=FREE)
    with pytest.raises(HostAgentError) as caught:
        await waited(bench, "git.switch", ASIDE, _reads_only)
    assert caught.value.code == "policy:read-only"
    assert bench.host.ran == []


@pytest.mark.parametrize(("operation", "params", "verb"), ASKS.values(), ids=ASKS)
async def test_what_a_person_has_to_be_asked_for_by_then_is_held(
    bench: Workbench, operation: str, params: object, verb: str
) -> None:
    answer = await waited(bench, operation, params, _is_asked)
    assert answer.status == 202
    (live,) = await bench.store.live()
    assert (live.state, live.rule) == (State.PENDING, "everything is free")
    assert live.terms.approvals == 1
    assert verb not in [run[0] for run in bench.host.ran]


async def test_what_is_free_by_then_asks_nobody(bench: Workbench) -> None:
    bench.reconfigure(rules=ASKED)
    answer = await waited(bench, "git.pull", PULL, lambda bench: bench.reconfigure(rules=FREE))
    assert answer.status == 200
    assert [run[0] for run in bench.host.changes] == ["pull"]
