"""Faults that need root to be real: wrappers that change, children that will not end."""

import concurrent.futures
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.installed import FRAGMENT, SECTIONS, UNIT, WRAPPERS, Host, configuration
from tests.support.patience import PATIENCE

SECONDS = 4.0
"""The agent's deadline in these tests."""


@contextmanager
def changed(host: Host, path: str) -> Iterator[None]:
    """Have a file back as it was, whatever a test does to it."""
    kept = f"/root/kept-{Path(path).name}"
    host.machine.must("cp", "-a", path, kept)
    try:
        yield
    finally:
        host.machine.must("rm", "-f", path)
        host.machine.must("mv", kept, path)


@contextmanager
def reloaded(host: Host, text: str) -> Iterator[None]:
    """Serve another configuration for a while."""
    assert host.reload(text)["event"] == "config.loaded"
    try:
        yield
    finally:
        assert host.reload(configuration())["event"] == "config.loaded"


def processes(host: Host, words: str) -> list[str]:
    """Return the command lines inside that contain `words`."""
    lines = host.machine.must("ps", "-eo", "pid=,args=", "-ww").splitlines()
    return [line.strip() for line in lines if words in line]


# -- C35 -------------------------------------------------------------------------------------------


@pytest.mark.promise("c35")
def test_a_wrapper_that_changes_after_the_approval_was_asked_does_not_run(host: Host) -> None:
    host.machine.must("zfs", "snapshot", "tank/media@c35")
    held = host.held("zfs.destroy", dataset="tank/media@c35")
    with changed(host, f"{WRAPPERS}/zfs-destroy"):
        host.machine.must("bash", "-c", f"echo '# more' >>{WRAPPERS}/zfs-destroy")
        answer = host.decide(held)
        assert (answer.status_code, answer.json()["code"]) == (409, "approval:target-changed")
    seen = host.look(held)
    assert (seen["state"], seen["outcome"]) == ("failed", None)
    host.machine.must("zfs", "list", "tank/media@c35")


@pytest.mark.promise("c35")
@pytest.mark.parametrize(
    "drift",
    [
        "chmod 0777 {}",
        "chmod 0775 {}; chgrp librarian {}",
        "chown librarian {}",
        "mv {} {}.real; ln -s {}.real {}",
        "rm {}",
    ],
)
def test_a_wrapper_that_is_not_roots_own_any_more_is_not_run(host: Host, drift: str) -> None:
    wrapper = f"{WRAPPERS}/zfs-list"
    with changed(host, wrapper):
        host.machine.must("bash", "-c", drift.replace("{}", wrapper))
        answer = host.ask("zfs.list", {})
        assert answer.status_code == 503, answer.text
        assert answer.json()["code"] == "adapter:unavailable"
    host.machine.must("rm", "-f", f"{wrapper}.real")
    assert host.ask("zfs.list", {}).status_code == 200


@pytest.mark.promise("c35")
def test_without_its_fragment_sudo_refuses_and_the_answer_says_so(host: Host) -> None:
    with changed(host, FRAGMENT):
        host.machine.must("rm", FRAGMENT)
        before = host.state()
        answer = host.ask("zfs.snapshot", {"dataset": "tank/media", "name": "unseen"})
        assert (answer.status_code, answer.json()["code"]) == (502, "host:sudo-refused")
        assert host.state() == before
    assert host.ask("zfs.list", {}).status_code == 200


# -- C36, C37, C39, C40 ----------------------------------------------------------------------------

_STUBBORN = """\
#!/bin/bash
trap '' TERM
setsid bash -c 'trap "" TERM; exec sleep 6001' &
exec sleep 6002
"""
"""Both outlast everybody's patience."""


def _hasten(host: Host, wrapper: str, *, seconds: int) -> None:
    """Give what the shipped wrapper runs less time: half an hour is long for a test."""
    host.machine.must("sed", "-i", f"s/^bound 1800 /bound {seconds} /", wrapper)
    host.machine.must("grep", "-q", f"^bound {seconds} ", wrapper)


