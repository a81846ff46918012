"""Bounded grants as rows: given with a decision, counted before each use, revoked by hand.

A grant refers to its request by name only: it stays when the request is purged.
"""

import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Integer,
    Row,
    bindparam,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from host_agent.requests.grant import Grant
from host_agent.requests.model import State
from host_agent.store import queries, rows
from host_agent.store.port import Grants
from host_agent.store.schema import grants, requests

HISTORY: Final = timedelta(days=30)
"""How far back grants are listed that can no longer be used."""
LISTED_AT_ONCE = 1000
AGENT: Final = "host-agent"
"""Who revokes where nobody does."""

_g = grants.c
_ID = re.compile(r"[0-9A-Za-z_-]{1,64}", re.ASCII)
_AFTER_ASCII: Final = "\x7f"
_IS_LIVE = (
    _g.revoked_at.is_(None),
    _g.expires_at > bindparam("now", type_=Integer),
    _g.uses_left.is_(None) | (_g.uses_left > 0),
)
_HAS_BEGUN = ~exists(
    select(requests.c.sequence).where(
        requests.c.id == _g.request_id,
        requests.c.state.in_([State.PENDING.value, State.APPROVED.value]),
    )
)
"""The run that it was given with has begun: what was shown was there. Until then it is no use."""
_ADD = insert(grants)
_NEWEST_MADE = select(func.max(_g.created_at))
SINCE = (
    select(grants)
    .where(_g.created_at >= bindparam("since"))
    .order_by(_g.created_at.desc(), _g.sequence.desc())
    .limit(LISTED_AT_ONCE)
)
ALL_LIVE = select(grants).where(*_IS_LIVE)
LIVE_OF = (
    select(grants)
    .where(_g.caller == bindparam("caller"), _g.operation == bindparam("operation"))
    .where(*_IS_LIVE, _HAS_BEGUN)
    .order_by(_g.expires_at, _g.sequence)
)
_LIVE_NAMED = (
    select(grants)
    .where(_g.id >= bindparam("low"), _g.id < bindparam("high"), *_IS_LIVE)
    .order_by(_g.id)
    .limit(2)
)
_USE = (
    update(grants)
    .where(_g.id == bindparam("key_id"), *_IS_LIVE, _HAS_BEGUN)
    .values(uses_left=_g.uses_left - 1, used=_g.used + 1)
)
_REVOKE = update(grants).where(_g.id == bindparam("key_id"))
_VOID = update(grants).where(_g.request_id == bindparam("key_id"), _g.revoked_at.is_(None))
_FORGET = delete(grants).where(_g.expires_at < bindparam("before"))


def add(connection: Connection, grant: Grant) -> None:
    """Store a grant that is given now."""
    connection.execute(_ADD, _row(grant))


def recent(connection: Connection) -> Grants:
    """Return the grants of the last 30 days, newest first, at most 1,000, and all live ones.

    The newest instant that the store knows stands for now, which may be some time ago: more are
    returned then, never fewer.
    """
    now = _newest_time(connection)
    if now is None:
        return []
    since = {"since": rows.microseconds(now - HISTORY)}
    found = [*connection.execute(SINCE, since)]
    found.extend(connection.execute(ALL_LIVE, {"now": rows.microseconds(now)}))
    by_sequence = {row.sequence: row for row in found}
    newest_first = sorted(
        by_sequence.values(), key=lambda row: (row.created_at, row.sequence), reverse=True
    )
    return [_read(row) for row in newest_first]


def live_of(connection: Connection, caller: str, operation: str, now: datetime) -> Grants:
    """Return the grants that can be used at `now`, the first to expire first."""
    keys = {"caller": caller, "operation": operation, "now": rows.microseconds(now)}
    return [_read(row) for row in connection.execute(LIVE_OF, keys)]


def use(connection: Connection, grant_id: str, now: datetime) -> bool:
    """Count one use by compare-and-set; False if it cannot be used at `now`."""
    keys = {"key_id": grant_id, "now": rows.microseconds(now)}
    return connection.execute(_USE, keys).rowcount == 1


def revoke(connection: Connection, prefix: str, by: str, now: datetime) -> Grant | None:
    """Revoke the live grant of this id, or of this prefix of one live grant; return it so."""
    if not _ID.fullmatch(prefix):
        return None
    keys = {"low": prefix, "high": prefix + _AFTER_ASCII, "now": rows.microseconds(now)}
    found = connection.execute(_LIVE_NAMED, keys).all()
    if not found or (len(found) > 1 and found[0].id != prefix):
        return None
    revoked = replace(_read(found[0]), revoked_at=now, revoked_by=by)
    values = {"revoked_at": rows.microseconds(now), "revoked_by": by}
    connection.execute(_REVOKE, {**values, "key_id": revoked.id})
    return revoked


def void(connection: Connection, request_id: str, now: datetime) -> None:
    """Revoke what was given with a request that ended before it ran."""
    values = {"revoked_at": rows.microseconds(now), "revoked_by": AGENT, "key_id": request_id}
    connection.execute(_VOID, values)


def forget(connection: Connection, older_than: datetime) -> None:
    """Delete grants that ended so long before `older_than` that nothing lists them."""
    connection.execute(_FORGET, {"before": rows.microseconds(older_than - HISTORY)})


def _newest_time(connection: Connection) -> datetime | None:
    made = rows.optional_instant(connection.execute(_NEWEST_MADE).scalar_one())
    known = [instant for instant in (made, queries.newest_time(connection)) if instant is not None]
    return max(known, default=None)


def _row(grant: Grant) -> rows.Values:
    return {
        "id": grant.id,
        "request_id": grant.request_id,
        "caller": grant.caller,
        "operation": grant.operation,
        "resource": grant.resource,
        "params": rows.dump(grant.params),
        "terms": rows.dump(rows.terms_json(grant.terms)),
        "consents": rows.dump([rows.decision_json(consent) for consent in grant.consents]),
        "created_at": rows.microseconds(grant.created_at),
        "expires_at": rows.microseconds(grant.expires_at),
        "uses_left": grant.uses_left,
        "used": grant.used,
        "revoked_at": rows.optional_microseconds(grant.revoked_at),
        "revoked_by": grant.revoked_by,
    }


def _read(row: Row[Any]) -> Grant:
    try:
        return Grant(
            id=row.id,
            request_id=row.request_id,
            caller=row.caller,
            operation=row.operation,
            resource=row.resource,
            params=json.loads(row.params),
            terms=rows.terms_of(json.loads(row.terms)),
            consents=tuple(rows.decision_of(entry) for entry in json.loads(row.consents)),
            created_at=rows.instant(row.created_at),
            expires_at=rows.instant(row.expires_at),
            uses_left=row.uses_left,
            used=row.used,
            revoked_at=rows.optional_instant(row.revoked_at),
            revoked_by=row.revoked_by,
        )
    except (ValueError, KeyError, TypeError) as error:
        message = f"the row of grant {row.id!r} cannot be read: {error!r}"
        raise rows.RowError(message) from error
