"""A loop without a model does ten tasks at a simulated host, and asks no more than it has to.

How often it asked is counted where it arrived: in the audit log. Each task has a twin that must not
succeed, and shows that nothing moved.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from pydantic import JsonValue

from host_agent.client import AsyncClient, ProblemError, RequestView
from host_agent.client.exchange import ATTEMPTS
from host_agent.mcp.calls import ToolCalls
from host_agent.mcp.server import HostServer
from host_agent.simulation.script import Script
from host_agent.simulation.simulation import Simulation, SkippingClock
from tests.support.agent_loop import MAX_ASKS, AgentLoop, End, Task
from tests.support.mcp_client import MODERN, members
from tests.support.patience import PATIENCE
from tests.support.simulated_host import APP, PULL, READS, script, seen
from tests.support.visit import until

CALLER = "deployer"
ASKS = frozenset(
    {
        "operation.unchanged",
        "policy.denied",
        "request.attached",
        "request.held",
        "request.refused",
    }
)
"""What is recorded of an ask that came in, beside the start of what was allowed at once."""
NOON = timedelta(hours=2)
PULLING = Task(tool="git_pull", arguments=dict(PULL))
STOPPING = Task(tool="systemd_stop", arguments={"unit": "worker.service"})


@dataclass
class Scene:
    """A loop at a simulation, with the people of it."""

    simulation: Simulation
    client: Client
    loop: AgentLoop

    def records(self) -> list[dict[str, Any]]:
        log = self.simulation.ground.directory / "state" / "audit.jsonl"
        return [json.loads(line) for line in log.read_bytes().splitlines()]

    def asks(self) -> Counter[str]:
        """Return how each ask of the caller was taken, as the audit log has it."""
        mine = [record for record in self.records() if record.get("caller") == CALLER]
        held = {one["request_id"] for one in mine if one["event"] == "request.held"}
        return Counter(
            record["event"]
            for record in mine
            if record["event"] in ASKS
            or (record["event"] == "operation.started" and record["request_id"] not in held)
        )

    def runs(self) -> int:
        """Return how many changes and reads of the caller were started."""
        return sum(
            record["event"] == "operation.started" and record["caller"] == CALLER
            for record in self.records()
        )

    async def held(self, count: int = 1) -> None:
        """Return once so many of the caller's asks were held."""
        await until(lambda: self.asks()["request.held"] >= count, f"{count} held")


@contextlib.asynccontextmanager
async def staged(
    *answers: str,
    policy: Path | None = None,
    clock: SkippingClock | None = None,
    wait: Callable[[float], Awaitable[None]] | None = None,
    checks_first: bool = True,
    look_seconds: int = 50,
) -> AsyncIterator[Scene]:
    simulation = Simulation(script(*answers) if answers else Script(), policy=policy)
    simulation.clock = clock or simulation.clock

    async def skipped(seconds: float) -> None:
        simulation.clock.skip_to(simulation.clock.now() + timedelta(seconds=seconds))

    async with simulation, simulation.client(CALLER) as api:
        server = HostServer(api, ToolCalls(api, wait_seconds=0))
        async with Client(server.protocol, mode=MODERN) as client:
            loop = AgentLoop(
                client, wait or skipped, checks_first=checks_first, look_seconds=look_seconds
            )
            yield Scene(simulation, client, loop)


Decide = Callable[[AsyncClient, RequestView], Awaitable[object]]


@contextlib.asynccontextmanager
async def person(simulation: Simulation, decide: Decide) -> AsyncIterator[None]:
    """Let somebody decide by hand on what is held, each request once."""
    async with simulation.client("alice") as client:

        async def answering() -> None:
            async for event in client.events():
                if event.name == "request.held":
                    request = await client.request(str(event.data.body["request_id"]))
                    if request.state == "pending":
                        await decide(client, request)

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(answering())
            yield
            task.cancel()


async def approve(client: AsyncClient, request: RequestView) -> None:
    await client.approve(request.request_id, request.digest)


