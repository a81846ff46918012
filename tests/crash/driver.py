"""One life of the agent after the other: start it, use it, kill it, look at what is left."""

import asyncio
import json
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.crash.callers import BrokenPromiseError, Callers, GoneError
from tests.crash.evidence import Evidence
from tests.crash.ledger import Kind, Ledger
from tests.crash.nursery import MESSAGE_BYTES, Birth
from tests.crash.place import ANSWER_SECONDS, Place, make_place
from tests.crash.points import POINTS, TORN
from tests.crash.report import MAX_VIOLATIONS, RANDOM, Report

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120.0
"""Only an agent that hangs takes so long, also on a machine that has other things to do."""
PATIENCE_SECONDS = 1.0
"""How long an agent serves whose point is not reached; then it is killed where it is.

And at least so long that `patience_steps` of the settings were taken: a busy machine takes few.
"""
LONGEST_LIFE_SECONDS = 0.5
"""Until when after its start an agent is killed that dies at random."""
KILLS_IN_ONE_PLACE = 100
RANDOM_SHARE = 0.25
SIGKILLED = -9
OFTEN_REACHED = frozenset({TORN, "audit.write.whole", "store.commit.before", "store.commit.after"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to do. `points` are those to die at; without any, every kill is at random."""

    kills: int
    seed: int
    directory: Path
    points: Sequence[str] = POINTS
    random_share: float = RANDOM_SHARE
    kills_in_one_place: int = KILLS_IN_ONE_PLACE
    patience_steps: int = 0
    last_wishes: Sequence[Kind] = ()
    """What the last life in a place is asked for, in which nobody dies: it is told of their end."""
    keeps: bool = False
    """Keep every place, not only those with a violation."""


class Nursery:
    """The nursery process, as the driver sees it."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._line.setblocking(False)
        command = [sys.executable, "-m", "tests.crash.nursery", str(theirs.fileno())]
        with theirs:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)

    async def __aenter__(self) -> Self:
        try:
            await self.hear(START_SECONDS)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        self._line.close()  # which ends it, and its agent
        await asyncio.to_thread(self._process.wait, START_SECONDS)

    def order(self, message: dict[str, Any]) -> None:
        self._line.send(json.dumps(message).encode())

    async def hear(self, seconds: float) -> dict[str, Any]:
        """Return the next news.

        Raises:
            TimeoutError: there is none in time.
        """
        loop = asyncio.get_running_loop()
        data = await asyncio.wait_for(self._heard(loop), seconds)
        if not data:
            message = "the nursery has ended"
            raise RuntimeError(message)
        news: dict[str, Any] = json.loads(data)
        return news

    async def _heard(self, loop: asyncio.AbstractEventLoop) -> bytes:
        return await loop.sock_recv(self._line, MESSAGE_BYTES)


class Stage:
    """A place with its ledger and evidence: for some kills, then a last life without one."""

    def __init__(self, place: Place, report: Report) -> None:
        self.place = place
        self.ledger = Ledger()
        self.evidence = Evidence(place, self.ledger)
        self.has_served = False
        self._report = report

    def close(self) -> None:
        """Add up what happened here."""
        report, evidence = self._report, self.evidence
        report.caught_up += evidence.caught_up
        report.recoveries += evidence.recoveries
        report.executions += evidence.executions.total()
        report.records += evidence.records
        for wish in self.ledger.wishes.values():
            report.wishes[wish.kind.value] += 1
            report.states[wish.state or "read"] += 1
            report.approvals += sum(verb == "approve" for _, verb in wish.told_voices)
            report.denials += sum(verb == "deny" for _, verb in wish.told_voices)


def _passings(point: str | None) -> tuple[int, ...]:
    """Return at which passings of `point` an agent may die: where it comes by in every life."""
    if point in OFTEN_REACHED:
        return (1, 5, 10, 20, 40)
    if point is None or point.startswith("recover.") or ".unknown." in point or "rotate" in point:
        return (1,)
    return (1, 1, 1, 2, 4)


class Driver:
    """Runs the harness. Children are the nursery and its agents, ended by their own ids only."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._chance = random.Random(settings.seed)
        self.report = Report(settings.seed)
        self.stage: Stage | None = None
        """The newest one, for who wants to look at it."""
        self._nursery: Nursery
        self._callers: Callers | None = None
        self._lit: dict[str, int] = dict.fromkeys(settings.points, 0)

    async def run(self) -> Report:
        """Kill as often as asked, over as many places as that takes."""
        began = time.monotonic()
        async with Nursery() as self._nursery:
            places = 0
            while self.report.total < self._settings.kills and not self._is_enough:
                places += 1
                await self._run_in(self._settings.directory / f"place-{places:03}")
        self.report.seconds = time.monotonic() - began
        return self.report

    @property
    def _is_enough(self) -> bool:
        return len(self.report.violations) >= MAX_VIOLATIONS

    async def _run_in(self, directory: Path) -> None:
        stage = self.stage = Stage(make_place(directory), self.report)
        before = len(self.report.violations)
        until = min(self._settings.kills, self.report.total + self._settings.kills_in_one_place)
        while self.report.total < until and not self._is_enough:
            await self._live_once(stage)
        if not self._is_enough:
            await self._live_to_the_end(stage)
        stage.close()
        if len(self.report.violations) == before and not self._settings.keeps:
            shutil.rmtree(directory)

    # -- a life that ends in a kill ---------------------------------------------------------------

    async def _live_once(self, stage: Stage) -> None:
        point = self._choose()
        place = stage.place
        birth = Birth(
            config=str(place.config_path),
            log=str(place.log_path),
            began=place.began,
            point=point,
            hits=self._chance.choice(_passings(point)),
            part=self._chance.uniform(0.01, 0.99),
        )
        self._nursery.order(birth.order())
        self.report.starts += 1
        if point is None:
            died_at = await self._die_at_random(stage)
        else:
            died_at = await self._die_at(stage, point)
        self.report.kills[died_at or RANDOM] += 1
        for what in stage.evidence.examine(has_served=stage.has_served):
            self.report.broken(what, point=died_at)

    def _choose(self) -> str | None:
        """Return one of the points that had the fewest kills, or None for a kill at random."""
        if not self._lit or self._chance.random() < self._settings.random_share:
            return None
        fewest = sorted(self._lit, key=lambda point: (self._lit[point], self._chance.random()))
        point = self._chance.choice(fewest[: max(1, len(fewest) // 4)])
        self._lit[point] += 1
        return point

    async def _die_at_random(self, stage: Stage) -> str | None:
        life = self._chance.uniform(0.0, LONGEST_LIFE_SECONDS)
        kill = asyncio.get_running_loop().call_later(life, self._nursery.order, {"do": "kill"})
        try:
            return await self._live(stage, None)
        finally:
            kill.cancel()

    async def _die_at(self, stage: Stage, point: str) -> str | None:
        died_at = await self._live(stage, point)
        if died_at is None:
            self.report.missed[point] += 1
        return died_at

    async def _live(self, stage: Stage, point: str | None) -> str | None:
        """Use the agent until it dies; return the point at which it killed itself, if it did."""
        news = await self._hear_of_birth()
        stage.has_served = news["say"] == "serving"
        if not stage.has_served:
            self.report.kills_in_start += 1
            return await self._until_ended(news, point)
        self._callers = None
        using = asyncio.create_task(self._use(stage, news["url"]))
        try:
            news = await self._hear_of_end(using)
        finally:
            await self._stop_using(using, point)
        return await self._until_ended(news, point)

    async def _hear_of_birth(self) -> dict[str, Any]:
        try:
            return await self._nursery.hear(START_SECONDS)
        except TimeoutError:
            self.report.broken("the agent does not start in time", point=None)
            self._nursery.order({"do": "kill"})
            return await self._nursery.hear(START_SECONDS)

    async def _hear_of_end(self, using: "asyncio.Task[None]") -> dict[str, Any]:
        while True:
            try:
                return await self._nursery.hear(PATIENCE_SECONDS)
            except TimeoutError:
                steps = -1 if self._callers is None else self._callers.steps
                if not using.done() and steps < self._settings.patience_steps:
                    continue
                self._nursery.order({"do": "kill"})
                return await self._nursery.hear(START_SECONDS)

    async def _until_ended(self, news: dict[str, Any], point: str | None) -> str | None:
        died_at = None
        if news["say"] == "reached":
            died_at = news["point"]
            news = await self._nursery.hear(START_SECONDS)
        if news["status"] != SIGKILLED:
            what = f"the agent ended by itself with status {news['status']}; see its log"
            self.report.broken(what, point=point)
        return died_at

    async def _use(self, stage: Stage, url: str) -> None:
        async with Callers(stage.place, stage.ledger, url, self._chance) as callers:
            self._callers = callers
            await callers.check()
            await callers.work()

    async def _stop_using(self, using: "asyncio.Task[None]", point: str | None) -> None:
        _, alive = await asyncio.wait((using,), timeout=ANSWER_SECONDS)
        if alive:
            using.cancel()
        try:
            await using
        except (GoneError, asyncio.CancelledError):
            return
        except BrokenPromiseError as error:
            self.report.broken(str(error), point=point)

    # -- the last life in a place -----------------------------------------------------------------

    async def _live_to_the_end(self, stage: Stage) -> None:
        """Let every wish come to its end, stop the agent as systemd does, and look at it all."""
        place = stage.place
        birth = Birth(config=str(place.config_path), log=str(place.log_path), began=place.began)
        self._nursery.order(birth.order())
        self.report.starts += 1
        news = await self._hear_of_birth()
        if news["say"] == "serving":
            await self._finish(stage, news["url"])
            self._nursery.order({"do": "stop"})
            news = await self._nursery.hear(START_SECONDS)
        if news["status"] != 0:
            what = f"the agent ended with status {news['status']} when it was asked to stop"
            self.report.broken(what, point=None)
        for what in stage.evidence.examine(has_served=True, whole=True):
            self.report.broken(what, point=None)

    async def _finish(self, stage: Stage, url: str) -> None:
        try:
            async with Callers(stage.place, stage.ledger, url, self._chance) as callers:
                await callers.check()
                for kind in self._settings.last_wishes:
                    stage.ledger.wish(kind)
                await callers.finish()
        except (BrokenPromiseError, GoneError) as error:
            self.report.broken(f"at the end: {error or 'the agent is gone'}", point=None)
