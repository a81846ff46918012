"""Ten thousand asks, of one caller and of many: held to their room, nobody is asked twice."""

import asyncio
import gc
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host_agent.errors import HostAgentError
from host_agent.requests.model import State
from tests.support.people import ALICE_ENTRY, CHANNELS, ERIN_ENTRY
from tests.support.pipeline import REPOSITORY, Workbench, opened
from tests.support.site import IDENTITIES

FLOOD = 10_000
ROOM = 20
"""`[limits] max_pending_per_caller`, unless it is configured."""
MEBIBYTE = 1024 * 1024
BRANCHES = f"""
[[git.repositories]]
path = "{REPOSITORY}"
remotes = ["origin"]
branches = ["b[0-9]+"]
"""
CALLERS = [f"caller{number}" for number in range(10)]
MANY = IDENTITIES + "".join(f'\n[[identities]]\ncn = "{cn}"\nowner = "{cn}"\n' for cn in CALLERS)
RULES = """
[[rules]]
name = "a person says"
operations = ["git.switch"]
verdict = "ask"
"""
LIMITS = "asks_per_second = 1000000\nask_burst = 1000000\nheld_off_after = 1000000\n"


@contextmanager
def growth() -> Iterator[list[int]]:
    """Yield a list whose only number is, afterwards, by how many bytes the objects grew."""
    grown = [0]
    gc.collect()
    tracemalloc.start()
    try:
        yield grown
        gc.collect()
        grown[0], _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()


async def flooded(bench: Workbench, by: str, *, first: int, last: int) -> "Counter[str]":
    """Ask for as many different things, many at once, and count what was answered."""
    answers: Counter[str] = Counter()

    async def ask(number: int) -> None:
        params = {"repository": REPOSITORY, "branch": f"b{number}"}
        try:
            answers[str((await bench.ask("git.switch", params, by=by)).status)] += 1
        except HostAgentError as error:
            answers[error.code] += 1

    for begin in range(first, last, 100):
        await asyncio.gather(*(ask(number) for number in range(begin, min(begin + 100, last))))
    return answers


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    people = CHANNELS + ALICE_ENTRY + ERIN_ENTRY
    async with opened(
        tmp_path, identities=MANY, rules=RULES, git=BRANCHES, limits=LIMITS, people=people
    ) as bench:
        yield bench


@pytest.mark.promise("c45")
@pytest.mark.slow
async def test_a_flood_of_one_identity_is_held_to_its_quota(bench: Workbench) -> None:
    begun = await flooded(bench, "caller0", first=0, last=1_000)
    assert begun == {"202": ROOM, "approval:queue-full": 1_000 - ROOM}
    rest = await flooded(bench, "caller0", first=1_000, last=FLOOD - 1_000)
    with growth() as grown:
        rest += await flooded(bench, "caller0", first=FLOOD - 1_000, last=FLOOD)
        bench.host.ran.clear()  # the stand-in's own notes
    assert rest == {"approval:queue-full": FLOOD - 1_000}
    assert grown[0] < MEBIBYTE
    # Nobody else is kept out, and nobody is asked more than once about each.
    assert await flooded(bench, "caller1", first=0, last=1) == {"202": 1}
    for request in await bench.store.live():
        rows = await bench.store.notifications_of(request.id)
        told = Counter((row.owner, row.channel) for row in rows)
        assert set(told.values()) == {1}
        assert {owner for owner, _ in told} == {"alice", "erin"}
    assert bench.host.changes == []


@pytest.mark.promise("c45")
@pytest.mark.slow
async def test_ten_thousand_pending_are_room_for_no_more(tmp_path: Path) -> None:
    share = FLOOD // len(CALLERS)
    room = f"max_pending = {FLOOD}\nmax_pending_per_caller = {share + 1}\n"
    async with opened(
        tmp_path, identities=MANY, rules=RULES, git=BRANCHES, limits=LIMITS, approvals=room
    ) as bench:
        *first, last = CALLERS
        for cn in first:
            assert await flooded(bench, cn, first=0, last=share) == {"202": share}
        with growth() as grown:
            assert await flooded(bench, last, first=0, last=share) == {"202": share}
        assert grown[0] < MEBIBYTE  # they are in the store
        full = {"approval:queue-full": 1}
        assert await flooded(bench, CALLERS[0], first=share, last=share + 1) == full
        assert Counter(request.state for request in await bench.store.live()) == {
            State.PENDING: FLOOD
        }
        (*_, newest) = await bench.store.live()
        await bench.decide(newest)
        await bench.settle()
        assert await bench.state(newest) is State.SUCCEEDED
        assert await flooded(bench, CALLERS[0], first=share, last=share + 1) == {"202": 1}
