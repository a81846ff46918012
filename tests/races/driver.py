"""Asks, lets the racers loose, and holds what they say against the store and the ledger."""

import asyncio
import json
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host_agent.requests.model import State
from host_agent.store.store import RequestStore
from tests.races.judging import Claim, Report
from tests.support.stored_requests import a_request

RACERS = 4
ROUND = 50
"""How many requests are asked for, and raced for, at once."""
ROUND_SECONDS = 60.0
TREE = Path(__file__).parents[2]

Claims = Mapping[str, list[Claim]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many races, from which seed, and where the store lies."""

    races: int
    seed: int
    directory: Path


class Driver:
    """The process that asks and judges."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.directory / "state" / "host-agent.db"
        self._ledger = settings.directory / "ledger"
        self._read = 0
        self.report = Report(settings.seed)

    async def run(self) -> Report:
        """Run all races and return what came of them."""
        begun = time.monotonic()
        store = RequestStore(self._path)
        await store.open()
        self._ledger.touch(mode=0o600)
        racers = [await self._start(number) for number in range(RACERS)]
        try:
            for racer in racers:
                await _line(racer)
            for first in range(0, self._settings.races, ROUND):
                count = min(ROUND, self._settings.races - first)
                await self._round(store, racers, first, count)
        finally:
            await _stop(racers)
            await store.close()
        self.report.seconds = time.monotonic() - begun
        return self.report

    async def _start(self, number: int) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.races.racer",
            str(self._path),
            str(self._ledger),
            str(number),
            str(self._settings.seed),
            cwd=TREE,
            stdin=PIPE,
            stdout=PIPE,
            limit=1 << 20,
        )

    async def _round(
        self, store: RequestStore, racers: list[Process], first: int, count: int
    ) -> None:
        asked = [a_request(number) for number in range(first, first + count)]
        await asyncio.gather(
            *(store.insert(one, max_pending=count, max_pending_per_caller=count) for one in asked)
        )
        for racer in racers:
            _tell(racer, f"{first} {count}\n")
        said = [json.loads(await _line(racer)) for racer in racers]
        claims, runs = self._claims(said), self._runs()
        for one in asked:
            stored = await store.get(one.id)
            self.report.raced(one.id, stored, claims[one.id], runs.pop(one.id, 0))
        if runs:
            self.report.violations.append(f"ran without being raced for: {sorted(runs)}")

    def _claims(self, said: list[dict[str, Any]]) -> Claims:
        claims: defaultdict[str, list[Claim]] = defaultdict(list)
        for number, words in enumerate(said):
            self.report.lost.update(words["lost"])
            for name, before, after in words["steps"]:
                claim = Claim(racer=number, before=State(before), after=State(after))
                claims[name].append(claim)
        return claims

    def _runs(self) -> Counter[str]:
        """Return what the ledger says has run since it was last looked at."""
        lines = self._ledger.read_text().splitlines()
        new, self._read = lines[self._read :], len(lines)
        return Counter(new)


def _tell(racer: Process, line: str) -> None:
    if racer.stdin is not None:
        racer.stdin.write(line.encode())


async def _line(racer: Process) -> str:
    """Return the racer's next line.

    Raises:
        RuntimeError: it has died.
    """
    stream = racer.stdout
    line = b"" if stream is None else await asyncio.wait_for(stream.readline(), ROUND_SECONDS)
    if not line.endswith(b"\n"):
        message = f"a racer died with status {await racer.wait()}"
        raise RuntimeError(message)
    return line.decode()


async def _stop(racers: list[Process]) -> None:
    """End the racers that were started here: each ends with its input."""
    for racer in racers:
        if racer.stdin is not None:
            racer.stdin.close()
    for racer in racers:
        try:
            await asyncio.wait_for(racer.wait(), ROUND_SECONDS)
        except TimeoutError:
            racer.kill()
            await racer.wait()
