"""A refused ask: no process, no request; the agent on one core, the load on the other."""

import os
from functools import partial
from pathlib import Path
from statistics import median

from tests.bench.ground import Setting, callers
from tests.bench.load import closed_loop
from tests.bench.running import IN_FLIGHT
from tests.bench.table import Row, at_least
from tests.support.site import Served

ROUNDS = 5
SLICE_SECONDS = 1.5
GOAL = 3500


def figures(setting: Setting) -> list[Row]:
    """Return the row of refusals a second on one core."""
    with setting.served() as served, callers(served, setting.context, IN_FLIGHT) as connections:
        request = connections[0].ask("git.log", setting.site.status())
        everywhere = os.sched_getaffinity(0)
        agent_core, *others = sorted(everywhere)
        _pin(served, {agent_core})
        os.sched_setaffinity(0, others or everywhere)
        try:
            acts = [partial(one.send, request, 403) for one in connections]
            closed_loop(acts, 0.3)
            rate = median(closed_loop(acts, SLICE_SECONDS).rate for _ in range(ROUNDS))
        finally:
            os.sched_setaffinity(0, everywhere)
    name = f"refused by policy, {IN_FLIGHT} clients, the agent on one core"
    return [at_least(name, rate, GOAL, measured=f"{rate:,.0f}/s")]


def _pin(served: Served, cores: set[int]) -> None:
    """Hold every thread of the agent to `cores`."""
    if served.process is not None:
        for thread in Path(f"/proc/{served.process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cores)
