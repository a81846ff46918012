"""One SQLite connection in a thread of its own.

A unit of work is one function over the connection, and crosses to the thread once, however many
statements it has. The connection is touched in that thread only.
"""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from sqlite3 import Connection
from typing import TypeVar

from host_agent.errors import StoreUnavailableError
from host_agent.store.codec import RowError
from host_agent.store.schema import SchemaError

BUSY_TIMEOUT_SECONDS = 2.0
"""How long a write waits for another process that writes."""

_T = TypeVar("_T")
_log = logging.getLogger("host_agent.store")
PROGRESS_STEPS = 20_000
_FAILURES = (sqlite3.Error, OSError, SchemaError, RowError)


class _Thread:
    """A thread that does what it is given, one after the other.

    A process that ends without closing does not wait for it; the journal is safe.
    """

    def __init__(self) -> None:
        self._todo: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="host-agent-store", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[[], _T]) -> _T:
        """Return what `function` returns there. It is done even if the caller is cancelled."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[_T] = loop.create_future()
        self._todo.put(partial(_do, loop, ended, function))
        return await ended

    async def end(self) -> None:
        """Return once everything that was asked for is done, and the thread has ended."""
        self._todo.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (act := self._todo.get()) is not None:
            act()
            del act  # what it holds must not live until the next one


def _do(
    loop: asyncio.AbstractEventLoop, ended: "asyncio.Future[_T]", function: Callable[[], _T]
) -> None:
    try:
        settle = partial(ended.set_result, function())
    except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
        settle = partial(ended.set_exception, error)
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_unless_given_up, ended, settle)


def _unless_given_up(ended: "asyncio.Future[_T]", settle: Callable[[], None]) -> None:
    if not ended.done():
        settle()


class Database:
    """A connection for writing or for reading; rows of it are `sqlite3.Row`."""

    def __init__(self, path: Path, *, is_writer: bool) -> None:
        self._path = path
        self._is_writer = is_writer
        self._thread: _Thread | None = None
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailableError: the file cannot be opened as it must be.
        """
        self._thread = thread = _Thread()
        try:
            await thread.call(self._connect)
        except _FAILURES as error:
            self._thread = None
            await thread.end()
            raise unavailable(error) from error

    async def run(self, work: Callable[[Connection], _T]) -> _T:
        """Return what `work` makes of the connection, in its thread. `work` begins and commits.

        Raises:
            StoreUnavailableError: the database, the file system or a stored row failed.
        """
        thread, connection = self._thread, self._connection
        if thread is None or connection is None:
            message = "The request store is closed."
            raise StoreUnavailableError(message)
        try:
            return await thread.call(lambda: work(connection))
        except _FAILURES as error:
            raise unavailable(error) from error

    async def read(self, work: Callable[[Connection], _T]) -> _T:
        """Return what `work` makes of one state of the database, in the connection's thread.

        Raises:
            StoreUnavailableError: the database, the file system or a stored row failed.
        """

        def whole(connection: Connection) -> _T:
            with transaction(connection, "BEGIN"):
                return work(connection)

        return await self.run(whole)

    async def close(self) -> None:
        """Disconnect; safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            await thread.call(self._disconnect)
        except _FAILURES as error:
            _log.warning("the request store was not closed well: %s", error)
        finally:
            await thread.end()

    # -- in the thread ----------------------------------------------------------------------------

    def _connect(self) -> None:
        raw = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, cached_statements=256
        )
        try:
            for pragma in self._pragmas():
                raw.execute(f"PRAGMA {pragma}").fetchone()
            if self._is_writer:
                _require_wal(raw)
        except BaseException:
            raw.close()
            raise
        raw.row_factory = sqlite3.Row
        self._connection = raw

    def _pragmas(self) -> tuple[str, ...]:
        common = ("foreign_keys = ON", "trusted_schema = OFF", "cache_size = -8192")
        if not self._is_writer:
            return (*common, "query_only = ON")
        return (*common, "journal_mode = WAL", "synchronous = FULL", "journal_size_limit = 8388608")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


@contextlib.contextmanager
def transaction(connection: Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    """Commit what the block does, or nothing of it.

    The write lock is taken at once: a later upgrade of a read lock could fail half-way.
    """
    connection.execute(begin)
    try:
        yield
        connection.commit()
    except BaseException:
        connection.rollback()  # nothing to do where SQLite has done it by itself
        raise


def _require_wal(raw: Connection) -> None:
    mode = raw.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        message = f"the file system gives no write-ahead journal (journal_mode is {mode})"
        raise OSError(message)


def damage(path: Path, *, should_stop: Callable[[], bool]) -> str | None:
    """Return what SQLite's quick check finds wrong with a database, or None for nothing.

    Runs on a connection of its own, and blocks: not for the event loop's thread.

    Raises:
        TimeoutError: `should_stop` said so; nothing was found until then.
        sqlite3.Error: the file cannot be read as a database at all.
    """
    raw = sqlite3.connect(path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        raw.set_progress_handler(should_stop, PROGRESS_STEPS)
        found = str(raw.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise TimeoutError from None
        raise
    finally:
        raw.close()
    return None if found == "ok" else found


_SENTENCES = {
    sqlite3.SQLITE_BUSY: "The request store is locked by another process; try again.",
    sqlite3.SQLITE_LOCKED: "The request store is locked by another process; try again.",
    sqlite3.SQLITE_READONLY: "The request store is read-only; nothing was stored.",
    sqlite3.SQLITE_FULL: "The request store has no room left; nothing was stored.",
    sqlite3.SQLITE_CORRUPT: "The request store is damaged; its file must be restored.",
    sqlite3.SQLITE_NOTADB: "The request store is damaged; its file must be restored.",
}
_RETRY_AFTER_SECONDS = 1.0


def unavailable(cause: BaseException) -> StoreUnavailableError:
    """Return the error that leaves the store for one of the database, the host or a stored row."""
    _log.error("the request store failed: %s: %s", type(cause).__name__, cause)
    code = getattr(cause, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    sentence = _SENTENCES.get(primary or 0)
    if sentence is None and isinstance(cause, OSError | SchemaError):
        sentence = f"The request store cannot be used: {cause}."
    locked = primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
    return StoreUnavailableError(
        sentence or "The request store failed; the agent's log says why.",
        retry_after_seconds=_RETRY_AFTER_SECONDS if locked else None,
    )
