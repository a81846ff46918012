"""What is read of the requests: by id, by caller, by state, and by when they end.

None of the statements scans the history: each has an index of `schema` that holds just what it
looks at.
"""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from sqlite3 import Connection
from typing import Any, Final, TypeAlias

from host_agent.errors import (
    invalid_in_query,
    request_not_found,
)
from host_agent.requests.facts import NEVER, AskedBefore
from host_agent.requests.model import Digest, Request, State
from host_agent.store import codec
from host_agent.text import ID

DUE_AT_ONCE = 500
ENDED_AT_ONCE = 5000
COUNTED_BEFORE = 100
"""So many earlier asks for the same are looked at."""

Page: TypeAlias = tuple[list[Request], str | None]
"""Requests, newest first, and the cursor of the next page, None at the end."""

# -- one ------------------------------------------------------------------------------------------

_GET = """
SELECT requests.*, outputs.body AS output
FROM requests LEFT JOIN outputs ON outputs.request_id = requests.id
WHERE requests.id = :id
"""


def get(connection: Connection, request_id: str) -> Request | None:
    """Return the request of exactly this id, with its output."""
    row = connection.execute(_GET, {"id": request_id}).fetchone()
    return None if row is None else codec.read_request(row, row["output"])


_FIND = "SELECT id FROM requests WHERE id >= :low AND id < :high ORDER BY id LIMIT 2"
# The plus keeps SQLite from going through the caller's whole history.
_FIND_OF_CALLER = """
SELECT id FROM requests WHERE id >= :low AND id < :high AND +caller = :caller ORDER BY id LIMIT 2
"""


def find(connection: Connection, prefix: str, *, caller: str | None = None) -> Request:
    """Return the request of this id, or of this unique prefix of one.

    With `caller`, only that caller's requests are looked at.

    Raises:
        RequestNotFoundError: there is none, or more than one.
    """
    keys = ids_beginning(prefix)
    if keys is None:
        raise request_not_found()
    if caller is None:
        found = connection.execute(_FIND, keys).fetchall()
    else:
        found = connection.execute(_FIND_OF_CALLER, {**keys, "caller": caller}).fetchall()
    if len(found) > 1 and found[0]["id"] != prefix:
        message = "More than one request has an id that begins so; give more of it."
        raise request_not_found(message)
    request = get(connection, found[0]["id"]) if found else None
    if request is None:
        raise request_not_found()
    return request


_PREFIX = re.compile(ID)
_AFTER_ASCII: Final = "\x7f"


def ids_beginning(prefix: str) -> dict[str, str] | None:
    """Return the range of ids that begin with `prefix`, from `low` to before `high`.

    None if no id does.
    """
    if not _PREFIX.fullmatch(prefix):
        return None
    return {"low": prefix, "high": prefix + _AFTER_ASCII}


_LIVE_OF_DIGEST = """
SELECT * FROM requests WHERE caller = :caller AND digest = :digest AND finished_at IS NULL
"""


def live_of_digest(connection: Connection, caller: str, digest: Digest) -> Request | None:
    """Return the caller's pending, approved or running request of this digest."""
    found = _all(connection, _LIVE_OF_DIGEST, {"caller": caller, "digest": digest})
    return found[0] if found else None


_STATE = "SELECT state, version FROM requests WHERE id = :id"


def stored_state(connection: Connection, request_id: str) -> tuple[State, int] | None:
    row = connection.execute(_STATE, {"id": request_id}).fetchone()
    return None if row is None else (State(row["state"]), row["version"])


# -- several --------------------------------------------------------------------------------------

_LIST = """
SELECT * FROM requests WHERE sequence < :before ORDER BY sequence DESC LIMIT :limit
"""
_LIST_OF_CALLER = """
SELECT * FROM requests WHERE caller = :caller AND sequence < :before
ORDER BY sequence DESC LIMIT :limit
"""
_LIST_IN_STATE = """
SELECT * FROM requests WHERE state = :state AND sequence < :before
ORDER BY sequence DESC LIMIT :limit
"""
_LIST_IN_STATE_OF_CALLER = """
SELECT * FROM requests WHERE state = :state AND caller = :caller AND sequence < :before
ORDER BY sequence DESC LIMIT :limit
"""


def page(
    connection: Connection,
    *,
    state: State | None,
    caller: str | None,
    limit: int,
    cursor: str | None,
) -> Page:
    """Return up to `limit` requests, newest first, without standard output, error and data.

    Raises:
        InvalidParameterError: the cursor is not one of ours.
    """
    before = _BEYOND if cursor is None else _read_cursor(cursor)
    keys = {"before": before, "limit": limit + 1, "state": state, "caller": caller}
    if state is None:
        query = _LIST if caller is None else _LIST_OF_CALLER
    else:
        query = _LIST_IN_STATE if caller is None else _LIST_IN_STATE_OF_CALLER
    found = connection.execute(query, keys).fetchall()
    shown = [codec.read_request(row) for row in found[:limit]]
    return shown, None if len(found) <= limit else _cursor(found[limit - 1]["sequence"])