def _with_command(host: Host, script: str) -> str:
    """Register a script as a command, and return the configuration that has it."""
    path = "/usr/local/bin/more.sh"
    host.machine.write(path, script, mode=0o755)
    digest = host.machine.must("sha256sum", path).split()[0]
    command = f'[[exec.commands]]\nname = "more"\npath = "{path}"\nsha256 = "sha256:{digest}"\n'
    text = configuration(sections=SECTIONS + command)
    host.machine.must("bash", "-c", f"echo 'more {digest} destroy {path}' >>{WRAPPERS}/commands")
    return text


@pytest.mark.promise("c36")
def test_what_ignores_every_signal_is_ended_by_its_scope_on_time(host: Host) -> None:
    wrapper = f"{WRAPPERS}/exec-run"
    with (
        changed(host, f"{WRAPPERS}/commands"),
        changed(host, wrapper),
        reloaded(host, _with_command(host, _STUBBORN)),
    ):
        _hasten(host, wrapper, seconds=2)
        began = time.monotonic()
        done = host.done("exec.run", {"name": "more", "arguments": {}})
        assert done["state"] in ("failed", "timed_out"), done
        assert done["problem"]["code"] == "host:timed-out", done
        assert time.monotonic() - began < PATIENCE  # the agent itself would have waited longer
        host.machine.until(lambda: not processes(host, "sleep 600"), "a child is left")


@pytest.mark.promise("c37")
def test_a_child_of_root_that_hangs_is_answered_for_on_time_and_ends(host: Host) -> None:
    host.machine.write("/var/lib/pct.state/fault", "status hang\n")
    try:
        with reloaded(host, configuration(execution=f"timeout_seconds = {SECONDS:.0f}")):
            began = time.monotonic()
            answer = host.ask("pct.status", {"vmid": "101"})  # which would hang for good
            assert (answer.status_code, answer.json()["code"]) == (504, "host:timed-out")
            assert SECONDS <= time.monotonic() - began < PATIENCE
            host.machine.until(lambda: not processes(host, "pct status"), "a child of root is left")
            # The agent's user could not have ended it: it belongs to root.
            assert host.ask("zfs.list", {}).status_code == 200
    finally:
        host.machine.must("rm", "-f", "/var/lib/pct.state/fault")
    assert host.ask("pct.status", {"vmid": "101"}).status_code == 200


_BOMB = """\
#!/usr/bin/python3 -I
import os, time
count = 0
try:
    while count < 2000:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        count += 1
except OSError:
    pass
print(count)
"""


@pytest.mark.promise("c39")
def test_what_runs_as_root_has_a_bound_on_processes_and_memory(host: Host) -> None:
    wrapper = f"{WRAPPERS}/exec-run"
    with (
        changed(host, f"{WRAPPERS}/commands"),
        changed(host, wrapper),
        reloaded(host, _with_command(host, _STUBBORN)),
    ):
        _hasten(host, wrapper, seconds=2)
        held = host.held("exec.run", name="more", arguments={})
        assert host.decide(held).status_code == 200
        host.machine.until(lambda: bool(_scopes(host)), "it does not run in a scope")
        (scope,) = _scopes(host)
        limits = ("TasksMax", "MemoryMax", "RuntimeMaxUSec", "TimeoutStopUSec")
        wanted = ["256", str(2 << 30), "2s", "3s"]
        assert [host.machine.must("systemctl", "show", "-P", n, scope).strip() for n in limits] == (
            wanted
        )
        assert host.ask("zfs.list", {}).status_code == 200  # it serves meanwhile
        assert host.ended(held)["problem"]["code"] == "host:timed-out"


_GREEDY = """\
#!/bin/sh
exec python3 -c 'print(len(b"x" * (1 << 30)))'
"""


