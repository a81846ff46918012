"""What the fatigue brake is read from: how often a caller was refused, and since when it counts.

A release moves the start of the count; it deletes nothing.
"""

from datetime import datetime

from sqlalchemy import (
    Connection,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy.dialects.sqlite import insert as insert_or

from host_agent.errors import TargetChangedError
from host_agent.requests.model import State
from host_agent.requests.notification import Kind
from host_agent.store import rows
from host_agent.store.port import Requests
from host_agent.store.schema import notifications, releases, requests

_c = requests.c
_n = notifications.c
_r = releases.c
_new = insert_or(releases)
_RELEASE = _new.on_conflict_do_update(
    index_elements=[_r.caller],
    set_={
        "released_at": _new.excluded.released_at,
        "released_by": _new.excluded.released_by,
    },
    where=_r.released_at <= _new.excluded.released_at,
)
_NEVER = -(2**62)
_RELEASED_AT = select(_r.released_at).where(_r.caller == bindparam("caller")).scalar_subquery()
_SINCE = (
    _c.finished_at >= bindparam("since"),
    _c.finished_at > func.coalesce(_RELEASED_AT, literal(_NEVER)),
)
_SOMEBODY_WAS_ASKED = exists(
    select(_n.sequence).where(_n.request_id == _c.id, _n.kind == Kind.PROMPT.value, _n.tries > 0)
)
_IS_SUPERSEDED = func.json_extract(_c.problem, "$.code") == TargetChangedError.code
REFUSALS = select(func.count()).where(
    _c.caller == bindparam("caller"),
    _c.state.in_([State.DENIED.value, State.EXPIRED.value, State.CANCELLED.value]),
    *_SINCE,
    or_(
        _c.state != State.CANCELLED.value,
        and_(or_(_c.problem.is_(None), _IS_SUPERSEDED), _SOMEBODY_WAS_ASKED),
    ),
)
_OTHERS = (_c.caller == bindparam("caller"), _c.operation != bindparam("but"))
_WAITS = (
    _c.caller == bindparam("caller"),
    _c.finished_at.is_(None),
    _c.state == State.PENDING.value,
)
DENIED_OR_PENDING = union_all(
    select(requests).where(*_OTHERS, _c.state == State.DENIED.value, *_SINCE),
    # Two ranges, so that the index passes over the operation's own: there may be hundreds.
    select(requests).where(*_WAITS, _c.operation < bindparam("but")),
    select(requests).where(*_WAITS, _c.operation > bindparam("but")),
)


def release(connection: Connection, caller: str, by: str, now: datetime) -> None:
    """Forget a caller's refusals up to `now`; an older release changes nothing."""
    values = {"caller": caller, "released_at": rows.microseconds(now), "released_by": by}
    connection.execute(_RELEASE, values)


def refusals_of(connection: Connection, caller: str, since: datetime) -> int:
    """Return how many of the caller's requests came to nothing since then and its last release.

    Denied, expired, or withdrawn by the caller: cancelled without a problem, or for a newer ask of
    the same, after a prompt for it was tried at least once. A request that nobody was prompted for
    is no weight on anybody.
    """
    keys = {"caller": caller, "since": rows.microseconds(since)}
    return int(connection.execute(REFUSALS, keys).scalar_one())


def refused_or_waiting(
    connection: Connection, caller: str, denied_since: datetime, but: str
) -> Requests:
    """Return the caller's pending requests, and those denied since then and its last release.

    Those of the operation `but` are left out. Oldest first.
    """
    keys = {"caller": caller, "since": rows.microseconds(denied_since), "but": but}
    found = connection.execute(DENIED_OR_PENDING, keys)
    return [rows.read_row(row) for row in sorted(found, key=lambda row: row.sequence)]