async def asked(scene: Scene, tool: str, arguments: dict[str, JsonValue]) -> dict[str, Any]:
    """Call a tool as somebody does who does not go by `recovery`."""
    return members(await scene.client.call_tool(tool, arguments))


# -- 1: a read ------------------------------------------------------------------------------------


async def test_it_reads() -> None:
    async with staged() as scene:
        assert await scene.loop.do(Task(tool="git_status", arguments=dict(APP))) is End.DONE
        assert '"branch"' in scene.loop.told["host_text"]
        assert scene.asks() == {"operation.started": 1}


async def test_a_read_that_is_denied_is_given_up_after_one_ask() -> None:
    async with staged(checks_first=False) as scene:
        before = scene.simulation.host.runs
        other = Task(tool="git_status", arguments={"repository": "/srv/other"})
        assert await scene.loop.do(other) is End.GIVEN_UP
        assert scene.asks() == {"policy.denied": 1}
        assert scene.simulation.host.runs == before


# -- 2: a change that is allowed ------------------------------------------------------------------


def snapshot(dataset: str) -> Task:
    return Task(tool="zfs_snapshot", arguments={"dataset": dataset, "name": "now"})


async def test_it_makes_a_change_that_is_allowed() -> None:
    async with staged() as scene:
        before = await seen(scene.simulation)
        assert await scene.loop.do(snapshot("tank/scratch")) is End.DONE
        assert scene.loop.told["verified"] is True
        assert scene.asks() == {"operation.started": 1}
        assert await seen(scene.simulation) != before


async def test_a_change_that_is_denied_is_given_up_and_nothing_moves() -> None:
    async with staged(checks_first=False) as scene:
        before = await seen(scene.simulation)
        assert await scene.loop.do(snapshot("tank/private")) is End.GIVEN_UP
        assert scene.asks() == {"policy.denied": 1}
        assert await seen(scene.simulation) == before


# -- 3: held, and approved ------------------------------------------------------------------------


async def test_it_asks_once_for_what_is_held_and_has_the_result() -> None:
    async with staged("*=approve") as scene:
        before = await seen(scene.simulation)
        assert await scene.loop.do(PULLING) is End.DONE
        assert scene.loop.told["verified"] is True
        assert scene.asks() == {"request.held": 1}
        assert [tool for tool, _ in scene.loop.steps].count("git_pull") == 1
        assert await seen(scene.simulation) != before


async def test_what_nobody_decides_is_left_waiting_after_bounded_looks() -> None:
    async with staged("*=leave", look_seconds=0) as scene:
        before = await seen(scene.simulation)
        assert await scene.loop.do(PULLING) is End.WAITING
        assert scene.asks() == {"request.held": 1}
        assert scene.runs() == 0
        assert await seen(scene.simulation) == before


async def test_who_asks_a_second_time_for_what_is_held_is_seen_in_the_log() -> None:
    async with staged("*=leave", look_seconds=0) as scene:
        await scene.loop.do(PULLING)
        again = await asked(scene, "git_pull", dict(PULL))
        assert again["request_id"] == scene.loop.told["request_id"]
        assert scene.asks() == {"request.held": 1, "request.attached": 1}
        assert scene.runs() == 0


# -- 4: held, and denied with "not before" --------------------------------------------------------


async def test_it_asks_again_at_the_time_that_was_said_and_not_before() -> None:
    async with staged() as scene:
        clock, answered = scene.simulation.clock, list[str]()
        noon = clock.now() + NOON

        async def decide(client: AsyncClient, request: RequestView) -> None:
            answered.append(request.request_id)
            if len(answered) == 1:
                await client.deny(request.request_id, "not before noon", not_before=noon)
            else:
                assert clock.now() >= noon
                await approve(client, request)

        async with person(scene.simulation, decide):
            patient = Task(tool="git_pull", arguments=dict(PULL), patience_seconds=3 * 3600)
            assert await scene.loop.do(patient) is End.DONE
        assert scene.asks() == {"request.held": 2}
        assert scene.runs() == 1


