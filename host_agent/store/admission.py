"""How a request comes into the store: it attaches, supersedes, is refused for room, or stays.

These functions run inside the writer's transaction, so that what they look at stays true until it
is committed, also when two agents share a database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, func, insert, select

from host_agent.errors import QueueFullError, TargetChangedError
from host_agent.requests import model as machine
from host_agent.requests.model import Problem, Request, State
from host_agent.requests.notification import Notification
from host_agent.store import moving, outbox_rows, rows
from host_agent.store.answers import reserve
from host_agent.store.port import IdempotencyKey, Inserted
from host_agent.store.schema import requests
from host_agent.store.writer import Tally

_c = requests.c
_INSERT = insert(requests)
_IS_LIVE = _c.finished_at.is_(None)
_IS_PENDING = and_(_IS_LIVE, _c.state == State.PENDING.value)
# Not ordered here: for the order SQLite would go through the caller's whole history.
_LIVE_OF_WISH = select(requests).where(
    _c.caller == bindparam("caller"), _c.wish == bindparam("wish"), _IS_LIVE
)
_BY_ID = select(requests).where(_c.id == bindparam("id"))
_COUNT_PENDING = select(func.count()).where(_c.state == State.PENDING.value)
_COUNT_PENDING_OF = select(func.count()).where(_c.caller == bindparam("caller"), _IS_PENDING)
_NEXT_EXPIRY = select(func.min(_c.expires_at)).where(_IS_PENDING)
_RETRY_AT_MOST_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """How many requests may be pending, over all callers and of one."""

    pending: int
    pending_of_caller: int


def admit(
    connection: Connection,
    tally: Tally,
    request: Request,
    caps: Caps,
    idempotency: IdempotencyKey | None,
    notifications: Sequence[Notification],
) -> Inserted:
    """Store `request` or attach it, as `RequestStore.insert` says.

    Raises:
        QueueFullError, IdempotencyConflictError: refused; the caller rolls back.
    """
    known = None if idempotency is None else _of_key(connection, request.caller, idempotency)
    if known is not None:
        return Inserted(request=known, created=False)
    alike, expired = _live_of_wish(connection, tally, request)
    for other in alike:
        if other.digest == request.digest:
            if idempotency is not None:
                reserve(connection, request.caller, idempotency, request_id=other.id)
            return Inserted(request=other, created=False, superseded=expired)
    superseded = tuple(
        _supersede(connection, tally, other, request)
        for other in alike
        if other.state is State.PENDING
    )
    if request.state is State.PENDING:
        _require_room(connection, tally, request, caps)
    connection.execute(_INSERT, rows.new_row(request))
    outbox_rows.add_to(connection, notifications, request.state)
    if idempotency is not None:
        reserve(connection, request.caller, idempotency, request_id=request.id)
    return Inserted(request=request, created=True, superseded=expired + superseded)


def _of_key(connection: Connection, caller: str, key: IdempotencyKey) -> Request | None:
    known = reserve(connection, caller, key, request_id=None)
    if known is None:
        return None
    row = connection.execute(_BY_ID, {"id": known}).one_or_none()
    if row is None:
        return None
    request = rows.read_row(row)
    return None if request.was_refused else request


def _live_of_wish(
    connection: Connection, tally: Tally, request: Request
) -> tuple[list[Request], tuple[Request, ...]]:
    """Return what is live of the same wish, and what has expired unnoticed and is ended here."""
    wish, now = rows.wish(request.operation, request.params), request.created_at
    found = sorted(
        connection.execute(_LIVE_OF_WISH, {"caller": request.caller, "wish": wish}),
        key=lambda row: row.sequence,
    )
    alike, expired = [], []
    for other in map(rows.read_row, found):
        if other.state is State.RUNNING or not other.is_expired(now):
            alike.append(other)
            continue
        ended = machine.expire(other, now=now)
        _end(connection, tally, other, ended)
        expired.append(ended)
    return alike, tuple(expired)


def _end(connection: Connection, tally: Tally, before: Request, ended: Request) -> None:
    moving.move(connection, tally, ended, before=before.state, expected_version=before.version)


def _supersede(connection: Connection, tally: Tally, older: Request, newer: Request) -> Request:
    detail = (
        f"Superseded by request {newer.id}: the same was asked for again after its target or the "
        "policy for it had changed; nothing was run."
    )
    problem = Problem(code=TargetChangedError.code, detail=detail)
    cancelled = machine.cancel(older, problem=problem, now=newer.created_at)
    _end(connection, tally, older, cancelled)
    return cancelled


def _require_room(connection: Connection, tally: Tally, request: Request, caps: Caps) -> None:
    caller = request.caller
    if tally.pending is None:
        tally.pending = connection.execute(_COUNT_PENDING).scalar_one()
    if caller not in tally.of_caller:
        counted = connection.execute(_COUNT_PENDING_OF, {"caller": caller})
        tally.of_caller[caller] = counted.scalar_one()
    if tally.of_caller[caller] >= caps.pending_of_caller:
        message = "Too many of your requests are pending; wait for a decision or cancel some."
        raise _queue_full(connection, message, request.created_at, caller)
    if tally.pending >= caps.pending:
        message = "Too many requests are pending on this host; try again later."
        raise _queue_full(connection, message, request.created_at, None)
    tally.pending += 1
    tally.of_caller[caller] += 1


def _queue_full(
    connection: Connection, message: str, now: datetime, caller: str | None
) -> QueueFullError:
    """Return the refusal, with the time until a pending request expires at the latest."""
    query = _NEXT_EXPIRY if caller is None else _NEXT_EXPIRY.where(_c.caller == caller)
    expiry = connection.execute(query).scalar_one()
    seconds = _RETRY_AT_MOST_SECONDS
    if expiry is not None:
        seconds = (rows.instant(expiry) - now).total_seconds()
    return QueueFullError(
        message, retry_after_seconds=min(max(seconds, 1.0), _RETRY_AT_MOST_SECONDS)
    )
