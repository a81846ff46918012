"""`host-agent audit verify` over a long log, its own start included."""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from host_agent.audit.record import ORIGIN, Event, Members, build, link
from host_agent.canonical import JsonValue
from tests.bench.table import Row, at_least

RECORDS = 200_000
ROUNDS = 3
GOAL = 100_000


def figures(place: Path) -> list[Row]:
    """Return the row of records verified a second."""
    path = place / "long.jsonl"
    _write(path)
    argv = [sys.executable, "-m", "host_agent", "audit", "verify", str(path)]
    taken = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - begun)
    rate = RECORDS / median(taken)
    size = path.stat().st_size / 2**20
    path.unlink()
    return [
        at_least(
            "audit verify, records a second",
            rate,
            GOAL,
            measured=f"{rate:,.0f}/s",
            against=f"{RECORDS:,} records, {size:.0f} MiB",
        )
    ]


def _write(path: Path) -> None:
    """Write a chain as reads of a repository make it: two records each."""
    place = ORIGIN
    with path.open("wb") as file:
        for number in range(RECORDS):
            line, place = link(_members(number), place)
            file.write(line + b"\n")


def _members(number: int) -> Members:
    subject: dict[str, JsonValue] = {
        "caller": "deployer",
        "fingerprint": "sha256:" + "3" * 64,
        "owner": "bob",
        "operation": "git.status",
        "resource": "/srv/app",
        "params": {"repository": "/srv/app"},
        "digest": "sha256:" + "5" * 64,
        "request_id": f"{number // 2:032x}",
    }
    if number % 2 == 0:
        return build(Event.OPERATION_STARTED, "2026-11-20T22:00:00.000000Z", subject)
    outcome: JsonValue = {
        "state": "succeeded",
        "exit_code": 0,
        "duration_ms": 12,
        "truncated": False,
        "stdout_bytes": 114,
        "stderr_bytes": 0,
        "stdout_sha256": "7" * 64,
        "verified": None,
    }
    return build(
        Event.OPERATION_FINISHED, "2026-11-20T22:00:00.012345Z", {**subject, "outcome": outcome}
    )