async def test_who_has_not_the_time_puts_it_off_and_who_asks_at_once_is_refused() -> None:
    async with staged() as scene:
        before = await seen(scene.simulation)
        noon = scene.simulation.clock.now() + NOON

        async def decide(client: AsyncClient, request: RequestView) -> None:
            await client.deny(request.request_id, "not before noon", not_before=noon)

        async with person(scene.simulation, decide):
            assert await scene.loop.do(PULLING) is End.PUT_OFF
            assert scene.asks() == {"request.held": 1}
            assert 7100 < scene.loop.told["recovery"]["seconds"] <= 7200
            assert "| not before noon" in scene.loop.told["host_text"]
            eager = await asked(scene, "git_pull", dict(PULL))
        assert eager["code"] == "approval:held-off"
        assert 7100 < eager["recovery"]["seconds"] <= 7200
        assert "| not before noon" in eager["host_text"]
        assert scene.asks() == {"request.held": 1, "request.refused": 1}
        assert scene.runs() == 0
        assert await seen(scene.simulation) == before


# -- 5: a wrong parameter, mended by its pointer --------------------------------------------------

NAMED = Task(
    tool="pct_snapshot",
    arguments={"vmid": "102", "name": "1st", "colour": "red"},
    further={"/name": ["first"]},
)


@pytest.mark.parametrize("checks_first", [True, False])
async def test_it_mends_what_a_pointer_names(checks_first: bool) -> None:
    async with staged("*=approve", checks_first=checks_first) as scene:
        assert await scene.loop.do(NAMED) is End.DONE
        assert scene.loop.steps[0][1].get("colour") == (None if checks_first else "red")
        done = [arguments for tool, arguments in scene.loop.steps if tool == "pct_snapshot"][-1]
        assert done == {"vmid": "102", "name": "first"}
        assert scene.asks() == {"request.refused": 1, "request.held": 1}
        assert scene.runs() == 1


@pytest.mark.parametrize("checks_first", [True, False])
async def test_it_mends_an_argument_of_a_command(checks_first: bool) -> None:
    async with staged("*=approve", checks_first=checks_first) as scene:
        greet = Task(
            tool="exec_run_greet",
            arguments={"arguments": {"whom": "ANN"}},
            further={"/arguments/whom": ["Ann!", "ann"]},
        )
        assert await scene.loop.do(greet) is End.DONE
        assert scene.loop.steps[-2][1] == {"name": "greet", "arguments": {"whom": "ann"}}
        refused = {} if checks_first else {"request.refused": 2}
        assert scene.asks() == {**refused, "request.held": 1}


@pytest.mark.parametrize("checks_first", [True, False])
async def test_what_cannot_be_mended_is_given_up_and_nothing_moves(checks_first: bool) -> None:
    async with staged("*=approve", checks_first=checks_first) as scene:
        before = await seen(scene.simulation)
        for further in ([], ["2nd"], ["2nd", "3rd", "4th", "5th", "6th", "7th"]):
            wrong = Task(tool=NAMED.tool, arguments=NAMED.arguments, further={"/name": further})
            count = scene.asks()["request.refused"]
            assert await scene.loop.do(wrong) is End.GIVEN_UP
            assert scene.asks() == {"request.refused": count + min(MAX_ASKS, 1 + len(further))}
        assert scene.runs() == 0
        assert await seen(scene.simulation) == before


# -- 6: an unknown value --------------------------------------------------------------------------

MISSING = "tank/scratch/missing"


async def test_it_takes_another_value_for_one_that_the_host_does_not_know() -> None:
    async with staged("*=approve") as scene:
        packet = Task(
            tool="zfs_destroy",
            arguments={"dataset": MISSING},
            further={"/dataset": ["tank/private", "tank/scratch@before"]},
        )
        assert await scene.loop.do(packet) is End.DONE
        assert scene.loop.told["resource"] == "tank/scratch@before"
        assert scene.asks() == {"request.refused": 1, "request.held": 1}


