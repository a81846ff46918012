"""The durable queue on SQLite: SQLAlchemy Core on aiosqlite, a journal that is synced, one writer.

Every write is a compare-and-set or an insert under a unique index, inside `BEGIN IMMEDIATE`: one
winner, whatever races, in this process or another one on the same file. Reads have a connection of
their own and never wait for a write.
"""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert as insert_or
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from host_agent.approvals import admission, answers, queries, rows, schema
from host_agent.approvals.database import Database, damage, unavailable
from host_agent.approvals.files import StoreFiles
from host_agent.approvals.port import (
    CodeHashes,
    IdempotencyKey,
    Inserted,
    Page,
    Requests,
    StoredAnswer,
)
from host_agent.approvals.request import LIVE, TRANSITIONS, Digest, Request, State
from host_agent.approvals.schema import codes, outputs, requests
from host_agent.approvals.writer import Tally, Writer
from host_agent.canonical import JsonValue
from host_agent.errors import (
    ConfigurationError,
    StoreUnavailableError,
)

CHECK_SECONDS = 0.1
"""How long a start waits for the integrity check; a larger file is checked beside the service."""
PURGE_AT_ONCE = 500
TRIM_EVERY = 100
"""After so many remembered answers the caller's bounds are looked at."""

_log = logging.getLogger("host_agent.approvals")

_c = requests.c
_OLD = (
    select(_c.sequence)
    .where(_c.finished_at.is_not(None), _c.finished_at < bindparam("before"))
    .limit(PURGE_AT_ONCE)
)
_PURGE = delete(requests).where(_c.sequence.in_(_OLD))
_ADD_OUTPUT = insert_or(outputs).prefix_with("OR REPLACE")
_ADD_CODE = insert_or(codes).prefix_with("OR REPLACE")


