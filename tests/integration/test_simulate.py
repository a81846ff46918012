"""`host-agent simulate`: the real path on a host in memory, whole, and nothing left of it."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import JsonValue

from host_agent.__main__ import main
from host_agent.audit.verify import verify
from host_agent.client import AsyncClient, ProblemError, Ran, RequestView
from host_agent.errors import ConfigurationError, ConnectionFailedError
from host_agent.operations import CATALOGUE
from host_agent.operations.catalogue import Effect, Invocation, RunAs
from host_agent.simulation.host import SimulatedHost
from host_agent.simulation.script import AnswerKind, Script, ScriptedAnswer
from host_agent.simulation.simulation import Simulation
from tests.support.patience import PATIENCE
from tests.support.simulated_host import APP, PULL, READS, script, seen

TEMPLATE = "local:vztmpl/debian-12.tar.zst"
CHANGES: Sequence[tuple[str, Mapping[str, JsonValue]]] = (
    ("git.fetch", {**APP, "remote": "origin"}),
    ("git.pull", PULL),
    ("git.switch", {**APP, "branch": "topic"}),
    ("git.reset", {**APP, "ref": "main"}),
    ("zfs.snapshot", {"dataset": "tank/scratch", "name": "now", "recursive": True}),
    ("zfs.hold", {"dataset": "tank/scratch@now", "tag": "keep"}),
    ("zfs.release", {"dataset": "tank/scratch@now", "tag": "keep"}),
    ("zfs.rollback", {"dataset": "tank/scratch@now"}),
    ("zfs.destroy", {"dataset": "tank/scratch", "recursive": True}),
    ("systemd.start", {"unit": "idle.service"}),
    ("systemd.restart", {"unit": "web.service"}),
    ("systemd.reload", {"unit": "web.service"}),
    ("systemd.stop", {"unit": "worker.service"}),
    ("pct.start", {"vmid": "101"}),
    ("pct.snapshot", {"vmid": "101", "name": "now"}),
    ("pct.shutdown", {"vmid": "101"}),
    ("pct.rollback", {"vmid": "102", "name": "before"}),
    ("pct.create", {"vmid": "110", "template": TEMPLATE, "hostname": "made"}),
    ("pct.stop", {"vmid": "104"}),
    ("pct.destroy", {"vmid": "103"}),
    ("apt.install", {"package": "web-tool"}),
    ("apt.upgrade", {"package": "web-server"}),
    ("exec.run", {"name": "greet", "arguments": {"whom": "ann"}}),
)
SPECS = {spec.name: spec for spec in CATALOGUE}
Asked = tuple[str, Mapping[str, JsonValue]]
BEFORE: Mapping[str, Sequence[Asked]] = {
    "pct.stop": [
        ("pct.create", {"vmid": "104", "template": TEMPLATE}),
        ("pct.start", {"vmid": "104"}),
    ]
}
"""What has to be done first."""


@pytest.fixture
async def simulation(request: pytest.FixtureRequest) -> AsyncIterator[Simulation]:
    answers: Sequence[str] = getattr(request, "param", ["*=approve"])
    async with Simulation(script(*answers)) as running:
        yield running


async def ended(
    client: AsyncClient, operation: str, params: Mapping[str, JsonValue]
) -> Ran | RequestView:
    return await client.submit(operation, params, reason="a test", wait=PATIENCE)


def test_there_is_a_stand_in_and_a_case_for_every_operation() -> None:
    assert set(SimulatedHost().stand_ins) == {adapter.name for adapter in CATALOGUE.adapters}
    assert [name for name, _ in (*READS, *CHANGES)]
    assert {name for name, _ in READS} == {
        spec.name for spec in CATALOGUE if spec.effect is Effect.READ
    }
    assert {name for name, _ in CHANGES} == {
        spec.name for spec in CATALOGUE if spec.effect is not Effect.READ
    }


async def test_every_operation_is_answered(simulation: Simulation) -> None:
    async with simulation.client("deployer") as client:
        for operation, params in READS:
            answer = await client.submit(operation, params)
            assert isinstance(answer, Ran), operation
            assert answer.outcome.data is not None, operation
        for operation, params in CHANGES:
            for first, told in BEFORE.get(operation, []):
                assert (await ended(client, first, told)).state == "succeeded"
            done = await ended(client, operation, params)
            assert done.state == "succeeded", (operation, done)
            assert done.outcome is not None
            is_probed = SPECS[operation].probe is not None
            assert done.outcome.verified is (True if is_probed else None), operation


@pytest.mark.parametrize("simulation", [["*=deny:not before noon"]], indirect=True)
async def test_what_is_denied_leaves_the_host_as_it_was(simulation: Simulation) -> None:
    before = await seen(simulation)
    async with simulation.client("deployer") as client:
        for operation, params in (
            ("git.pull", PULL),
            ("systemd.stop", {"unit": "web.service"}),
            ("pct.start", {"vmid": "101"}),
            ("zfs.destroy", {"dataset": "tank/scratch@before"}),
            ("apt.upgrade", {"package": "web-server"}),
        ):
            answer = await ended(client, operation, params)
            assert answer.state == "denied"
            assert isinstance(answer, RequestView)
            assert answer.decisions[0].reason == "not before noon"
            assert answer.host == "simulation"
    assert await seen(simulation) == before


@pytest.mark.parametrize("simulation", [["pct.*=expire", "*=approve"]], indirect=True)
async def test_what_expires_does_not_run_and_the_next_does(simulation: Simulation) -> None:
    async with simulation.client("deployer") as client:
        assert (await ended(client, "pct.start", {"vmid": "101"})).state == "expired"
        status = await client.submit("pct.status", {"vmid": "101"})
        assert isinstance(status, Ran)
        assert status.outcome.data == {"status": "stopped"}
        assert (await ended(client, "git.pull", PULL)).state == "succeeded"


async def test_an_answer_comes_after_its_time() -> None:
    late = ScriptedAnswer.model_validate({"answer": "approve", "after": "300ms"})
    async with Simulation(Script((late,))) as simulation, simulation.client("deployer") as client:
        held = await client.submit("git.pull", PULL)
        assert held.state == "pending"
        assert (await client.follow(held.request_id, PATIENCE)).state == "succeeded"


@pytest.mark.parametrize("simulation", [["git.*=leave", "*=approve"]], indirect=True)
async def test_what_is_left_waits_for_a_person_who_is_not_its_caller(
    simulation: Simulation,
) -> None:
    async with simulation.client("deployer") as client, simulation.client("erin") as person:
        held = await client.submit("git.pull", PULL)
        with pytest.raises(ProblemError):
            await client.approve(held.request_id, held.digest)
        assert (await client.request(held.request_id)).state == "pending"
        await person.approve(held.request_id, held.digest)
        assert (await client.follow(held.request_id, PATIENCE)).state == "succeeded"


async def test_the_policy_is_the_real_one(simulation: Simulation) -> None:
    before, runs = await seen(simulation), simulation.host.runs
    async with simulation.client("watcher") as watcher, simulation.client("deployer") as deployer:
        asked: Sequence[tuple[AsyncClient, str, Mapping[str, JsonValue], str]] = (
            (watcher, "zfs.snapshot", {"dataset": "tank/media", "name": "x"}, "policy:read-only"),
            (deployer, "zfs.hold", {"dataset": "tank/backup@monthly", "tag": "x"}, "policy:denied"),
            (deployer, "zfs.get", {"dataset": "tank/private", "properties": ["used"]}, "policy:"),
            (deployer, "systemd.stop", {"unit": "ssh.service"}, "policy:protected"),
        )
        for client, operation, params, code in asked:
            with pytest.raises(ProblemError) as refused:
                await client.submit(operation, params)
            assert refused.value.code.startswith(code), refused.value.code
    assert simulation.host.runs == runs
    assert await seen(simulation) == before


async def test_what_the_host_refuses_is_an_error_of_the_tree(simulation: Simulation) -> None:
    async with simulation.client("deployer") as client:
        asked: Sequence[tuple[str, Mapping[str, JsonValue], str]] = (
            ("zfs.get", {"dataset": "tank/scratch/no", "properties": ["used"]}, "host:not-found"),
            ("pct.start", {"vmid": "119"}, "host:not-found"),
            ("pct.start", {"vmid": "102"}, "host:failed"),
            ("apt.install", {"package": "curl"}, "host:failed"),
            ("systemd.reload", {"unit": "worker.service"}, "host:failed"),
        )
        for operation, params, code in asked:
            with pytest.raises(ProblemError) as refused:
                await ended(client, operation, params)
            assert refused.value.code == code, operation


@pytest.mark.parametrize("simulation", [["*=leave"]], indirect=True)
async def test_a_change_behind_its_back_is_a_changed_target(simulation: Simulation) -> None:
    async with simulation.client("deployer") as client, simulation.client("alice") as person:
        held = await client.submit("git.pull", PULL)
        await person.deny(
            (await client.submit("git.switch", {**APP, "branch": "topic"})).request_id
        )
        simulation.host.stand_ins["git"].answer("", _switch_arguments(simulation.host))
        await person.approve(held.request_id, held.digest)
        done = await client.follow(held.request_id, PATIENCE)
    assert done.state == "failed"
    assert done.problem is not None
    assert done.outcome is None


def _switch_arguments(host: SimulatedHost) -> tuple[str, ...]:
    told = host.stand_ins["git"].answer("", ("inspect-switch", "/srv/app", "topic"))
    facts = dict(line.split(" ", 1) for line in told.splitlines())
    hold = f"{facts['repository']},{facts['git_directory']}"
    return ("switch", "/srv/app", hold, facts["head"], facts["head_ref"], "topic", facts["target"])


@pytest.mark.parametrize("after", [0, 3600])
async def test_an_end_waits_for_the_yes_that_is_on_its_way_and_for_no_later_one(
    monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    begun, states = asyncio.Event(), list[str]()
    decide = AsyncClient.approve

    async def observed(self: AsyncClient, request_id: str, *terms: Any) -> RequestView:
        begun.set()
        view = await decide(self, request_id, *terms)
        states.append(view.state)
        return view

    monkeypatch.setattr(AsyncClient, "approve", observed)
    answer = ScriptedAnswer(answer=AnswerKind.APPROVE, after=after)
    async with Simulation(Script((answer,))) as simulation, simulation.client("deployer") as client:
        await client.submit("git.pull", PULL, reason="a test")
        if not after:
            async with asyncio.timeout(PATIENCE):
                await begun.wait()
    assert begun.is_set() == (not after)
    assert bool(states) == (not after)


async def test_the_log_is_whole_and_everything_is_gone_afterwards() -> None:
    async with Simulation(script("*=approve")) as simulation:
        directory = simulation.ground.directory
        assert directory.stat().st_mode & 0o777 == 0o700
        async with simulation.client("deployer") as client:
            await ended(client, "git.pull", PULL)
        url = simulation.url
        kept = (directory / "state" / "audit.jsonl").read_bytes()
        (copy := Path(f"{directory}.kept")).write_bytes(kept)
    assert not directory.exists()
    try:
        assert not verify([copy]).findings
    finally:
        copy.unlink()
    with pytest.raises((httpx.HTTPError, ConnectionFailedError, ConfigurationError)):
        async with httpx.AsyncClient() as stranger:
            await stranger.get(url)


async def test_nothing_is_there_for_what_has_no_stand_in() -> None:
    host = SimulatedHost()
    stray = Invocation(wrapper="audit-rotate", arguments=(), run_as=RunAs.ROOT)
    with pytest.raises(Exception, match="nothing that stands in for audit-rotate"):
        await host.run(stray, unix_user=None)
    assert host.runs == 0


POLICY = """
[[identities]]
cn = "robot"
unix_user = "nobody-of-here"
owner = "dave"