async def test_a_value_that_nobody_knows_is_given_up_and_nothing_moves() -> None:
    async with staged("*=approve") as scene:
        before = await seen(scene.simulation)
        gone = Task(tool="zfs_destroy", arguments={"dataset": MISSING})
        assert await scene.loop.do(gone) is End.GIVEN_UP
        assert scene.asks() == {"request.refused": 1}
        stray = Task(tool="systemd_stop", arguments={"unit": "stray.service"})
        assert await scene.loop.do(stray) is End.GIVEN_UP
        assert await scene.loop.do(Task(tool="zfs_format", arguments={})) is End.GIVEN_UP
        assert scene.asks() == {"request.refused": 1}
        assert scene.runs() == 0
        assert await seen(scene.simulation) == before


async def test_what_the_host_cannot_do_is_left_to_a_person_after_one_ask() -> None:
    async with staged("*=approve") as scene:
        before = await seen(scene.simulation)
        running = Task(tool="pct_start", arguments={"vmid": "102"})
        assert await scene.loop.do(running) is End.FOR_A_PERSON
        assert scene.asks() == {"request.refused": 1}
        assert await seen(scene.simulation) == before


# -- 7: expired -----------------------------------------------------------------------------------


async def test_it_asks_once_more_for_what_expired() -> None:
    async with staged() as scene:
        expired = list[str]()

        async def decide(client: AsyncClient, request: RequestView) -> None:
            if expired:
                await approve(client, request)
            else:
                expired.append(request.request_id)
                await expire(scene.simulation, request)

        async with person(scene.simulation, decide):
            assert await scene.loop.do(STOPPING) is End.DONE
        assert scene.asks() == {"request.held": 2}
        assert scene.runs() == 1


async def expire(simulation: Simulation, request: RequestView) -> None:
    stored = await simulation.agent.context.store.get(request.request_id)
    assert stored is not None
    simulation.clock.skip_to(stored.expires_at)
    await simulation.agent.pipeline.lifecycle.expire_due()


async def test_what_always_expires_is_given_up_and_nothing_moves() -> None:
    async with staged("*=expire") as scene:
        before = await seen(scene.simulation)
        assert await scene.loop.do(STOPPING) is End.GIVEN_UP
        assert scene.asks() == {"request.held": MAX_ASKS}
        assert scene.runs() == 0
        assert await seen(scene.simulation) == before


# -- 8: rate-limited ------------------------------------------------------------------------------

NARROW = """
[[identities]]
cn = "deployer"

[[identities]]
cn = "watcher"

[[identities]]
cn = "alice"
roles = ["approver"]

[[rules]]
name = "looking is free"
operations = ["zfs.*"]
verdict = "allow"

[zfs]
datasets = ["tank/scratch"]

[limits]
asks_per_second = 1
ask_burst = 1
"""