class SqlRequestStore:
    """The `RequestStore` on one SQLite file, `sqlite:///PATH`.

    Raises:
        ConfigurationError: `url` is not that of a SQLite file.
    """

    def __init__(self, url: str) -> None:
        path = _path(url)
        self._files = StoreFiles(path)
        self._write_to = Database(path, is_writer=True)
        self._read_from = Database(path, is_writer=False)
        self._writer = Writer(self._write_to, self._files)
        self._check: asyncio.Task[None] | None = None
        self._is_closing = threading.Event()
        self._is_damaged = False
        self._remembered = 0

    # -- life -------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Create, check and migrate the file, and begin to serve.

        Raises:
            StoreUnavailableError: it is damaged, locked, read-only, of a newer program, or an older
                copy of what was here before.
        """
        try:
            self._files.prepare()
        except OSError as error:
            raise unavailable(error) from error
        try:
            await self._write_to.open()
            await self._check_integrity()
            await self._write_to.run(self._prepare)
            await self._read_from.open()
        except BaseException:
            await self.close()
            raise
        self._writer.start()

    def _prepare(self, connection: Connection) -> None:
        with connection.begin():
            schema.prepare(connection)
            count = connection.execute(select(schema.commits.c.count)).scalar_one()
        self._files.watch(count)

    async def _check_integrity(self) -> None:
        """Run SQLite's quick check; go on beside it where the file is too large to wait for."""
        deadline = time.monotonic() + CHECK_SECONDS
        try:
            found = await self._look_for_damage(lambda: time.monotonic() > deadline)
        except TimeoutError:
            self._check = asyncio.create_task(self._check_whole(), name="request store check")
            return
        except sqlite3.Error as error:
            raise unavailable(error) from error
        if found is not None:
            raise _damaged(found)

    async def _check_whole(self) -> None:
        try:
            found = await self._look_for_damage(self._is_closing.is_set)
        except TimeoutError:
            return
        except sqlite3.Error as error:
            found = str(error)
        if found is not None:
            self._is_damaged = True
            _damaged(found)

    async def _look_for_damage(self, should_stop: Callable[[], bool]) -> str | None:
        return await asyncio.to_thread(damage, self._files.path, should_stop=should_stop)

    async def close(self) -> None:
        """Write what is queued and let go of the file; safe to call twice."""
        self._is_closing.set()
        if self._check is not None:
            await self._check
        await self._writer.close()
        await self._read_from.close()
        await self._write_to.close()
        self._files.close()

    async def ping(self) -> None:
        """Take the write lock and let it go: proves that a write would be taken, and costs no sync.

        Raises:
            StoreUnavailableError: it would not.
        """
        if self._is_damaged:
            raise StoreUnavailableError(_DAMAGED)
        await self._writer.write(lambda _connection, _tally: None)

    # -- write ------------------------------------------------------------------------------------

    async def insert(
        self,
        request: Request,
        *,
        max_pending: int,
        max_pending_per_caller: int,
        idempotency: IdempotencyKey | None = None,
    ) -> Inserted:
        """Store `request`, or attach to the live one of the same caller and digest.

        Raises:
            QueueFullError: too many are pending; nothing was stored or cancelled.
            IdempotencyConflictError: the key came with another body; nothing was stored.
        """
        if request.state not in LIVE:
            message = f"a request is stored first while it is live, not {request.state}"
            raise RuntimeError(message)
        self._require_whole()
        caps = admission.Caps(pending=max_pending, pending_of_caller=max_pending_per_caller)
        return await self._writer.write(
            lambda connection, tally: admission.admit(connection, tally, request, caps, idempotency)
        )

    async def transition(self, request: Request, *, expected_version: int) -> bool:
        """Store a request's new state if it is still at `expected_version`; False if it is not.

        A step that the state machine does not have is a defect, not a race: `RuntimeError`.
        """
        if request.version != expected_version + 1:
            message = f"version {request.version} does not follow {expected_version}"
            raise RuntimeError(message)
        self._require_whole()
        output = rows.output_of(request)
        return await self._writer.write(
            lambda connection, tally: _transition(
                connection, tally, request, expected_version, output
            )
        )

    async def purge(self, older_than: datetime) -> int:
        """Delete requests that ended before `older_than`, a bounded number a transaction."""
        before, purged = {"before": rows.microseconds(older_than)}, 0
        while True:
            deleted = await self._writer.write(
                lambda connection, _tally: connection.execute(_PURGE, before).rowcount
            )
            purged += deleted
            if deleted < PURGE_AT_ONCE:
                return purged

    async def remember(
        self,
        caller: str,
        key: str,
        *,
        body_sha256: str,
        status: int,
        body: Mapping[str, JsonValue],
        request_id: str | None,
        now: datetime,
    ) -> None:
        """Keep an answer under the caller's key for 24 hours, or until newer ones need the room.

        Raises:
            IdempotencyConflictError: the key stands for another body.
        """
        named = IdempotencyKey(
            key=key, body_sha256=body_sha256, request_id=request_id or "", now=now
        )
        packed = answers.pack(body)
        self._remembered += 1
        is_trim_due = self._remembered % TRIM_EVERY == 0

        def work(connection: Connection, _tally: Tally) -> None:
            answers.remember(
                connection, caller, named, status=status, body=packed, request_id=request_id
            )
            if is_trim_due:
                answers.trim(connection, caller, now)

        await self._writer.write(work)

    async def add_code(self, request_id: str, approver_owner: str, code_hash: str) -> bool:
        """Keep the hash of an approver's code, in place of an older one; False if not pending."""
        values = {
            "request_id": request_id,
            "owner": approver_owner.casefold(),
            "code_hash": code_hash,
        }

        def work(connection: Connection, _tally: Tally) -> bool:
            stored = admission.stored_state(connection, request_id)
            if stored is None or stored[0] is not State.PENDING:
                return False
            connection.execute(_ADD_CODE, values)
            return True

        return await self._writer.write(work)

    # -- read -------------------------------------------------------------------------------------

    async def get(self, request_id: str) -> Request | None:
        """Return the request of exactly this id, with its output."""
        return await self._read_from.read(lambda connection: queries.get(connection, request_id))

    async def find(self, prefix: str, *, caller: str | None = None) -> Request:
        """Return the request of this id, or of this unique prefix of one.

        With `caller`, only that caller's requests are looked at.

        Raises:
            RequestNotFoundError: there is none, or more than one.
        """
        return await self._read_from.read(
            lambda connection: queries.find(connection, prefix, caller)
        )

    async def live_by_digest(self, caller: str, digest: Digest) -> Request | None:
        """Return the caller's pending, approved or running request of this digest."""
        keys = {"caller": caller, "digest": digest}
        found = await self._requests(queries.LIVE_BY_DIGEST, keys)
        return found[0] if found else None

    async def list(
        self, *, state: State | None, caller: str | None, limit: int, cursor: str | None
    ) -> Page:
        """Return up to `limit` requests, newest first, without standard output, error and data.

        Raises:
            InvalidParameterError: the cursor is not one of ours.
        """
        query = queries.listing(state, caller, limit, cursor)
        return await self._read_from.read(lambda connection: queries.page(connection, query, limit))

    async def due(self, now: datetime) -> Requests:
        """Return the first 500 pending or approved requests that are expired at `now`."""
        return await self._requests(queries.DUE, {"now": rows.microseconds(now)})

    async def live(self) -> Requests:
        """Return everything pending, approved or running, oldest first."""
        return await self._requests(queries.ALL_LIVE, {})

    async def ended_since(self, since: datetime) -> Requests:
        """Return what has ended since then, newest first, at most 5,000, without output."""
        return await self._requests(queries.ENDED_SINCE, {"since": rows.microseconds(since)})

    async def next_expiry(self) -> datetime | None:
        """Return when the next pending or approved request expires."""
        stored = await self._read_from.read(
            lambda connection: connection.execute(queries.NEXT_EXPIRY).scalar_one()
        )
        return None if stored is None else rows.instant(stored)

    async def pending_stats(self) -> tuple[int, datetime | None]:
        """Return how many are pending, and when the oldest of them was made."""
        count, oldest = await self._read_from.read(
            lambda connection: connection.execute(queries.PENDING_STATS).one()
        )
        return count, None if oldest is None else rows.instant(oldest)

    async def refusals_of(self, caller: str, since: datetime) -> int:
        """Return how many of the caller's requests were denied or expired since then."""
        keys = {"caller": caller, "since": rows.microseconds(since)}
        return await self._read_from.read(
            lambda connection: int(connection.execute(queries.REFUSALS, keys).scalar_one())
        )

    async def newest_time(self) -> datetime | None:
        """Return the newest instant that the store knows: a floor for the clock."""
        return await self._read_from.read(queries.newest_time)

    async def recall(self, caller: str, key: str, now: datetime) -> StoredAnswer | None:
        """Return what the caller's key stands for, unless it is forgotten."""
        return await self._read_from.read(
            lambda connection: answers.recall(connection, caller, key, now)
        )

    async def codes(self, request_id: str) -> CodeHashes:
        """Return the hashes of the codes that are out for a request."""
        return await self._read_from.read(
            lambda connection: queries.codes_of(connection, request_id)
        )

    async def _requests(self, query: Select[Any], keys: rows.Values) -> Requests:
        return await self._read_from.read(
            lambda connection: [rows.read_row(row) for row in connection.execute(query, keys)]
        )

    def _require_whole(self) -> None:
        if self._is_damaged:
            raise StoreUnavailableError(_DAMAGED)


