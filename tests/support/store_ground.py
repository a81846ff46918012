"""A store on a file of its own, and other processes on the same file."""

import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from host_agent.requests.model import Request
from host_agent.store.admission import Inserted
from host_agent.store.store import RequestStore

PROCESS = Path(__file__).with_name("store_process.py")


def file(directory: Path, ending: str = "") -> Path:
    return directory / "state" / f"host-agent.db{ending}"


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[RequestStore]:
    store = RequestStore(file(directory))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def put(store: RequestStore, request: Request) -> Inserted:
    return await store.insert(request, max_pending=10_000, max_pending_per_caller=10_000)


def process(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(PROCESS), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def limit_pages(store: RequestStore, pages: int) -> None:
    await store._write_to.read(
        lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    )
