"""One process of a race: `python -m tests.races.racer URL LEDGER NUMBER SEED`.

A round is a line `FIRST COUNT` on standard input and, when all its requests are raced, a line of
JSON on standard output: every step that the store said this process has made, and how the others
were lost. The ledger stands for the host: a line there is an operation that ran.
"""

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from host_agent.errors import HostAgentError, StoreUnavailableError
from host_agent.requests import model as machine
from host_agent.requests.model import Request, State, Verb
from host_agent.store.store import RequestStore
from tests.support.stored_requests import NOW, a_decision, a_request

ABREAST = (1, 2, 4, 8)
"""How many requests a process may have in hand at once: it changes from round to round."""
STALE = 0.75
"""Share of first tries that are made on the request as it was asked, whatever it is by now."""

Try = Callable[[Request], Request]


class Racer:
    """Decides, cancels, expires and runs as fast as it can."""

    def __init__(self, store: RequestStore, ledger: int, number: int, seed: int) -> None:
        self._store = store
        self._ledger = ledger
        self._owner = f"owner{number}"
        self._random = random.Random(f"{seed}/{number}")
        self._steps: list[tuple[str, str, str]] = []
        self._lost: Counter[str] = Counter()

    async def round(self, first: int, count: int) -> dict[str, object]:
        """Race for `count` requests; return what was won and how the rest was lost."""
        self._steps, self._lost = [], Counter()
        abreast = asyncio.Semaphore(self._random.choice(ABREAST))
        numbers = list(range(first, first + count))
        if self._random.random() < 0.5:
            self._random.shuffle(numbers)

        async def one(number: int) -> None:
            async with abreast:
                await self._race(a_request(number))

        await asyncio.gather(*map(one, numbers))
        return {"steps": self._steps, "lost": self._lost}

    async def _race(self, asked: Request) -> None:
        tries: dict[str, Try] = {
            "approve": lambda seen: self._decided(seen, Verb.APPROVE),
            "deny": lambda seen: self._decided(seen, Verb.DENY),
            "expire": lambda seen: machine.expire(seen, now=seen.expires_at + timedelta(seconds=1)),
            "cancel": lambda seen: machine.cancel(seen, problem=None, now=NOW),
        }
        # Approvals are twice as likely: theirs is the way on which something runs.
        how = self._random.choice(("approve", "approve", "deny", "expire", "cancel"))
        seen = asked if self._random.random() < STALE else await self._latest(asked)
        await self._step(seen, tries[how])
        # Whoever sees it approved goes on: most to run it, as after a restart.
        latest = await self._latest(asked)
        if latest.state is State.APPROVED:
            ends_it = how in {"expire", "cancel"} and self._random.random() < 0.5
            await (self._step(latest, tries[how]) if ends_it else self._run(latest))

    async def _run(self, approved: Request) -> None:
        running = await self._step(approved, lambda seen: machine.start(seen, now=NOW))
        if running is not None:
            os.write(self._ledger, f"{running.id}\n".encode())
            await self._step(running, self._ended)

    def _decided(self, seen: Request, verb: Verb) -> Request:
        spoken = a_decision(self._owner, verb)
        return machine.decide(seen, spoken, roles=["approver"], digest=seen.digest, now=NOW)

    def _ended(self, running: Request) -> Request:
        return machine.finish(
            running, state=State.SUCCEEDED, outcome={"exit_code": 0}, problem=None, now=NOW
        )

    async def _step(self, seen: Request, attempt: Try) -> Request | None:
        """Try one step on what was seen; None where it is lost."""
        try:
            after = attempt(seen)
        except HostAgentError:
            self._lost["refused by the state machine"] += 1
            return None
        while True:
            try:
                won = await self._store.transition(after, expected_version=seen.version)
                break
            except StoreUnavailableError:
                # The lock was held for too long: nothing was stored.
                self._lost["waited for the lock in vain"] += 1
        if not won:
            self._lost["overtaken at the store"] += 1
            return None
        self._steps.append((seen.id, seen.state.value, after.state.value))
        return after

    async def _latest(self, asked: Request) -> Request:
        latest = await self._store.get(asked.id)
        if latest is None:
            message = f"request {asked.id} is gone"
            raise RuntimeError(message)
        return latest


async def main() -> None:
    path, ledger_path, number, seed = sys.argv[1:]
    store = RequestStore(Path(path))
    await store.open()
    ledger = os.open(ledger_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    racer = Racer(store, ledger, int(number), int(seed))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        first, count = map(int, line.split())
        sys.stdout.write(json.dumps(await racer.round(first, count)) + "\n")
        sys.stdout.flush()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())
