"""`host-agent mcp`: from the start of the process to its first answer, and to the list of tools."""

import json
import resource
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import IO

from tests.bench.ground import CALLER, Setting
from tests.bench.table import Row, at_most
from tests.support.mcp_client import command

STARTS = 9
MOST_SECONDS = 0.6
ABOUT = {"name": "bench", "version": "1"}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": ABOUT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """One start: seconds to the first answer and to the tools; seconds of CPU until the end."""

    to_answer: float
    to_tools: float
    cpu: float


def figures(setting: Setting) -> list[Row]:
    """Return the row of a start, with an agent that is there."""
    setting.forget()
    with setting.served() as served:
        words = command(setting.site, served.url, CALLER)
        _started(words)  # what is read once by a machine
        taken = [_started(words) for _ in range(STARTS)]
    seconds = median(start.to_answer for start in taken)
    tools = median(start.to_tools for start in taken)
    cpu = median(start.cpu for start in taken)
    return [
        at_most(
            "start of host-agent mcp, to the first answer",
            seconds,
            MOST_SECONDS,
            measured=f"{seconds:.2f} s",
            against=f"tools listed after {tools:.2f} s; {cpu:.2f} s of CPU in all",
            unit=" s",
        )
    ]


def _started(words: tuple[str, ...]) -> Started:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        _ask(process.stdin, process.stdout, 1, "initialize", HELLO)
        to_answer = time.perf_counter() - begun
        _send(process.stdin, {"method": "notifications/initialized"})
        _ask(process.stdin, process.stdout, 2, "tools/list", {})
        to_tools = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Started(to_answer=to_answer, to_tools=to_tools, cpu=cpu)


def _ask(
    stdin: IO[str], stdout: IO[str], number: int, method: str, params: Mapping[str, object]
) -> None:
    """Ask, and take the answer."""
    _send(stdin, {"id": number, "method": method, "params": params})
    answer = json.loads(stdout.readline())
    assert answer["id"] == number, answer
    assert "result" in answer, answer


def _send(stdin: IO[str], message: Mapping[str, object]) -> None:
    stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    stdin.flush()