[[identities]]
cn = "alice"
roles = ["approver"]

[[identities]]
cn = "erin"
roles = ["approver"]

[[rules]]
name = "two for this"
operations = ["zfs.*"]
verdict = "ask"
approvals = 2

[zfs]
datasets = ["rpool/data", "rpool/data/.*"]

[[git.repositories]]
path = "/home/robot/work"
remotes = ["upstream"]
branches = ["main", "release/1\\\\.0"]
"""


async def test_a_policy_of_ones_own_serves_with_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(POLICY)
    async with (
        Simulation(script("*=approve"), policy=tmp_path / "policy.toml") as simulation,
        simulation.client("robot") as client,
    ):
        params: dict[str, JsonValue] = {"dataset": "rpool/data", "name": "now"}
        done = await ended(client, "zfs.snapshot", params)
        assert isinstance(done, RequestView)
        assert done.state == "succeeded"
        assert {decision.approver for decision in done.decisions} == {"alice", "erin"}
        with pytest.raises(ProblemError, match="policy:"):
            await client.submit("git.status", {"repository": "/home/robot/work"})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (POLICY + '[execution]\nwrapper_dir = "/usr/local/lib/host-agent"\n', "execution"),
        (POLICY + '[server]\nbind = "0.0.0.0:8443"\n', "server"),
        (POLICY + "[channels.ntfy]\n", "channels"),
        (
            POLICY.replace('"nobody-of-here"', '"""nobody\nofhere"""'),
            "a line of its own",
        ),
        (POLICY.replace('cn = "robot"', 'cn = "robot"\nroles = ["approver"]'), "role caller"),
        (POLICY.replace('cn = "robot"', 'cn = "ca"'), "identities"),
        (POLICY.replace('verdict = "ask"', 'verdict = "perhaps"'), "verdict"),
        (
            POLICY.replace('cn = "robot"', f'cn = "robot"\nfingerprint = "sha256:{"0" * 64}"'),
            "fing",
        ),
        ("", "is empty"),
    ],
)
async def test_another_policy_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, fault: str
) -> None:
    (tmp_path / "policy.toml").write_text(text)
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    with pytest.raises(ConfigurationError) as refused:
        async with Simulation(Script(), policy=tmp_path / "policy.toml"):
            pass
    assert fault in "\n".join(refused.value.faults)
    assert not list(place.iterdir())


# -- as a process ----------------------------------------------------------------------------------


@contextlib.contextmanager
def started(tmp_path: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-m", "host_agent", "simulate", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def as_home(home: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "host_agent", *arguments],
        env={"PATH": os.environ["PATH"], "HOME": home},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_end(tmp_path: Path, end: signal.Signals) -> None:
    with started(tmp_path, "--json", "--deny", "not today", "--on", "git.*=approve") as process:
        assert process.stdout is not None
        told: dict[str, Any] = json.loads(process.stdout.readline())
        assert told["simulation"] is True
        home = told["home"]
        assert as_home(home, "call", "zfs.list").returncode == 0
        pull = [f"{name}={value}" for name, value in PULL.items()]
        assert as_home(home, "call", "git.pull", *pull, "--wait", "60").returncode == 0
        denied = as_home(home, "call", "pct.start", "vmid=101", "--wait", "60")
        assert denied.returncode == 77
        assert "not today" in denied.stderr
        assert as_home(home, "requests", "list", "--host", "alice").returncode == 0
        process.send_signal(end)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_the_command_says_what_it_is_and_how_to_connect(tmp_path: Path) -> None:
    with started(tmp_path, "--approve", "--after", "1s") as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "HOST_AGENT_CA=" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert lines[0].startswith("This is a simulation")
    assert any("HOST_AGENT_URL=https://localhost:" in line for line in lines)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("options", "status"),
    [
        (["--after", "soon"], 64),
        (["--on", "git.*=perhaps"], 64),
        (["--approve", "--expire"], 64),
        (["--port", "65536"], 64),
        (["--script", "/nonexistent"], 78),
        (["--policy", "/nonexistent"], 78),
    ],
)
def test_what_cannot_be_followed_serves_nothing(
    tmp_path: Path,
    options: list[str],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["simulate", *options]) == status
    out, err = capsys.readouterr()
    assert not out
    assert err
    assert not list(tmp_path.iterdir())


async def test_its_wrappers_run_nothing(simulation: Simulation) -> None:
    for wrapper in (simulation.ground.directory / "wrappers").iterdir():
        process = await asyncio.create_subprocess_exec(wrapper, stderr=asyncio.subprocess.PIPE)
        _, said = await process.communicate()
        assert process.returncode == 69
        assert b"simulation" in said
