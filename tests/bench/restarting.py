"""A start, also with a long history: from the start of the process to the first answer."""

import asyncio
import itertools
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from statistics import median

from host_agent.requests.model import Request, RequestId, State
from host_agent.store import admission, codec, transitions
from host_agent.store.store import RequestStore
from host_agent.store.writer import Tally
from tests.bench.exchange import Exchange
from tests.bench.ground import Setting
from tests.bench.idling import resident_mib
from tests.bench.table import Row, at_most
from tests.support.stored_requests import a_request

FINISHED = 100_000
PENDING = 500
STARTS = 5
MOST_SECONDS = 0.6
AT_ONCE = 5_000


def figures(setting: Setting) -> list[Row]:
    """Return the rows of a start with nothing stored, and of one with a full store."""
    setting.forget()
    rows = [_row("start with nothing stored", setting)]
    asyncio.run(_fill(setting.site.store_path))
    name = f"start with {FINISHED:,} finished and {PENDING} pending requests"
    return [*rows, _row(name, setting)]


def _row(name: str, setting: Setting) -> Row:
    taken = [_start(setting) for _ in range(STARTS)]
    seconds = median(seconds for seconds, _ in taken)
    memory = median(mib for _, mib in taken)
    return at_most(
        f"{name}, to the first answer",
        seconds,
        MOST_SECONDS,
        measured=f"{seconds:.2f} s",
        against=f"{memory:.0f} MiB resident then",
        unit=" s",
    )


def _start(setting: Setting) -> tuple[float, float]:
    served = setting.served()
    begun = time.perf_counter()
    with served:
        with Exchange(served.url, setting.context) as connection:
            connection.send(connection.get("/health"), 200)
        return time.perf_counter() - begun, resident_mib(served)


async def _fill(path: Path) -> None:
    """Make the store as it is after many requests: ended ones with output, and pending ones."""
    store = RequestStore(path)
    await store.open()
    for batch in _batches():
        await store._writer.write(partial(_add, batch))
    await store.close()


def _batches() -> Iterator[list[Request]]:
    history = _history()
    while batch := list(itertools.islice(history, AT_ONCE)):
        yield batch


def _history() -> Iterator[Request]:
    now = datetime.now(UTC)
    base = a_request()
    for number in range(FINISHED):
        made = now - timedelta(seconds=FINISHED - number)
        yield replace(
            base,
            id=RequestId(f"{number:032x}"),
            state=State.SUCCEEDED,
            caller=f"caller{number % 10}",
            created_at=made,
            expires_at=made + timedelta(seconds=1800),
            finished_at=made + timedelta(seconds=5),
            outcome={
                "exit_code": 0,
                "stdout": os.urandom(400).hex(),
                "stderr": "",
                "verified": True,
                "data": None,
            },
        )
    for number in range(FINISHED, FINISHED + PENDING):
        yield a_request(
            number,
            id=RequestId(f"{number:032x}"),
            caller=f"caller{number % 10}",
            created_at=now,
            expires_at=now + timedelta(days=1),
        )


def _add(batch: list[Request], connection: Connection, _tally: Tally) -> None:
    for request in batch:
        admission.insert(connection, request)
        output = codec.output_of(request)
        if output is not None:
            transitions.store_output(connection, request.id, output)
