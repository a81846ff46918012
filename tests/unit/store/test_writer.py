"""The writer: groups share a commit, units stand alone, and no caller is ever left waiting."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from sqlite3 import Connection

import pytest

from host_agent.errors import QueueFullError, StoreUnavailableError
from host_agent.store import schema
from host_agent.store.database import Database
from host_agent.store.files import StoreFiles
from host_agent.store.writer import Tally, Writer, read_commits


class Store:
    """A writer over a database with the tables, and a count of its commits."""

    def __init__(self, path: Path) -> None:
        self.files = StoreFiles(path)
        self.database = Database(path, is_writer=True)
        self.writer = Writer(self.database, self.files)

    async def open(self) -> None:
        self.files.prepare()
        await self.database.open()
        await self.database.read(schema.prepare)
        self.files.watch(0)
        self.writer.start()

    async def commits(self) -> int:
        return await self.database.read(read_commits)

    async def keys(self) -> list[str]:
        """Return the keys of the answers that are there."""
        return await self.database.read(
            lambda connection: [key for (key,) in connection.execute("SELECT key FROM answers")]
        )

    async def close(self) -> None:
        await self.writer.close()
        await self.database.close()
        self.files.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "state" / "x.db")
    await store.open()
    yield store
    await store.close()


def add_code(connection: Connection, _tally: Tally) -> None:
    """Break the rule that a code has a request."""
    connection.execute("INSERT INTO codes VALUES ('none', 'a', 'signal', 'confirm', 'b', 0)")


def add_answer(key: str) -> "Writing":
    return Writing(key)


class Writing:
    """A unit of work that writes one row."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __call__(self, connection: Connection, _tally: Tally) -> str:
        connection.execute(
            "INSERT INTO answers (caller, key, body_sha256, status, size, expires_at)"
            " VALUES ('c', ?, '', 200, 0, 0)",
            (self.key,),
        )
        return self.key


async def test_what_is_queued_together_shares_a_commit(store: Store) -> None:
    keys = [f"key-{number}" for number in range(50)]
    written = await asyncio.gather(*(store.writer.write(add_answer(key)) for key in keys))
    assert written == keys
    assert await store.commits() <= 2


async def test_work_that_changes_nothing_costs_no_commit(store: Store) -> None:
    assert await store.writer.write(lambda _connection, _tally: "looked") == "looked"
    assert await store.commits() == 0


async def test_refusal_undoes_its_own_unit_only(store: Store) -> None:
    def refuse(connection: Connection, tally: Tally) -> None:
        add_answer("refused")(connection, tally)
        message = "no room"
        raise QueueFullError(message)

    results = await asyncio.gather(
        store.writer.write(add_answer("one")),
        store.writer.write(refuse),
        store.writer.write(add_code),
        store.writer.write(add_answer("two")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [
        str,
        QueueFullError,
        StoreUnavailableError,
        str,
    ]
    found = await store.keys()
    assert sorted(found) == ["one", "two"]


async def test_cancelled_caller_before_the_turn_has_written_nothing(store: Store) -> None:
    first = asyncio.ensure_future(store.writer.write(add_answer("first")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    # The first is under way now; the second waits for the next group.
    second = asyncio.ensure_future(store.writer.write(add_answer("second")))
    await asyncio.sleep(0)
    second.cancel()
    assert await first == "first"
    with pytest.raises(asyncio.CancelledError):
        await second
    third = await store.writer.write(add_answer("third"))
    found = await store.keys()
    assert third == "third"
    assert sorted(found) == ["first", "third"]


async def test_close_writes_what_is_queued(store: Store) -> None:
    task = asyncio.ensure_future(store.writer.write(add_answer("last")))
    await asyncio.sleep(0)
    await store.writer.close()
    assert await task == "last"
    with pytest.raises(StoreUnavailableError):
        await store.writer.write(add_answer("later"))


async def test_writer_that_is_cancelled_answers_everybody(store: Store) -> None:
    tasks = [asyncio.ensure_future(store.writer.write(add_answer(str(n)))) for n in range(300)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    writing = store.writer._task
    assert writing is not None
    writing.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, StoreUnavailableError) for result in results)
    with pytest.raises(StoreUnavailableError):
        await store.writer.write(add_answer("later"))
    store.writer._task = None


async def test_stored_is_stored_even_if_the_count_cannot_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(commits: int) -> None:
        raise OSError

    monkeypatch.setattr(store.files, "committed", fail)
    assert await store.writer.write(add_answer("one")) == "one"
    assert await store.commits() == 1


async def test_closed_database_refuses(store: Store) -> None:
    await store.database.close()
    with pytest.raises(StoreUnavailableError):
        await store.writer.write(add_answer("one"))
    await store.database.close()