def _transition(
    connection: Connection,
    tally: Tally,
    request: Request,
    expected_version: int,
    output: bytes | None,
) -> bool:
    stored = admission.stored_state(connection, request.id)
    if stored is None or stored[1] != expected_version:
        return False
    before = stored[0]
    is_voice = before is request.state is State.PENDING
    if not is_voice and request.state not in TRANSITIONS.get(before, frozenset()):
        message = f"request {request.id} cannot go from {before} to {request.state}"
        raise RuntimeError(message)
    moved = admission.move(connection, tally, request, expected_version)
    if moved and output is not None:
        connection.execute(_ADD_OUTPUT, {"request_id": request.id, "body": output})
    return moved


def _path(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if (
        parsed is None
        or parsed.drivername not in {"sqlite", "sqlite+aiosqlite"}
        or parsed.host
        or parsed.query
        or not parsed.database
        or parsed.database.startswith(":")
    ):
        fault = "store.url: give `sqlite:///PATH` with the path of a file"
        raise ConfigurationError([fault])
    return Path(parsed.database)


def _damaged(found: str) -> StoreUnavailableError:
    _log.critical("the request store is damaged: %s", found)
    return StoreUnavailableError(_DAMAGED)


_DAMAGED = "The request store is damaged; its file must be restored. Nothing is stored or run."

__all__ = ["IdempotencyKey", "Inserted", "SqlRequestStore", "StoredAnswer"]