@pytest.mark.promise("c39")
def test_a_git_that_takes_too_much_memory_is_killed_alone(host: Host) -> None:
    show = ("systemctl", "show", "-P")
    shipped = [host.machine.must(*show, name, UNIT).strip() for name in _MEMORY]
    assert shipped == [str(1 << 30), str(2 << 30), str(512 << 20), "continue"]
    if host.machine.must(*show, "MemoryCurrent", UNIT).strip() == "[not set]":
        pytest.skip("the kernel's memory controller does not reach into the machine here")
    pid = host.main_pid
    bound = ("systemctl", "set-property", "--runtime", UNIT)
    git = f"{WRAPPERS}/git"
    host.machine.must(*bound, "MemoryHigh=infinity", "MemoryMax=400M", "MemorySwapMax=0")
    try:
        with changed(host, git):
            host.machine.write(git, _GREEDY)
            answer = host.ask("git.status", {"repository": "/srv/app"})
            assert answer.status_code == 502, answer.text
        assert host.main_pid == pid
        assert host.machine.must(*show, "ActiveState", UNIT).strip() == "active"
        assert host.ask("git.status", {"repository": "/srv/app"}).status_code == 200
    finally:
        host.machine.must(*bound, "MemoryHigh=1G", "MemoryMax=2G", "MemorySwapMax=512M")


_MEMORY = ("MemoryHigh", "MemoryMax", "MemorySwapMax", "OOMPolicy")


def _scopes(host: Host) -> list[str]:
    listed = host.machine.must(
        *("systemctl", "list-units", "--type=scope", "--plain", "--no-legend", "run-*.scope")
    )
    return [line.split()[0] for line in listed.splitlines()]


@pytest.mark.promise("c39")
def test_a_fork_bomb_stays_in_its_scope_and_ends_with_it(host: Host) -> None:
    if host.machine.must("systemctl", "show", "-P", "TasksCurrent", UNIT).strip() == "[not set]":
        pytest.skip("the kernel's pids controller does not reach into the machine here")
    wrapper = f"{WRAPPERS}/exec-run"
    with (
        changed(host, f"{WRAPPERS}/commands"),
        changed(host, wrapper),
        reloaded(host, _with_command(host, _BOMB)),
    ):
        _hasten(host, wrapper, seconds=4)
        done = host.done("exec.run", {"name": "more", "arguments": {}})
        assert 0 < int(done["outcome"]["stdout"]) < 256
        host.machine.until(lambda: not processes(host, "more.sh"), "some are left")


@pytest.mark.promise("c40")
def test_process_numbers_that_come_round_harm_nobody(host: Host) -> None:
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if release < (6, 14):
        pytest.skip("before Linux 6.14 the greatest process number is one for the whole machine")
    usual = host.machine.must("sysctl", "-n", "kernel.pid_max").strip()
    newest = max(int(line.split()[0]) for line in processes(host, ""))
    host.machine.must("systemd-run", "--unit=bystander", "--quiet", "sleep", "6003")
    host.machine.write("/var/lib/pct.state/fault", "status hang\n")
    units = ("systemctl", "show", "-p", "Id,ActiveState,InvocationID", "bystander", "web", "idle")
    churn = ("bash", "-c", "for ((i = 0; i < 2000; i++)); do /bin/true; done")
    try:
        with reloaded(host, configuration(execution=f"timeout_seconds = {SECONDS:.0f}")):
            host.machine.must("sysctl", "-q", "-w", f"kernel.pid_max={newest + 200}")
            before, pid = host.machine.must(*units), host.main_pid
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                hangs = pool.submit(host.ask, "pct.status", {"vmid": "101"})
                host.machine.must(*churn)
                assert hangs.result().json()["code"] == "host:timed-out"
            host.machine.must(*churn)
            assert (host.machine.must(*units), host.main_pid) == (before, pid)
    finally:
        host.machine.must("sysctl", "-q", "-w", f"kernel.pid_max={usual}")
        host.machine.must("rm", "-f", "/var/lib/pct.state/fault")
        host.machine.must("systemctl", "stop", "bystander.service")
