"""The agent as a process: killed, hung up on, ended, out of room; and what is there afterwards."""

import asyncio
import contextlib
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from host_agent.requests.model import State
from tests.support.site import RULES, Served, Site, make_site
from tests.support.visit import Gate, Visitors, objects, problem, require_whole, rows, until


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return make_site(tmp_path / "site")


@contextlib.contextmanager
def in_one_directory(site: Site) -> Iterator[Served]:
    """An agent that is ended whatever happens, and its log verified."""
    with Served(site) as served:
        yield served
    require_whole(site)


def states(site: Site) -> list[object]:
    """Return the state of each stored request, read from the file."""
    known = {str(state) for state in State}
    return [value for row in rows(site.store_path) for value in row if value in known]


def log_of(served: Served) -> list[dict[str, Any]]:
    return objects(served.log.read_bytes())


def children(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`, the dead ones too."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError):
            if entry.name.isdigit():
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(status[1]) == pid:
                    found.append(int(entry.name))
    return found


# -- killed ---------------------------------------------------------------------------------------


@pytest.mark.promise("c1")
async def test_killed_between_approval_and_run_it_runs_once_after_the_restart(
    site: Site,
) -> None:
    before = site.repository.head
    with Gate(site, "fetch") as gate, in_one_directory(site) as served:
        async with Visitors(site, served.url) as people:
            switch = {**site.status(), "branch": "topic"}
            waiting = (await people.ask("git.switch", switch)).json()
            held = await people.held()
            fetch = {**site.status(), "remote": "origin"}
            fetching = asyncio.ensure_future(people.ask("git.fetch", fetch, by="robot"))
            await gate.reached()  # so that the approved pull waits for its turn
            assert (await people.decide(held)).json()["state"] == "approved"
            served.kill()
            await asyncio.wait([fetching])
            assert fetching.exception() is not None
        assert site.repository.head == before
        served.start()
        async with Visitors(site, served.url) as people:
            done = await people.ended(held)
            assert (done["state"], done["outcome"]["verified"]) == ("succeeded", True)
            assert site.repository.head == done["precondition"]["target"]
            assert (await people.look(waiting)).json()["state"] == "pending"
        served.kill()
        served.start()
        async with Visitors(site, served.url) as people:
            assert (await people.look(held)).json()["state"] == "succeeded"
    started = [r["request_id"] for r in site.records() if r["event"] == "operation.started"]
    assert started.count(held["request_id"]) == 1


@pytest.mark.promise("c2")
async def test_killed_while_it_runs_the_outcome_is_unknown_and_it_is_not_run_again(
    site: Site,
) -> None:
    with Gate(site, "pull") as gate, in_one_directory(site) as served:
        async with Visitors(site, served.url) as people:
            held = await people.held()
            assert (await people.decide(held)).status_code == 200
            await gate.reached()
            served.kill()
        assert states(site) == ["running"]
        served.start()
        async with Visitors(site, served.url) as people:
            seen = (await people.look(held)).json()
            assert (seen["state"], seen["outcome"]) == ("unknown", None)
            assert "not run again" in seen["problem"]["detail"]
            # Somebody looks and asks again: that is a new request, a new decision.
            again = await people.held()
            assert again["request_id"] != held["request_id"]
            assert again["state"] == "pending"
    events = [r["event"] for r in site.records() if r.get("request_id") == held["request_id"]]
    assert events == [
        "operation.inspected",
        "request.held",
        "request.decided",
        "operation.inspected",
        "operation.started",
        "request.unknown",
    ]


@pytest.mark.promise("c2")
async def test_an_allowed_change_that_was_killed_is_unknown_too(site: Site) -> None:
    with Gate(site, "fetch") as gate, in_one_directory(site) as served:
        fetch = {**site.status(), "remote": "origin"}
        async with Visitors(site, served.url) as people:
            fetching = asyncio.ensure_future(people.ask("git.fetch", fetch, key="k1"))
            await gate.reached()
            served.kill()
            await asyncio.wait([fetching])
            assert fetching.exception() is not None
        served.start()
        async with Visitors(site, served.url) as people:
            answer = await people.ask("git.fetch", fetch, key="k1")
            assert (answer.status_code, answer.json()["state"]) == (202, "unknown")
    assert site.events().count("operation.started") == 1


# -- ended ----------------------------------------------------------------------------------------


async def test_sigterm_answers_what_runs_and_ends_long_polls_at_once(site: Site) -> None:
    with Gate(site, "status") as gate, in_one_directory(site) as served:
        async with Visitors(site, served.url) as people:
            held = await people.held()
            waiting = asyncio.ensure_future(people.look(held, wait=60))
            asking = asyncio.ensure_future(people.status(by="watcher"))
            await gate.reached()
            served.signal(signal.SIGTERM)
            assert (await waiting).json()["state"] == "pending"
            assert not asking.done()
            with pytest.raises(httpx.ConnectError):
                await people.status(by="robot")
            gate.open()
            answer = await asking
            assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
        assert await asyncio.to_thread(served.stop) == 0
    assert site.events()[-2:] == ["operation.finished", "agent.stopped"]
    assert states(site) == ["pending"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_again_and_again_it_ends_well(site: Site, number: signal.Signals) -> None:
    with in_one_directory(site) as served:
        process = served.process
        assert process is not None
        process.terminate()
        while process.poll() is None:
            process.send_signal(number)
            time.sleep(0.001)
        assert process.returncode == 0


async def test_sigterm_lets_an_approved_run_end(site: Site) -> None:
    with Gate(site, "pull") as gate, in_one_directory(site) as served:
        async with Visitors(site, served.url) as people:
            held = await people.held()
            await people.decide(held)
            await gate.reached()
        served.signal(signal.SIGTERM)
        await until(lambda: b"stopping" in served.log.read_bytes(), "the draining")
        gate.open()
        assert await asyncio.to_thread(served.stop) == 0
    assert states(site) == ["succeeded"]
    assert site.repository.head == site.repository.git("rev-parse", "origin/main")


async def test_sigterm_does_not_wait_for_ever_and_says_what_is_unknown(site: Site) -> None:
    site.configure(server="drain_seconds = 0.2")
    with Gate(site, "pull") as gate, in_one_directory(site) as served:
        async with Visitors(site, served.url) as people:
            held = await people.held()
            await people.decide(held)
            await gate.reached()
        assert await asyncio.to_thread(served.stop) == 0
        assert states(site) == ["running"]
        finished = [r for r in site.records() if r["event"] == "operation.finished"]
        assert finished[-1]["outcome"]["state"] == "unknown"
        served.start()
        async with Visitors(site, served.url) as people:
            assert (await people.look(held)).json()["state"] == "unknown"


# -- children -------------------------------------------------------------------------------------


@pytest.mark.promise("c41")
async def test_runs_leave_no_child_and_no_zombie(site: Site) -> None:
    with in_one_directory(site) as served:
        assert served.process is not None
        pid = served.process.pid
        before = children(pid)
        async with Visitors(site, served.url) as people:
            for _ in range(5):
                answers = await asyncio.gather(*(people.status() for _ in range(8)))
                assert {answer.status_code for answer in answers} == {200}
        await until(lambda: children(pid) == before, "the end of every child")


@pytest.mark.promise("c41")
async def test_a_child_that_outlives_a_killed_agent_disturbs_nothing(site: Site) -> None:
    with Gate(site, "pull") as gate, in_one_directory(site) as served:
        assert served.process is not None
        async with Visitors(site, served.url) as people:
            held = await people.held()
            await people.decide(held)
            await gate.reached()
        orphans = children(served.process.pid)
        assert orphans
        served.kill()
        served.start()
        async with Visitors(site, served.url) as people:
            assert (await people.look(held)).json()["state"] == "unknown"
            gate.open()  # the wrapper of the life before goes on, and ends somehow
            await until(lambda: not any(map(is_alive, orphans)), "the end of the old run")
            assert (await people.look(held)).json()["state"] == "unknown"
            assert (await people.status()).status_code == 200
    started = [r for r in site.records() if r["event"] == "operation.started"]
    assert [record["operation"] for record in started] == ["git.pull", "git.status"]


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that nobody reaps does not."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- hung up on -----------------------------------------------------------------------------------


@pytest.mark.promise("c42")
async def test_sighup_with_a_broken_file_keeps_the_old_configuration(site: Site) -> None:
    good = site.config_path.read_text()
    with in_one_directory(site) as served:
        async with Visitors(site, served.url) as people:
            site.config_path.write_text(good.replace("[server]", "[servre]", 1))
            for _ in range(100):
                served.signal(signal.SIGHUP)
            await until(lambda: "config.rejected" in site.events(), "the rejection")
            assert (await people.status()).status_code == 200
            said = [entry["message"] for entry in log_of(served)]
            assert [line for line in said if "servre" in line]
            site.config_path.write_text(good.replace(RULES, ""))
            served.signal(signal.SIGHUP)
            await until(lambda: site.events().count("config.loaded") == 2, "the reload")
            assert problem(await people.status()) == "policy:no-rule"
        assert served.process is not None
        assert served.process.poll() is None


# -- out of room ----------------------------------------------------------------------------------


@pytest.mark.promise("c4")
async def test_a_short_write_is_no_record_and_the_log_goes_on_when_there_is_room(
    site: Site,
) -> None:
    """A limit on the size of files: the write before the error is short, half a line remains."""
    with in_one_directory(site) as served:
        assert served.process is not None
        pid = served.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        async with Visitors(site, served.url) as people:
            assert (await people.status()).status_code == 200
            started = site.events().count("operation.started")
            size = site.audit_path.stat().st_size
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 10, hard))
            for _ in range(3):
                answer = await people.status()
                assert (answer.status_code, problem(answer)) == (503, "audit:unavailable")
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
            assert (await people.status()).status_code == 200
            ready = await people.who("alice").get("/ready")
            assert ready.json()["audit"] == "ok"
        lines = [line for path in site.audit_files for line in path.read_bytes().splitlines()]
        half = [line for line in lines if not line.endswith(b"}")]
        assert [len(line) for line in half] == [10]
        text = b"\n".join(lines)
        assert text.count(b'"event":"operation.started"') == started + 1


# -- two of them ----------------------------------------------------------------------------------


@pytest.mark.promise("c29")
async def test_a_second_agent_on_the_same_store_does_not_start(site: Site) -> None:
    with in_one_directory(site) as served:
        second = Served(site)
        second.log = site.directory / "second.log"
        with pytest.raises(RuntimeError, match="Another agent works"):
            second.start()
        assert second.process is not None
        assert second.process.returncode == os.EX_UNAVAILABLE
        async with Visitors(site, served.url) as people:
            assert (await people.status()).status_code == 200
