"""Idempotency keys: what a caller's key stands for, for a day, within bounds.

A key is reserved in the transaction that stores its request, so that a crash in between cannot let
the same key make a second one. Answers are kept compressed, and a caller's oldest ones make room
for new ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from sqlite3 import Connection, Row

from host_agent.canonical import JsonValue
from host_agent.errors import idempotency_conflict
from host_agent.store.codec import microseconds, unpack

KEY_LIFETIME = timedelta(hours=24)
"""How long an idempotency key is remembered."""
MAX_KEYS_PER_CALLER = 10_000
MAX_BYTES_PER_CALLER = 64 * 1024 * 1024
"""Of compressed answers. Where a caller has more, the oldest are forgotten before their time."""
HELD = 202
"""The status of a key whose request is known and whose answer is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A caller's key for one ask: the hash of its body, and the request it would make.

    `now` is when it came in; the key is forgotten 24 hours later.
    """

    key: str
    body_sha256: str
    request_id: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnswer:
    """What a key stands for. `body` is None while only the request that it made is known."""

    body_sha256: str
    status: int
    body: Mapping[str, JsonValue] | None
    request_id: str | None


_BY_KEY = "SELECT * FROM answers WHERE caller = :caller AND key = :key"


def recall(connection: Connection, caller: str, key: str, now: datetime) -> StoredAnswer | None:
    """Return what the caller's key stands for, unless it is forgotten."""
    row = connection.execute(_BY_KEY, {"caller": caller, "key": key}).fetchone()
    if row is None or row["expires_at"] <= microseconds(now):
        return None
    return StoredAnswer(
        body_sha256=row["body_sha256"],
        status=row["status"],
        body=None if row["body"] is None else unpack(row["body"]),
        request_id=row["request_id"],
    )


def bound_to(connection: Connection, caller: str, key: IdempotencyKey) -> str | None:
    """Return the id of the request that a key is bound to.

    Raises:
        IdempotencyConflictError: the key came with another body.
    """
    row = _current(connection, caller, key)
    return None if row is None else row["request_id"]


def reserve(connection: Connection, caller: str, key: IdempotencyKey, request_id: str) -> None:
    """Bind a key to a request whose answer is not known yet.

    Raises:
        IdempotencyConflictError: the key came with another body.
    """
    _current(connection, caller, key)
    _store(connection, caller, key, status=HELD, body=None, request_id=request_id)


def remember(
    connection: Connection,
    caller: str,
    key: IdempotencyKey,
    *,
    status: int,
    body: bytes,
    request_id: str | None,
) -> None:
    """Keep an answer (`body` as `codec.pack` made it) under its key.

    Raises:
        IdempotencyConflictError: the key stands for another body.
    """
    _current(connection, caller, key)
    _store(connection, caller, key, status=status, body=body, request_id=request_id)


_DELETE_EXPIRED = "DELETE FROM answers WHERE expires_at <= :now"
_NEWEST_SURPLUS = """
SELECT max(sequence) FROM (
    SELECT sequence, row_number() OVER newest AS number, sum(size) OVER newest AS bytes
    FROM answers WHERE caller = :caller
    WINDOW newest AS (ORDER BY sequence DESC)
) WHERE number > :keys OR bytes > :bytes
"""
_DELETE_SURPLUS = "DELETE FROM answers WHERE caller = :caller AND sequence <= :newest"


def trim(connection: Connection, caller: str, now: datetime) -> None:
    """Forget what is older than a day, and what is beyond the caller's bounds."""
    connection.execute(_DELETE_EXPIRED, {"now": microseconds(now)})
    bounds = {"caller": caller, "keys": MAX_KEYS_PER_CALLER, "bytes": MAX_BYTES_PER_CALLER}
    (newest,) = connection.execute(_NEWEST_SURPLUS, bounds).fetchone()
    if newest is not None:
        connection.execute(_DELETE_SURPLUS, {"caller": caller, "newest": newest})


_DELETE = "DELETE FROM answers WHERE sequence = :sequence"


def _current(connection: Connection, caller: str, key: IdempotencyKey) -> Row | None:
    """Return what the key stands for; one that is forgotten is deleted."""
    row: Row | None = connection.execute(_BY_KEY, {"caller": caller, "key": key.key}).fetchone()
    if row is None:
        return None
    if row["expires_at"] <= microseconds(key.now):
        connection.execute(_DELETE, {"sequence": row["sequence"]})
        return None
    if row["body_sha256"] != key.body_sha256:
        raise idempotency_conflict()
    return row


_STORE = """
INSERT INTO answers (caller, key, body_sha256, status, body, size, request_id, expires_at)
VALUES (:caller, :key, :body_sha256, :status, :body, :size, :request_id, :expires_at)
ON CONFLICT (caller, key) DO UPDATE SET
    status = excluded.status, body = excluded.body, size = excluded.size,
    request_id = excluded.request_id, expires_at = excluded.expires_at
"""


def _store(
    connection: Connection,
    caller: str,
    key: IdempotencyKey,
    *,
    status: int,
    body: bytes | None,
    request_id: str | None,
) -> None:
    values = {
        "caller": caller,
        "key": key.key,
        "body_sha256": key.body_sha256,
        "status": status,
        "body": body,
        "size": 0 if body is None else len(body),
        "request_id": request_id,
        "expires_at": microseconds(key.now + KEY_LIFETIME),
    }
    connection.execute(_STORE, values)
