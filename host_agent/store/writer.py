"""The one task that writes to the store: what is queued meanwhile shares a transaction.

A commit costs an fsync, whatever is in it. Everything that was asked for while the last one was
under way goes into the next; each unit of work stands in a savepoint of its own, so that a refused
or bad one leaves its neighbours alone. A call returns when its commit is on disk.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from sqlite3 import Connection
from typing import Any, TypeAlias, TypeVar

from host_agent.errors import StoreUnavailableError
from host_agent.store.codec import RowError
from host_agent.store.database import Database, transaction, unavailable
from host_agent.store.files import StoreFiles

MAX_GROUP = 128
"""How many units of work share a commit at most."""

_T = TypeVar("_T")
_log = logging.getLogger("host_agent.store")
_COUNT_COMMIT = "UPDATE commits SET count = count + 1"
_READ_COMMITS = "SELECT count FROM commits"


@dataclass(slots=True)
class Tally:
    """Counts of pending requests, kept for one group of writes so that each is counted once."""

    pending: int | None = None
    of_caller: dict[str, int] = field(default_factory=dict)

    def forget(self) -> None:
        """Count again: something else than an insert has happened."""
        self.pending = None
        self.of_caller.clear()


Work: TypeAlias = Callable[[Connection, Tally], _T]
"""A unit of work. It raises `HostAgentError` to refuse; then nothing of it is stored."""


@dataclass(frozen=True, slots=True)
class _Unit:
    work: Work[Any]
    done: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Result:
    value: Any = None
    error: Exception | None = None


class Writer:
    """A queue in front of the writing connection."""

    def __init__(self, database: Database, files: StoreFiles) -> None:
        self._database = database
        self._files = files
        self._queue: asyncio.Queue[_Unit | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write what is queued."""
        self._task = asyncio.create_task(self._run(), name="request store writer")

    async def close(self) -> None:
        """Write what is queued, then end; later work is refused."""
        task, self._task = self._task, None
        if task is not None:
            self._queue.put_nowait(None)
            await task

    async def write(self, work: Work[_T]) -> _T:
        """Return what `work` returned, once it is on disk.

        Work whose caller is cancelled before its turn is not done; afterwards it stays done.

        Raises:
            HostAgentError: what `work` refused with, or `StoreUnavailableError`.
        """
        if self._task is None or self._task.done():
            message = "The request store is closed."
            raise StoreUnavailableError(message)
        done: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Unit(work, done))
        return await done

    async def _run(self) -> None:
        group: list[_Unit] = []
        try:
            while True:
                is_last = await self._gather(group)
                if group:
                    await self._commit(group)
                    group.clear()
                if is_last:
                    return
        finally:
            # Only a writer that is cancelled leaves anything here.
            while not self._queue.empty():
                unit = self._queue.get_nowait()
                if unit is not None:
                    group.append(unit)
            error = StoreUnavailableError("The request store is closed.")
            _settle(group, [_Result(error=error)] * len(group))

    async def _gather(self, group: list[_Unit]) -> bool:
        """Wait for work and take all there is; return whether the end was asked for."""
        unit = await self._queue.get()
        while unit is not None:
            if not unit.done.cancelled():
                group.append(unit)
            if len(group) >= MAX_GROUP or self._queue.empty():
                return False
            unit = self._queue.get_nowait()
        return True

    async def _commit(self, group: list[_Unit]) -> None:
        works = [unit.work for unit in group]
        try:
            results = await self._database.run(
                lambda connection: commit_group(connection, works, self._files)
            )
        except StoreUnavailableError as error:
            results = [_Result(error=_again(error)) for _ in group]
        _settle(group, results)


def commit_group(
    connection: Connection, works: list[Work[Any]], files: StoreFiles
) -> list[_Result]:
    """Do `works` in one transaction; return what each came to. Runs in the connection's thread."""
    files.check()
    tally, count = Tally(), None
    with transaction(connection):
        before = connection.total_changes
        results = [_do(connection, work, tally) for work in works]
        if connection.total_changes != before:
            connection.execute(_COUNT_COMMIT)
            count = read_commits(connection)
    if count is not None:
        try:
            files.committed(count)
        except OSError as error:
            # It is stored: nobody may be told otherwise. The count may lag.
            _log.warning("the count of commits could not be written: %s", error)
    return results


def _do(connection: Connection, work: Work[Any], tally: Tally) -> _Result:
    connection.execute("SAVEPOINT unit")
    try:
        result = _Result(value=work(connection, tally))
    except (sqlite3.IntegrityError, sqlite3.DataError, RowError) as error:
        result = _Result(error=unavailable(error))
    except sqlite3.Error:
        # Not this unit's fault: the disk, the lock or the file. The whole group is undone, and the
        # savepoint may be gone with its transaction.
        raise
    except Exception as error:  # noqa: BLE001 - a defect in one unit must not fail its neighbours
        result = _Result(error=error)
    if result.error is not None:
        tally.forget()
        connection.execute("ROLLBACK TO unit")
    connection.execute("RELEASE unit")
    return result


def read_commits(connection: Connection) -> int:
    """Return how many commits have changed the database."""
    return int(connection.execute(_READ_COMMITS).fetchone()[0])


def _settle(group: list[_Unit], results: list[_Result]) -> None:
    for unit, result in zip(group, results, strict=True):
        if unit.done.done():
            continue
        if result.error is None:
            unit.done.set_result(result.value)
        else:
            unit.done.set_exception(result.error)


def _again(error: StoreUnavailableError) -> StoreUnavailableError:
    """Return the same error as a value of its own: several tasks raise it."""
    copy = StoreUnavailableError(error.detail, retry_after_seconds=error.retry_after_seconds)
    copy.__cause__ = error
    return copy
