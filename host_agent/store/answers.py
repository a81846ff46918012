"""Idempotency keys: what a caller's key stands for, for a day, within bounds.

A key is reserved in the transaction that stores its request, so that a crash in between cannot let
the same key make a second one. Answers are kept compressed, and a caller's oldest ones make room
for new ones.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, or_, select, update

from host_agent.canonical import JsonValue
from host_agent.errors import IdempotencyConflictError
from host_agent.store import rows
from host_agent.store.port import KEY_LIFETIME, IdempotencyKey, StoredAnswer
from host_agent.store.schema import answers

MAX_KEYS_PER_CALLER = 10_000
MAX_BYTES_PER_CALLER = 64 * 1024 * 1024
"""Of compressed answers. Where a caller has more, the oldest are forgotten before their time."""
HELD = 202
"""The status of a key whose request is known and whose answer is not."""

_a = answers.c
_INSERT = insert(answers)
_BY_KEY = select(answers).where(_a.caller == bindparam("caller"), _a.key == bindparam("key"))
_DELETE = delete(answers).where(_a.sequence == bindparam("row"))
_ANSWER = update(answers).where(_a.sequence == bindparam("row"))
_DELETE_EXPIRED = delete(answers).where(_a.expires_at <= bindparam("now"))
_ranked = (
    select(
        _a.sequence,
        func.row_number().over(order_by=_a.sequence.desc()).label("number"),
        func.sum(_a.size).over(order_by=_a.sequence.desc()).label("bytes"),
    )
    .where(_a.caller == bindparam("caller"))
    .subquery()
)
_NEWEST_SURPLUS = select(func.max(_ranked.c.sequence)).where(
    or_(_ranked.c.number > bindparam("keys"), _ranked.c.bytes > bindparam("bytes_kept"))
)
_DELETE_SURPLUS = delete(answers).where(
    _a.caller == bindparam("of"), _a.sequence <= bindparam("newest")
)


def reserve(
    connection: Connection, caller: str, key: IdempotencyKey, *, request_id: str | None
) -> str | None:
    """Bind a key to a request; with `request_id` None, only look. Returns what it was bound to.

    Raises:
        IdempotencyConflictError: the key came with another body.
    """
    row = _current(connection, caller, key.key, key.now)
    if row is not None:
        _require_same_body(row, key.body_sha256)
    if request_id is None:
        return None if row is None else row.request_id
    _replace(
        connection,
        row,
        {
            "caller": caller,
            "key": key.key,
            "body_sha256": key.body_sha256,
            "status": HELD,
            "body": None,
            "size": 0,
            "request_id": request_id,
            "expires_at": rows.microseconds(key.now + KEY_LIFETIME),
        },
    )
    return request_id


def recall(connection: Connection, caller: str, key: str, now: datetime) -> StoredAnswer | None:
    """Return what the caller's key stands for, unless it is forgotten."""
    row = connection.execute(_BY_KEY, {"caller": caller, "key": key}).one_or_none()
    if row is None or row.expires_at <= rows.microseconds(now):
        return None
    return StoredAnswer(
        body_sha256=row.body_sha256,
        status=row.status,
        body=None if row.body is None else rows.unpack(row.body),
        request_id=row.request_id,
    )


def remember(
    connection: Connection,
    caller: str,
    key: IdempotencyKey,
    *,
    status: int,
    body: bytes,
    request_id: str | None,
) -> None:
    """Keep an answer (`body` as `pack` made it) under its key.

    Raises:
        IdempotencyConflictError: the key stands for another body.
    """
    row = _current(connection, caller, key.key, key.now)
    if row is not None:
        _require_same_body(row, key.body_sha256)
    _replace(
        connection,
        row,
        {
            "caller": caller,
            "key": key.key,
            "body_sha256": key.body_sha256,
            "status": status,
            "body": body,
            "size": len(body),
            "request_id": request_id,
            "expires_at": rows.microseconds(key.now + KEY_LIFETIME),
        },
    )


def trim(connection: Connection, caller: str, now: datetime) -> None:
    """Forget what is older than a day, and what is beyond the caller's bounds."""
    connection.execute(_DELETE_EXPIRED, {"now": rows.microseconds(now)})
    newest = connection.execute(
        _NEWEST_SURPLUS,
        {"caller": caller, "keys": MAX_KEYS_PER_CALLER, "bytes_kept": MAX_BYTES_PER_CALLER},
    ).scalar_one()
    if newest is not None:
        connection.execute(_DELETE_SURPLUS, {"of": caller, "newest": newest})


def pack(body: Mapping[str, JsonValue]) -> bytes:
    """Return an answer as it is stored."""
    return rows.pack(body)


def _current(connection: Connection, caller: str, key: str, now: datetime) -> Row[Any] | None:
    row = connection.execute(_BY_KEY, {"caller": caller, "key": key}).one_or_none()
    if row is None or row.expires_at > rows.microseconds(now):
        return row
    connection.execute(_DELETE, {"row": row.sequence})
    return None


def _require_same_body(row: Row[Any], body_sha256: str) -> None:
    if row.body_sha256 != body_sha256:
        message = "This Idempotency-Key was used for another body; take a new key."
        raise IdempotencyConflictError(message)


def _replace(connection: Connection, row: Row[Any] | None, values: rows.Values) -> None:
    if row is None:
        connection.execute(_INSERT, values)
    else:
        connection.execute(_ANSWER, {**values, "row": row.sequence})
