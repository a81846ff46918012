"""Every way to answer is the same way: routes, typed and older, codes, chat, shim, bridge.

What is answered over each of them leaves the same request, runs the same, and writes down the same.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from host_agent.audit.record import Event
from host_agent.errors import HostAgentError
from host_agent.requests.model import Request, State, Verb
from tests.support.people import (
    ALICE,
    BRIDGE,
    IDENTITIES_AND_BRIDGE,
    PEOPLE,
    Chat,
    envelope,
)
from tests.support.pipeline import Workbench, opened

TABLE = (PEOPLE + BRIDGE.replace('U1 = "Erin"', 'U1 = "alice"')).replace(
    'channels = ["signal", "ntfy"]', 'channels = ["signal", "ntfy", "webhook"]'
)

Way = Callable[[Workbench, Request, str], Awaitable[object]]


async def _typed(bench: Workbench, request: Request, _code: str) -> object:
    return await bench.decide(request)


async def _older_by_digest(bench: Workbench, request: Request, _code: str) -> object:
    return await bench.pipeline.decisions.decide_by_token(
        bench.who("alice"), request.id, request.digest
    )


async def _older_by_code(bench: Workbench, request: Request, code: str) -> object:
    return await bench.pipeline.decisions.decide_by_token(bench.who("alice"), request.id, code)


async def _chat(bench: Workbench, _request: Request, code: str) -> object:
    return await Chat(bench).say(f"CONFIRM {code}")


async def _shim(bench: Workbench, _request: Request, code: str) -> object:
    heard = envelope(f"CONFIRM {code}", ALICE)
    return await bench.pipeline.bridges.relay_signal(bench.who("chat-bridge"), heard)


async def _bridge(bench: Workbench, request: Request, _code: str) -> object:
    return await bench.pipeline.bridges.decide_by_bridge(
        bench.who("chat-bridge"),
        request.id,
        user="U1",
        decision=Verb.APPROVE,
        digest=request.digest,
        reason=None,
    )


WAYS: dict[str, Way] = {
    "typed": _typed,
    "older, by digest": _older_by_digest,
    "older, by code": _older_by_code,
    "chat": _chat,
    "older shim": _shim,
    "bridge": _bridge,
}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with opened(tmp_path, people=TABLE, identities=IDENTITIES_AND_BRIDGE) as bench:
        yield bench


async def answered(
    bench: Workbench, way: Way, request: Request, code: str
) -> tuple[dict[str, Any], str | None]:
    """Answer, and return what is left of it and the code of a refusal."""
    before = len(bench.records())
    refusal: str | None = None
    try:
        await way(bench, request, code)
    except HostAgentError as error:
        refusal = error.code
    await bench.settle()
    stored = await bench.request(request.id)
    records = bench.records()[before:]
    refused = [record["code"] for record in records if record["event"] == Event.DECISION_REFUSED]
    left: dict[str, Any] = {
        "state": stored.state,
        "owners": [decision.owner for decision in stored.decisions],
        "problem": None if stored.problem is None else stored.problem.code,
        "changes": len(bench.host.changes),
        "events": [
            record["event"]
            for record in records
            if record["event"] not in {Event.DECISION_REFUSED, Event.OPERATION_INSPECTED}
        ],
    }
    told: str | None = refused[0] if refused else left["problem"]
    return left, refusal or told


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_yes_runs_it_once_whatever_way_it_came(bench: Workbench, way: Way) -> None:
    request = await bench.held()
    left, refusal = await answered(bench, way, request, await Chat(bench).code(request))
    assert refusal is None
    assert left == {
        "state": State.SUCCEEDED,
        "owners": ["alice"],
        "problem": None,
        "changes": 1,
        "events": ["request.decided", "operation.started", "operation.finished"],
    }


async def _expires(bench: Workbench, _request: Request) -> None:
    bench.clock.advance(hours=1)


async def _is_denied(bench: Workbench, request: Request) -> None:
    await bench.decide(request, Verb.DENY, by="erin")


async def _changes(bench: Workbench, _request: Request) -> None:
    bench.change_wrapper()


REFUSALS = {
    "approval:expired": (_expires, State.EXPIRED),
    "approval:already-decided": (_is_denied, State.DENIED),
    "approval:target-changed": (_changes, State.FAILED),
}


@pytest.mark.parametrize("code", REFUSALS)
async def test_what_one_way_refuses_every_way_refuses(tmp_path: Path, code: str) -> None:
    happens, state = REFUSALS[code]
    seen = {}
    for name, way in WAYS.items():
        place = tmp_path / name.replace(", ", "-").replace(" ", "-")
        place.mkdir()
        async with opened(place, people=TABLE, identities=IDENTITIES_AND_BRIDGE) as bench:
            request = await bench.held()
            confirm = await Chat(bench).code(request)
            await happens(bench, request)
            left, refusal = await answered(bench, way, request, confirm)
            assert (refusal, left["state"], left["changes"]) == (code, state, 0), name
            seen[name] = left
    assert all(left == seen["typed"] for left in seen.values()), seen
