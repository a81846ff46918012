"""What an idle agent keeps in memory, and what a thousand silent connections cost others."""

import contextlib
import re
import time
from pathlib import Path
from statistics import median

from tests.bench.exchange import Exchange
from tests.bench.ground import Setting, callers
from tests.bench.load import Load, closed_loop
from tests.bench.table import Row, at_most
from tests.support.site import Served

CONNECTIONS = 1000
ROUNDS = 3
SLICE_SECONDS = 4.0
SETTLE_SECONDS = 2.0
SOME_TRAFFIC = 20
MOST_MIB = 66
MOST_ADDED_MIB = 60
MOST_TIMES = 2


def resident_mib(served: Served, kind: str = "VmRSS") -> float:
    """Return the resident set of the agent's process, or one `kind` of it (proc(5)), in MiB."""
    if served.process is None:
        return 0.0
    status = Path(f"/proc/{served.process.pid}/status").read_text()
    found = re.search(rf"{kind}:\s+(\d+) kB", status)
    return 0.0 if found is None else int(found[1]) / 1024


def figures(setting: Setting) -> list[Row]:
    """Return the rows of memory, and of a good client's p99 among silent connections."""
    setting.forget()
    with setting.served() as served, callers(served, setting.context, 1) as (client,):
        request = client.ask("git.status", setting.site.status())
        for _ in range(SOME_TRAFFIC):
            client.send(request, 200)
        time.sleep(SETTLE_SECONDS)
        idle, own = resident_mib(served), resident_mib(served, "RssAnon")
        added, times = [], []
        for _ in range(ROUNDS):
            alone = _loop(client, request)
            before = resident_mib(served)
            with contextlib.ExitStack() as silent:
                for _ in range(CONNECTIONS):
                    silent.enter_context(Exchange(served.url, setting.context))
                time.sleep(SETTLE_SECONDS)
                added.append(resident_mib(served) - before)
                among = _loop(client, request)
            times.append(among.quantile(0.99) / alone.quantile(0.99))
            time.sleep(SETTLE_SECONDS)
    silent_ones = f"{CONNECTIONS:,} idle TLS connections"
    return [
        at_most(
            "idle, resident memory",
            idle,
            MOST_MIB,
            measured=f"{idle:.0f} MiB",
            against=f"its own {own:.0f} MiB, mapped libraries {idle - own:.0f} MiB",
            unit=" MiB",
        ),
        at_most(
            f"{silent_ones}, added memory",
            max(added),
            MOST_ADDED_MIB,
            measured=f"{max(added):.0f} MiB",
            unit=" MiB",
        ),
        at_most(
            f"{silent_ones}, p99 of one good client",
            median(times),
            MOST_TIMES,
            measured=f"{median(times):.2f} times",
            against=f"without them: {alone.quantile(0.99) * 1000:.1f} ms",
            unit=" times",
        ),
    ]


def _loop(client: Exchange, request: bytes) -> Load:
    return closed_loop([lambda: client.send(request, 200)], SLICE_SECONDS)