_BEYOND: Final = 2**63 - 1
_CURSOR = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)


def _cursor(sequence: int) -> str:
    return base64.urlsafe_b64encode(str(sequence).encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> int:
    refusal = invalid_in_query("cursor", "give the `next_cursor` of the page before, unchanged.")
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        sequence = text.decode("ascii")
    except (binascii.Error, ValueError):
        raise refusal from None
    if not _CURSOR.fullmatch(sequence):
        raise refusal
    return int(sequence)


_LIVE = """
SELECT * FROM requests WHERE state IN ('approved', 'pending', 'running') ORDER BY sequence
"""


def live(connection: Connection) -> list[Request]:
    """Return everything pending, approved or running, oldest first."""
    return _all(connection, _LIVE)


# The plus keeps SQLite from taking the index of states, where it would go through all of the queue
# for the one request that expires first.
_DUE = """
SELECT * FROM requests
WHERE finished_at IS NULL AND +state IN ('pending', 'approved') AND expires_at <= :now
ORDER BY expires_at LIMIT :limit
"""


def due(connection: Connection, now: datetime) -> list[Request]:
    """Return the first 500 pending or approved requests that are expired at `now`."""
    return _all(connection, _DUE, {"now": codec.microseconds(now), "limit": DUE_AT_ONCE})


_ENDED_SINCE = """
SELECT * FROM requests WHERE finished_at >= :since ORDER BY finished_at DESC LIMIT :limit
"""


def ended_since(connection: Connection, since: datetime) -> list[Request]:
    """Return what has ended since then, newest first, at most 5,000, without output."""
    keys = {"since": codec.microseconds(since), "limit": ENDED_AT_ONCE}
    return _all(connection, _ENDED_SINCE, keys)


def _all(
    connection: Connection, query: str, keys: Mapping[str, Any] | None = None
) -> list[Request]:
    return [codec.read_request(row) for row in connection.execute(query, keys or {})]


# -- counts and times -----------------------------------------------------------------------------

_NEXT_EXPIRY = """
SELECT min(expires_at) FROM requests
WHERE finished_at IS NULL AND +state IN ('pending', 'approved')
"""


def next_expiry(connection: Connection) -> datetime | None:
    """Return when the next pending or approved request expires."""
    return codec.optional_instant(connection.execute(_NEXT_EXPIRY).fetchone()[0])


_PENDING_STATS = "SELECT count(*), min(created_at) FROM requests WHERE state = 'pending'"


def pending_stats(connection: Connection) -> tuple[int, datetime | None]:
    """Return how many are pending, and when the oldest of them was made."""
    count, oldest = connection.execute(_PENDING_STATS).fetchone()
    return count, codec.optional_instant(oldest)


def asked_before(
    connection: Connection, requests: Sequence[Request], since: datetime
) -> list[AskedBefore]:
    """Return for each request how often the same operation on the same resource was asked.

    Counted is what has ended since then after a person was asked, whoever asked for it: at most
    100. The request itself does not count.
    """
    return [_asked_before(connection, request, since) for request in requests]


_ASKED_BEFORE = """
SELECT id, state, decisions FROM requests
WHERE operation = :operation AND resource = :resource AND finished_at >= :since
ORDER BY finished_at DESC LIMIT :limit
"""
_UNDECIDED = frozenset({State.DENIED, State.EXPIRED})


def _asked_before(connection: Connection, request: Request, since: datetime) -> AskedBefore:
    """Return nothing for an operation without a resource.

    What policy let run, nobody was asked about.
    """
    if request.resource is None:
        return NEVER
    keys = {
        "operation": request.operation,
        "resource": request.resource,
        "since": codec.microseconds(since),
        "limit": COUNTED_BEFORE,
    }
    found = [row for row in connection.execute(_ASKED_BEFORE, keys) if row["id"] != request.id]
    denied = [row for row in found if row["state"] == State.DENIED]
    asked = [row for row in found if row["state"] in _UNDECIDED or row["decisions"] != "[]"]
    last = codec.read_decisions(denied[0]["decisions"])[-1] if denied else None
    return AskedBefore(times=len(asked), denied=len(denied), last=last)


_NEWEST_END = "SELECT max(finished_at) FROM requests WHERE finished_at IS NOT NULL"
_NEWEST_MADE = "SELECT created_at FROM requests ORDER BY sequence DESC LIMIT 1"
_LIVE_DECISIONS = "SELECT * FROM requests WHERE finished_at IS NULL AND decisions != '[]'"


def newest_time(connection: Connection) -> datetime | None:
    """Return the newest instant of any request, made, decided or ended: a floor for the clock."""
    known = [
        codec.instant(row[0])
        for query in (_NEWEST_END, _NEWEST_MADE)
        for row in connection.execute(query)
        if row[0] is not None
    ]
    for request in _all(connection, _LIVE_DECISIONS):
        known.extend(decision.at for decision in request.decisions)
    return max(known, default=None)
