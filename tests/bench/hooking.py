"""One hook: a command of an agent is judged, by a process of its own each time."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench.table import Row, at_most

RUNS = 100
MOST_MS = 50
COMMAND = "sudo systemctl restart nginx"
DENIED = 2


class NotDeniedError(Exception):
    """The hook did not answer as it does; what it took says nothing."""


def figures() -> list[Row]:
    """Return the row of a hook's time, beside an interpreter that does nothing; they take turns."""
    hook = [str(Path(sys.executable).with_name("host-agent")), "hook", "claude-code"]
    bare = [sys.executable, "-c", "pass"]
    event = json.dumps(
        {
            "hook_event_name": "PreToolUse",
            "tool_name": "Bash",
            "tool_input": {"command": COMMAND},
            "cwd": "/",
        }
    ).encode()
    if _run(hook, event)[0] != DENIED:
        raise NotDeniedError
    taken, empty = [], []
    for _ in range(RUNS):
        taken.append(_run(hook, event)[1])
        empty.append(_run(bare, b"")[1])
    own, least = median(taken) * 1000, median(empty) * 1000
    return [
        at_most(
            f"one hook, median of {RUNS}",
            own,
            MOST_MS,
            measured=f"{own:.0f} ms",
            against=f"python3 -c pass {least:.0f} ms, {own / least:.1f} times",
            unit=" ms",
        )
    ]


def _run(words: Sequence[str], given: bytes) -> tuple[int, float]:
    """Return the exit status and the seconds that a process took."""
    begun = time.perf_counter()
    done = subprocess.run(words, input=given, capture_output=True, check=False)
    return done.returncode, time.perf_counter() - begun
