"""A connection and its thread: work in order, given up or broken, and nothing left at the end."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from sqlite3 import Connection

import pytest

from host_agent.errors import StoreUnavailableError
from host_agent.store.database import Database, damage


async def opened(tmp_path: Path) -> Database:
    database = Database(tmp_path / "store.sqlite", is_writer=True)
    await database.open()
    return database


async def test_work_is_done_in_its_order_in_one_thread_that_ends_with_it(tmp_path: Path) -> None:
    database = await opened(tmp_path)
    seen: list[tuple[int, threading.Thread]] = []

    def work(number: int) -> Callable[[Connection], int]:
        def noted(_connection: Connection) -> int:
            seen.append((number, threading.current_thread()))
            return number

        return noted

    found = await asyncio.gather(*(database.run(work(number)) for number in range(50)))
    assert found == [number for number, _ in seen] == list(range(50))
    (thread,) = {thread for _, thread in seen}
    assert thread is not threading.current_thread()
    assert thread.daemon
    await database.close()
    assert not thread.is_alive()


async def test_work_that_is_given_up_is_done_and_holds_up_nobody(tmp_path: Path) -> None:
    database = await opened(tmp_path)
    begun, release, done = threading.Event(), threading.Event(), threading.Event()

    def slow(_connection: Connection) -> None:
        begun.set()
        release.wait()
        done.set()

    task = asyncio.create_task(database.run(slow))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not done.is_set()
    release.set()
    assert await database.run(lambda _connection: done.is_set())
    await database.close()


async def test_an_opening_that_is_given_up_is_closed_all_the_same(tmp_path: Path) -> None:
    database = Database(tmp_path / "store.sqlite", is_writer=True)
    opening = asyncio.create_task(database.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await database.close()
    names = [thread.name for thread in threading.enumerate()]
    assert "host-agent-store" not in names
    with pytest.raises(StoreUnavailableError, match="closed"):
        await database.run(lambda _connection: None)


async def test_a_defect_in_work_is_raised_where_it_was_asked_for(tmp_path: Path) -> None:
    database = await opened(tmp_path)

    def broken(_connection: Connection) -> None:
        message = "a defect"
        raise KeyError(message)

    with pytest.raises(KeyError, match="a defect"):
        await database.run(broken)
    assert await database.run(lambda _connection: 1) == 1
    await database.close()
    await database.close()


async def test_a_place_without_a_journal_is_refused(tmp_path: Path) -> None:
    """SQLite goes on without one where the file system cannot hold its index."""
    database = Database(Path(":memory:"), is_writer=True)
    with pytest.raises(StoreUnavailableError, match="write-ahead journal"):
        await database.open()
    await (await opened(tmp_path)).close()


async def test_a_look_for_damage_ends_where_it_is_told_to(tmp_path: Path) -> None:
    database = await opened(tmp_path)
    await database.close()
    path = tmp_path / "store.sqlite"
    with contextlib.closing(sqlite3.connect(path)) as raw:
        raw.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, text TEXT)")
        raw.executemany("INSERT INTO rows (text) VALUES (?)", [("x" * 100,)] * 20_000)
        raw.commit()
    assert damage(path, should_stop=lambda: False) is None
    with pytest.raises(TimeoutError):
        damage(path, should_stop=lambda: True)


async def test_a_look_for_damage_at_what_cannot_be_read_raises_what_it_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("host_agent.store.database.BUSY_TIMEOUT_SECONDS", 0)
    path = tmp_path / "store.sqlite"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("CREATE TABLE rows (number INTEGER)")
        raw.execute("PRAGMA locking_mode = EXCLUSIVE")
        raw.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            damage(path, should_stop=lambda: False)
        raw.execute("ROLLBACK")