@pytest.fixture
def narrow(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(NARROW)
    return path


class Ticks:
    """A monotonic clock that runs as far as somebody waits."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def wait(self, seconds: float) -> None:
        self.now += seconds


async def test_it_waits_as_long_as_a_rate_says(narrow: Path) -> None:
    ticks = Ticks()
    clock = SkippingClock(monotonic=ticks)
    async with staged(policy=narrow, clock=clock, wait=ticks.wait) as scene:
        assert await scene.loop.do(Task(tool="zfs_list", arguments={})) is End.DONE
        assert await scene.loop.do(snapshot("tank/scratch")) is End.DONE
        assert len(scene.loop.steps) == 3
        assert scene.asks() == {"operation.started": 2, "request.refused": ATTEMPTS}


async def test_who_has_not_the_time_that_a_rate_says_is_refused_and_nothing_moves(
    narrow: Path,
) -> None:
    ticks = Ticks()
    clock = SkippingClock(monotonic=ticks)
    async with staged(policy=narrow, clock=clock, wait=ticks.wait) as scene:
        assert await scene.loop.do(Task(tool="zfs_list", arguments={})) is End.DONE
        runs = scene.simulation.host.runs
        hasty = replace(snapshot("tank/scratch"), patience_seconds=0)
        assert await scene.loop.do(hasty) is End.PUT_OFF
        assert scene.loop.told["recovery"] == {"kind": "ask_again_after", "seconds": 1}
        assert scene.asks() == {"operation.started": 1, "request.refused": ATTEMPTS}
        assert scene.simulation.host.runs == runs


# -- 9: an equivalent waits -----------------------------------------------------------------------

RESETTING = Task(
    tool="git_reset", arguments={"repository": PULL["repository"], "ref": "origin/main"}
)


async def test_it_waits_for_an_equivalent_of_its_own_and_asks_once_that_has_ended() -> None:
    async with staged() as scene, scene.simulation.client("alice") as alice:
        pulling = await asked(scene, "git_pull", dict(PULL))
        task = asyncio.create_task(scene.loop.do(RESETTING))
        await until(lambda: scene.asks()["policy.denied"], "the refusal")
        await approve(alice, await alice.request(pulling["request_id"]))
        await scene.held(2)
        (resetting,) = (await alice.requests(state="pending")).requests
        assert resetting.operation == "git.reset"
        await approve(alice, resetting)
        assert await asyncio.wait_for(task, PATIENCE) is End.DONE
        assert scene.asks() == {"request.held": 2, "policy.denied": 1}
        assert scene.runs() == 2


async def test_an_equivalent_that_was_denied_is_not_tried_another_way() -> None:
    async with staged() as scene, scene.simulation.client("alice") as alice:
        before = await seen(scene.simulation)
        pulling = await asked(scene, "git_pull", dict(PULL))
        task = asyncio.create_task(scene.loop.do(RESETTING))
        await until(lambda: scene.asks()["policy.denied"], "the refusal")
        noon = scene.simulation.clock.now() + NOON
        await alice.deny(pulling["request_id"], "not before noon", not_before=noon)
        assert await asyncio.wait_for(task, PATIENCE) is End.PUT_OFF
        assert "| not before noon" in scene.loop.told["host_text"]
        assert scene.asks() == {"request.held": 1, "policy.denied": 2}
        assert scene.runs() == 0
        assert await seen(scene.simulation) == before


# -- 10: the target changed -----------------------------------------------------------------------


def flip(simulation: Simulation) -> None:
    """Start the unit, or stop it, behind everybody's back."""
    systemd = simulation.host.stand_ins["systemd"]
    told = systemd.answer("inspect", ("state", "worker.service"))
    facts = dict(line.split("\t", 1) for line in told.splitlines())
    verb = "stop" if facts["activity"] == "up" else "start"
    systemd.answer(verb, ("worker.service", facts["state"]))


async def approve_too_late(
    simulation: Simulation, client: AsyncClient, request: RequestView
) -> None:
    flip(simulation)
    with pytest.raises(ProblemError) as refused:
        await approve(client, request)
    assert refused.value.code == "approval:target-changed"


RESTARTING = Task(tool="systemd_restart", arguments={"unit": "worker.service"})


async def test_it_asks_anew_where_the_target_changed() -> None:
    async with staged() as scene:
        flipped = list[str]()

        async def decide(client: AsyncClient, request: RequestView) -> None:
            if flipped:
                await approve(client, request)
            else:
                flipped.append(request.request_id)
                await approve_too_late(scene.simulation, client, request)

        async with person(scene.simulation, decide):
            assert await scene.loop.do(RESTARTING) is End.DONE
        assert scene.asks() == {"request.held": 2}
        assert scene.runs() == 1


async def test_a_target_that_never_stands_still_is_given_up_and_nothing_runs() -> None:
    async with staged() as scene:
        before = await seen(scene.simulation)

        async def decide(client: AsyncClient, request: RequestView) -> None:
            await approve_too_late(scene.simulation, client, request)

        async with person(scene.simulation, decide):
            assert await scene.loop.do(RESTARTING) is End.GIVEN_UP
        assert scene.loop.told["code"] == "approval:target-changed"
        assert scene.asks() == {"request.held": MAX_ASKS}
        assert scene.runs() == 0
        after = await seen(scene.simulation)
        assert len(after) == len(READS)
        for (operation, _), was, now in zip(READS, before, after, strict=True):
            assert was == now or operation.startswith("systemd."), operation
