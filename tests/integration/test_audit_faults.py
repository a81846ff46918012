"""The audit log against the kernel itself: size limits, full disks, failing syncs, kill -9."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from host_agent.audit.verify import verify
from tests.support.audit_files import events
from tests.support.patience import PATIENCE

PRELUDE = """
import asyncio, json, os, resource, sys
from pathlib import Path
from host_agent.audit.log import AuditLog
from host_agent.audit.record import Event
from host_agent.clock import SystemClock
from host_agent.errors import AuditUnavailableError

path = Path(sys.argv[1])
log = AuditLog(path, max_bytes=10**9, retain_days=90, clock=SystemClock())

async def attempt():
    try:
        return await log.append(Event.OPERATION_STARTED, caller="librarian")
    except AuditUnavailableError:
        return None
"""


def run(script: str, *arguments: Path | str, **environment: str) -> dict[str, Any]:
    """Run `script` in a fresh interpreter and return the JSON object that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(script), *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    value: dict[str, Any] = json.loads(done.stdout)
    return value


# -- C4 -------------------------------------------------------------------------------------------

LIMITED = """
async def main():
    await log.open()
    told = [await attempt() for _ in range(5)]
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + int(sys.argv[2]), hard))
    refused = [await attempt() for _ in range(6)]
    sick = log.healthy
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    told += [s for s in refused if s] + [await attempt() for _ in range(3)]
    await log.close()
    print(json.dumps({"told": told, "refused": refused.count(None), "was_healthy": sick}))

asyncio.run(main())
"""


@pytest.mark.promise("c4")
@pytest.mark.parametrize("room", [0, 1, 10, 299, 300, 301, 700])
def test_a_size_limit_refuses_and_no_intent_is_told_that_is_not_there(
    tmp_path: Path, room: int
) -> None:
    path = tmp_path / "audit.jsonl"
    result = run(LIMITED, path, str(room))
    started = [sequence for sequence, event in events(path) if event == "operation.started"]
    assert result["told"] == started
    assert result["refused"] >= 3
    assert not result["was_healthy"]
    report = verify([path])
    assert report.found == 0
    assert "audit.recovered" in [event for _, event in events(path)]


FULL_DISK = """
async def main():
    await log.open()
    told = [await attempt() for _ in range(5)]
    filler = path.with_name("filler")
    with filler.open("wb", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
    results = []
    while None not in results[-1:]:
        results.append(await attempt())
    results += [await attempt() for _ in range(3)]
    sick = log.healthy
    filler.unlink()
    for _ in range(400):
        if log.healthy:
            break
        await asyncio.sleep(0.01)
    recovered = log.healthy
    told += [s for s in results if s] + [await attempt() for _ in range(3)]
    await log.close()
    print(json.dumps({"told": told, "was_healthy": sick, "recovered": recovered}))

asyncio.run(main())
"""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k,mode=700", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("tmpfs cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.promise("c4")
@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_refuses_and_recovers_alone_when_space_returns(small_disk: Path) -> None:
    path = small_disk / "audit.jsonl"
    result = run(FULL_DISK, path)
    started = [sequence for sequence, event in events(path) if event == "operation.started"]
    assert result["told"] == started
    assert not result["was_healthy"]
    assert result["recovered"]
    assert verify([path]).found == 0


# -- C5 -------------------------------------------------------------------------------------------

FAILING_SYNC = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int fdatasync(int fd) {
    static int (*real)(int);
    const char *flag = getenv("FAIL_SYNC_WHILE");
    if (!real) real = (int (*)(int)) dlsym(RTLD_NEXT, "fdatasync");
    if (flag && access(flag, F_OK) == 0) { unlink(flag); errno = EIO; return -1; }
    return real(fd);
}
"""

SYNC_FAILS_ONCE = """
async def main():
    await log.open()
    told = [await attempt() for _ in range(5)]
    Path(os.environ["FAIL_SYNC_WHILE"]).touch()
    failed = await attempt()
    sick = log.healthy
    told += [await attempt() for _ in range(3)]
    await log.close()
    print(json.dumps({"told": told, "failed": failed, "was_healthy": sick}))

asyncio.run(main())
"""


@pytest.mark.promise("c5")
def test_a_sync_that_fails_once_is_a_failure_for_good(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make the failing fdatasync with")
    source, library = tmp_path / "sync.c", tmp_path / "sync.so"
    source.write_text(FAILING_SYNC)
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("the C compiler here makes no shared library")
    path = tmp_path / "audit.jsonl"
    result = run(
        SYNC_FAILS_ONCE,
        path,
        LD_PRELOAD=str(library),
        FAIL_SYNC_WHILE=str(tmp_path / "flag"),
    )
    assert result["failed"] is None
    assert not result["was_healthy"]
    (old,) = tmp_path.glob("audit-*.jsonl")
    assert [event for _, event in events(path)][:2] == ["audit.rotated", "audit.recovered"]
    started = [s for s, e in events(old)[:5] + events(path) if e == "operation.started"]
    assert result["told"] == started
    report = verify([old, path])
    assert [torn.sequence for torn in report.torn] == [6]
    (finding,) = report.findings
    assert "whole records, 6 to" in finding.message


# -- C3 -------------------------------------------------------------------------------------------

ENDLESS = """
async def writer():
    while True:
        sequence = await attempt()
        os.write(1, b"%d\\n" % sequence)

async def main():
    await log.open()
    await asyncio.gather(*(writer() for _ in range(16)))

asyncio.run(main())
"""


@pytest.mark.promise("c3")
def test_kill_9_loses_nothing_that_was_told_and_breaks_no_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for kill in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", PRELUDE + ENDLESS, str(path)], stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(20 + 37 * kill)]
            process.send_signal(signal.SIGKILL)
            told += [int(line) for line in process.stdout.read().split(b"\n")[:-1]]
        report = verify([path])
        assert report.found == 0
        assert report.first == 1
        on_disk = {sequence for sequence, _ in events(path)}
        assert set(told) <= on_disk


# -- two agents -----------------------------------------------------------------------------------

SECOND = """
async def main():
    try:
        await log.open()
    except AuditUnavailableError as error:
        print(json.dumps({"refused": error.detail}))

asyncio.run(main())
"""

FIRST = """
async def main():
    await log.open()
    os.write(1, b"open\\n")
    sys.stdin.read()

asyncio.run(main())
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + FIRST, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert "another agent" in run(SECOND, path)["refused"]
        process.kill()
    assert run(LIMITED, path, "0")["told"][0] == 1
