"""What is read from the store: the statements, built once, and what is made of their rows.

None of these scans the history: each has an index of `schema` that holds just what it looks at.
"""

import base64
import binascii
import re
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    String,
    bindparam,
    func,
    literal_column,
    select,
)

from host_agent.errors import InvalidParameterError, RequestNotFoundError
from host_agent.requests.facts import NEVER, AskedBefore
from host_agent.requests.model import LIVE, Request, State
from host_agent.store import rows
from host_agent.store.port import Page
from host_agent.store.schema import outputs, requests

DUE_AT_ONCE = 500
ENDED_AT_ONCE = 5000
COUNTED_BEFORE = 100
"""So many earlier asks for the same are looked at."""

_PREFIX = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_CURSOR = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_UNDECIDED = frozenset({State.DENIED.value, State.EXPIRED.value})
_AFTER_ASCII: Final = "\x7f"
_NOT_FOUND = "There is no such request that you may see; `host-agent requests list` shows yours."

_c = requests.c
_IS_LIVE = _c.finished_at.is_(None)
# The plus keeps SQLite from taking the index of states, where it would go through all of the queue
# for the one request that expires first.
_STATE_WITHOUT_INDEX: ColumnElement[str] = literal_column("+requests.state", String)
_MAY_EXPIRE = (
    _IS_LIVE,
    _STATE_WITHOUT_INDEX.in_([State.PENDING.value, State.APPROVED.value]),
)
_GET = (
    select(requests, outputs.c.body.label("output"))
    .outerjoin(outputs, outputs.c.request_id == _c.id)
    .where(_c.id == bindparam("id"))
)
_FIND = (
    select(_c.id)
    .where(_c.id >= bindparam("low"), _c.id < bindparam("high"))
    .order_by(_c.id)
    .limit(2)
)
_NEWEST_END = select(func.max(_c.finished_at)).where(_c.finished_at.is_not(None))
_NEWEST_MADE = select(_c.created_at).order_by(_c.sequence.desc()).limit(1)
_LIVE_DECISIONS = select(requests).where(_IS_LIVE, _c.decisions != "[]")
_STATE = select(_c.state, _c.version).where(_c.id == bindparam("id"))
LIVE_BY_DIGEST = select(requests).where(
    _c.caller == bindparam("caller"), _c.digest == bindparam("digest"), _IS_LIVE
)
ALL_LIVE = (
    select(requests)
    .where(_c.state.in_(sorted(state.value for state in LIVE)))
    .order_by(_c.sequence)
)
ENDED_SINCE = (
    select(requests)
    .where(_c.finished_at >= bindparam("since"))
    .order_by(_c.finished_at.desc())
    .limit(ENDED_AT_ONCE)
)
DUE = (
    select(requests)
    .where(*_MAY_EXPIRE, _c.expires_at <= bindparam("now"))
    .order_by(_c.expires_at)
    .limit(DUE_AT_ONCE)
)
ASKED_BEFORE = (
    select(_c.id, _c.state, _c.decisions)
    .where(
        _c.operation == bindparam("operation"),
        _c.resource == bindparam("resource"),
        _c.finished_at >= bindparam("since"),
    )
    .order_by(_c.finished_at.desc())
    .limit(COUNTED_BEFORE)
)
NEXT_EXPIRY = select(func.min(_c.expires_at)).where(*_MAY_EXPIRE)
PENDING_STATS = select(func.count(), func.min(_c.created_at)).where(_c.state == State.PENDING.value)


def get(connection: Connection, request_id: str) -> Request | None:
    """Return the request of exactly this id, with its output."""
    row = connection.execute(_GET, {"id": request_id}).one_or_none()
    return None if row is None else rows.read_row(row, row.output)


def find(connection: Connection, prefix: str, caller: str | None) -> Request:
    """Return the request of this id, or of this unique prefix of one.

    Raises:
        RequestNotFoundError: there is none, or more than one.
    """
    if not _PREFIX.fullmatch(prefix):
        raise RequestNotFoundError(_NOT_FOUND)
    query = _FIND if caller is None else _FIND.where(_c.caller == caller)
    found = connection.execute(query, {"low": prefix, "high": prefix + _AFTER_ASCII})
    ids = found.scalars().all()
    if len(ids) > 1 and ids[0] != prefix:
        message = "More than one request has an id that begins so; give more of it."
        raise RequestNotFoundError(message)
    request = get(connection, ids[0]) if ids else None
    if request is None:
        raise RequestNotFoundError(_NOT_FOUND)
    return request


def listing(state: State | None, caller: str | None, limit: int, cursor: str | None) -> Select[Any]:
    """Return the query of a page and one row more.

    Raises:
        InvalidParameterError: the cursor is not one of ours.
    """
    query = select(requests).order_by(_c.sequence.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(_c.state == state.value)
    if caller is not None:
        query = query.where(_c.caller == caller)
    if cursor is not None:
        query = query.where(_c.sequence < _read_cursor(cursor))
    return query


def page(connection: Connection, query: Select[Any], limit: int) -> Page:
    """Return the page of a `listing` query, and the cursor of the next one."""
    found = connection.execute(query).all()
    shown = [rows.read_row(row) for row in found[:limit]]
    return shown, None if len(found) <= limit else _cursor(found[limit - 1].sequence)


def asked_before(connection: Connection, request: Request, since: datetime) -> AskedBefore:
    """Return how often the same operation on the same resource was asked of people since then.

    Nothing for an operation without a resource. What policy let run, nobody was asked about.
    """
    if request.resource is None:
        return NEVER
    keys = {
        "operation": request.operation,
        "resource": request.resource,
        "since": rows.microseconds(since),
    }
    found = [row for row in connection.execute(ASKED_BEFORE, keys) if row.id != request.id]
    denied = [row for row in found if row.state == State.DENIED.value]
    asked = [row for row in found if row.state in _UNDECIDED or row.decisions != "[]"]
    last = rows.read_decisions(denied[0].decisions)[-1] if denied else None
    return AskedBefore(times=len(asked), denied=len(denied), last=last)


def newest_time(connection: Connection) -> datetime | None:
    """Return the newest instant of any request: made, decided or ended."""
    known = [
        rows.instant(stored)
        for stored in (
            connection.execute(_NEWEST_END).scalar_one(),
            connection.execute(_NEWEST_MADE).scalar_one_or_none(),
        )
        if stored is not None
    ]
    for row in connection.execute(_LIVE_DECISIONS):
        known.extend(decision.at for decision in rows.read_row(row).decisions)
    return max(known, default=None)


def stored_state(connection: Connection, request_id: str) -> tuple[State, int] | None:
    """Return the state and version that are stored for a request."""
    row = connection.execute(_STATE, {"id": request_id}).one_or_none()
    return None if row is None else (State(row.state), row.version)


def _cursor(sequence: int) -> str:
    return base64.urlsafe_b64encode(str(sequence).encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> int:
    message = "cursor: give the `next_cursor` of the page before, unchanged."
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        sequence = text.decode("ascii")
    except (binascii.Error, ValueError):
        raise InvalidParameterError(message) from None
    if not _CURSOR.fullmatch(sequence):
        raise InvalidParameterError(message)
    return int(sequence)
