"""A request that waits for a person: on disk before it is answered, each one another wish."""

import itertools
from collections.abc import Iterator, Sequence
from statistics import median

from tests.bench import command
from tests.bench.exchange import Exchange
from tests.bench.ground import Setting, branch, callers, in_memory
from tests.bench.load import Act, Load, closed_loop
from tests.bench.running import IN_FLIGHT
from tests.bench.table import Row, at_least, at_most

ROUNDS = 5
SLICE_SECONDS = 1.5
GOAL = 1000
MOST_P99_MS = 10
GOAL_SHARE = 0.6
HOLDERS = 4
"""Clients of the figure from memory: enough to reach its goal; more of them only wait longer."""


def figures(settings: Sequence[Setting]) -> list[Row]:
    """Return the rows: preconditions from memory, then read by the real wrapper."""
    wishes = itertools.count()
    loads = [_from_memory(settings[-1], wishes) for _ in range(ROUNDS)]
    rate = median(load.rate for load in loads)
    p99 = median(load.quantile(0.99) for load in loads) * 1000
    return [
        at_least(
            f"{_held(HOLDERS)}, preconditions from memory", rate, GOAL, measured=f"{rate:,.0f}/s"
        ),
        at_most(
            f"{_held(HOLDERS)}, preconditions from memory: p99",
            p99,
            MOST_P99_MS,
            measured=f"{p99:.1f} ms",
            unit=" ms",
        ),
        *(_end_to_end(setting, wishes) for setting in settings),
    ]


def _from_memory(setting: Setting, wishes: Iterator[int]) -> Load:
    """Begin with an empty queue each time: a real one holds hundreds, not all that were made."""
    setting.forget()
    with (
        in_memory(setting.site) as served,
        callers(served, setting.context, HOLDERS) as connections,
    ):
        acts = [_asks(one, setting, wishes) for one in connections]
        closed_loop(acts, 0.3)
        return closed_loop(acts, SLICE_SECONDS)


def _end_to_end(setting: Setting, wishes: Iterator[int]) -> Row:
    setting.forget()
    with setting.served() as served, callers(served, setting.context, IN_FLIGHT) as connections:
        acts = [_asks(one, setting, wishes) for one in connections]
        bare = [_inspects(setting, wishes)] * IN_FLIGHT
        closed_loop(acts, 0.3)
        pairs = [
            (closed_loop(bare, SLICE_SECONDS).rate, closed_loop(acts, SLICE_SECONDS).rate)
            for _ in range(ROUNDS)
        ]
    share = median(agent / alone for alone, agent in pairs)
    return at_least(
        f"{_held(IN_FLIGHT)}, runner {setting.runner}: share of bare inspection",
        share,
        GOAL_SHARE,
        measured=f"{share:.2f} ({median(agent for _, agent in pairs):,.0f}/s)",
        against=f"bare {median(alone for alone, _ in pairs):,.0f}/s",
    )


def _held(clients: int) -> str:
    return f"held for approval, {clients} clients"


def _asks(connection: Exchange, setting: Setting, wishes: Iterator[int]) -> Act:
    def act() -> None:
        connection.send(connection.ask("git.switch", setting.switch(next(wishes))), 202)

    return act


def _inspects(setting: Setting, wishes: Iterator[int]) -> Act:
    def act() -> None:
        command.run(setting.argv("inspect-switch", branch(next(wishes))))

    return act
