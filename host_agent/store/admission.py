"""How a request comes into the store: it attaches, supersedes, is refused for room, or stays.

These functions run inside the writer's transaction, so that what they look at stays true until it
is committed, also when two agents share a database.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from sqlite3 import Connection
from typing import Final

from host_agent.errors import QueueFullError, TargetChangedError
from host_agent.requests import model as machine
from host_agent.requests.model import Problem, Request, State
from host_agent.requests.notification import Notification
from host_agent.store import answers, codec, notifications, transitions
from host_agent.store.answers import IdempotencyKey
from host_agent.store.writer import Tally

_RETRY_AT_MOST_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inserted:
    """What became of an insert: the request as stored, new or attached to, and whom it cancelled.

    `superseded` are the older requests of the same operation and parameters that ended by it, as
    they are now: pending ones `cancelled` for another digest, and those found `expired`.
    """

    request: Request
    created: bool
    superseded: tuple[Request, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """How many requests may be pending, over all callers and of one."""

    pending: int
    pending_of_caller: int


_INSERT = """
INSERT INTO requests (
    id, state, caller, fingerprint, serial, owner, unix_user, operation, params, request_key,
    resource, digest, rule, reason, terms, precondition, preview, created_at, expires_at, decisions,
    outcome, problem, finished_at, version, issued
) VALUES (
    :id, :state, :caller, :fingerprint, :serial, :owner, :unix_user, :operation, :params,
    :request_key, :resource, :digest, :rule, :reason, :terms, :precondition, :preview, :created_at,
    :expires_at, :decisions, :outcome, :problem, :finished_at, :version, :issued
)
"""


def insert(connection: Connection, request: Request) -> None:
    """Store a request as it is, whatever else is there."""
    connection.execute(_INSERT, codec.request_row(request))


def admit(
    connection: Connection,
    tally: Tally,
    request: Request,
    caps: Caps,
    idempotency: IdempotencyKey | None,
    prompts: Sequence[Notification],
) -> Inserted:
    """Store `request` or attach it, as `RequestStore.insert` says.

    Raises:
        QueueFullError, IdempotencyConflictError: refused; the caller rolls back.
    """
    known = None if idempotency is None else _of_key(connection, request.caller, idempotency)
    if known is not None:
        return Inserted(request=known, created=False)
    alike, expired = _live_of_key(connection, tally, request)
    for other in alike:
        if other.digest == request.digest:
            if idempotency is not None:
                answers.reserve(connection, request.caller, idempotency, other.id)
            return Inserted(request=other, created=False, superseded=expired)
    superseded = tuple(
        _supersede(connection, tally, other, request)
        for other in alike
        if other.state is State.PENDING
    )
    if request.state is State.PENDING:
        _require_room(connection, tally, request, caps)
    insert(connection, request)
    notifications.add_to(connection, prompts, request.state)
    if idempotency is not None:
        answers.reserve(connection, request.caller, idempotency, request.id)
    return Inserted(request=request, created=True, superseded=expired + superseded)


_BY_ID = "SELECT * FROM requests WHERE id = :id"


def _of_key(connection: Connection, caller: str, key: IdempotencyKey) -> Request | None:
    known = answers.bound_to(connection, caller, key)
    if known is None:
        return None
    row = connection.execute(_BY_ID, {"id": known}).fetchone()
    if row is None:
        return None
    request = codec.read_request(row)
    return None if request.was_refused else request


# Not ordered here: for the order SQLite would go through the caller's whole history.
_LIVE_OF_KEY = """
SELECT * FROM requests WHERE caller = :caller AND request_key = :key AND finished_at IS NULL
"""


def _live_of_key(
    connection: Connection, tally: Tally, request: Request
) -> tuple[list[Request], tuple[Request, ...]]:
    """Return what is live of the same key, and what has expired unnoticed and is ended here."""
    key, now = codec.request_key(request.operation, request.params), request.created_at
    found = sorted(
        connection.execute(_LIVE_OF_KEY, {"caller": request.caller, "key": key}),
        key=lambda row: row["sequence"],
    )
    alike, expired = [], []
    for other in map(codec.read_request, found):
        if other.state is State.RUNNING or not other.is_expired(now):
            alike.append(other)
            continue
        ended = machine.expire(other, now=now)
        _end(connection, tally, other, ended)
        expired.append(ended)
    return alike, tuple(expired)


def _end(connection: Connection, tally: Tally, before: Request, ended: Request) -> None:
    transitions.move(connection, tally, ended, before=before.state, expected_version=before.version)


def _supersede(connection: Connection, tally: Tally, older: Request, newer: Request) -> Request:
    detail = (
        f"Superseded by request {newer.id}: the same was asked for again after its target or the "
        "policy for it had changed; nothing was run."
    )
    problem = Problem(code=TargetChangedError.code, detail=detail)
    cancelled = machine.cancel(older, problem=problem, now=newer.created_at)
    _end(connection, tally, older, cancelled)
    return cancelled


_COUNT_PENDING = "SELECT count(*) FROM requests WHERE state = 'pending'"
_COUNT_PENDING_OF = """
SELECT count(*) FROM requests
WHERE caller = :caller AND finished_at IS NULL AND state = 'pending'
"""


def _require_room(connection: Connection, tally: Tally, request: Request, caps: Caps) -> None:
    caller = request.caller
    if tally.pending is None:
        (tally.pending,) = connection.execute(_COUNT_PENDING).fetchone()
    if caller not in tally.of_caller:
        counted = connection.execute(_COUNT_PENDING_OF, {"caller": caller})
        (tally.of_caller[caller],) = counted.fetchone()
    if tally.of_caller[caller] >= caps.pending_of_caller:
        message = "Too many of your requests are pending; wait for a decision or cancel some."
        raise _queue_full(connection, _NEXT_EXPIRY_OF, message, request)
    if tally.pending >= caps.pending:
        message = "Too many requests are pending on this host; try again later."
        raise _queue_full(connection, _NEXT_EXPIRY, message, request)
    tally.pending += 1
    tally.of_caller[caller] += 1


_NEXT_EXPIRY = """
SELECT min(expires_at) FROM requests WHERE finished_at IS NULL AND state = 'pending'
"""
_NEXT_EXPIRY_OF = """
SELECT min(expires_at) FROM requests
WHERE finished_at IS NULL AND state = 'pending' AND caller = :caller
"""


def _queue_full(
    connection: Connection, next_expiry: str, message: str, request: Request
) -> QueueFullError:
    """Return the refusal, with the time until a pending request expires at the latest."""
    (expiry,) = connection.execute(next_expiry, {"caller": request.caller}).fetchone()
    seconds = _RETRY_AT_MOST_SECONDS
    if expiry is not None:
        seconds = (codec.instant(expiry) - request.created_at).total_seconds()
    return QueueFullError(
        message, retry_after_seconds=min(max(seconds, 1.0), _RETRY_AT_MOST_SECONDS)
    )
