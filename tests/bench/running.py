"""An allowed read: throughput with eight in flight and latency of one, against bare and peers."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median

from tests.bench import command
from tests.bench.ground import Setting, callers
from tests.bench.load import Act, alternate, closed_loop
from tests.bench.peers import Peer
from tests.bench.table import Beside, Row, at_least, at_most

IN_FLIGHT = 8
ROUNDS = 7
SLICE_SECONDS = 1.2
SINGLE_RUNS = 15
GOALS: Mapping[str, float] = {"sudo": 0.85, "direct": 0.6}
MOST_ADDED_MS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to run the same wrapper: one act for each of those in flight."""

    name: str
    acts: Sequence[Act]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a way did in each round: acts a second, and how many seconds one alone took."""

    rates: list[float] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)

    @property
    def rate(self) -> str:
        """Return the median rate as it is shown."""
        return f"{median(self.rates):,.0f}/s"

    @property
    def alone_ms(self) -> str:
        """Return the median duration as it is shown."""
        return f"{median(self.alone) * 1000:.1f} ms"

    def share_of(self, other: "Measured") -> float:
        """Return the median of the rounds' ratios."""
        return median(one / bare for one, bare in zip(self.rates, other.rates, strict=True))

    def added_ms(self, other: "Measured") -> float:
        """Return how much longer one alone takes: the median of the rounds, in milliseconds."""
        return median(
            (one - bare) * 1000 for one, bare in zip(self.alone, other.alone, strict=True)
        )


def figures(settings: Sequence[Setting], peers: Sequence[Peer]) -> tuple[list[Row], list[Beside]]:
    """Return the rows of the agent, and the rows beside them of what else runs a command."""
    with contextlib.ExitStack() as exits:
        groups = [_ways(setting, exits) for setting in settings]
        for peer in peers:
            acts = exits.enter_context(peer.acts(IN_FLIGHT))
            groups.append([Way(name=peer.name, acts=acts)])
        measured = measure(groups)
    rows = [row for setting in settings for row in _rows(setting.runner, measured)]
    return rows, [_beside(name, taken) for name, taken in measured.items()]


def _ways(setting: Setting, exits: contextlib.ExitStack) -> list[Way]:
    argv = setting.argv("status")
    served = exits.enter_context(setting.served())
    connections = exits.enter_context(callers(served, setting.context, IN_FLIGHT))
    request = connections[0].ask("git.status", setting.site.status())
    return [
        Way(name=_bare(setting.runner), acts=[partial(command.run, argv)] * IN_FLIGHT),
        Way(
            name=_agent(setting.runner),
            acts=[partial(one.send, request, 200) for one in connections],
        ),
    ]


def measure(groups: Sequence[Sequence[Way]]) -> dict[str, Measured]:
    """Take turns: in each round, the ways of a group follow each other at once."""
    measured = {way.name: Measured() for group in groups for way in group}
    for group in groups:
        for way in group:
            closed_loop(way.acts, 0.3)
    for _ in range(ROUNDS):
        for group in groups:
            for way in group:
                measured[way.name].rates.append(closed_loop(way.acts, SLICE_SECONDS).rate)
            alone = alternate([way.acts[0] for way in group], SINGLE_RUNS)
            for way, seconds in zip(group, alone, strict=True):
                measured[way.name].alone.append(seconds)
    return measured


def _rows(runner: str, measured: Mapping[str, Measured]) -> list[Row]:
    agent, bare = measured[_agent(runner)], measured[_bare(runner)]
    share, added = agent.share_of(bare), agent.added_ms(bare)
    return [
        at_least(
            f"git.status, {IN_FLIGHT} clients, runner {runner}: share of bare",
            share,
            GOALS[runner],
            measured=f"{share:.2f} ({agent.rate})",
            against=f"bare {bare.rate}",
        ),
        at_most(
            f"git.status, one client, runner {runner}: added latency",
            added,
            MOST_ADDED_MS,
            measured=f"{added:.1f} ms ({agent.alone_ms})",
            against=f"bare {bare.alone_ms}",
            unit=" ms",
        ),
    ]


def _beside(name: str, taken: Measured) -> Beside:
    return Beside(name=name, rate=taken.rate, alone=taken.alone_ms)


def _bare(runner: str) -> str:
    return f"bare command line of runner {runner}"


def _agent(runner: str) -> str:
    return f"host-agent, runner {runner}"
