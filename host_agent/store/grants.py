"""Bounded grants: given with a decision, counted before each use, revoked by hand.

A grant refers to its request by name only: it stays when the request is purged. It is no use before
the run that it was given with has begun: what was shown was there.
"""

import json
from dataclasses import replace
from datetime import datetime, timedelta
from sqlite3 import Connection, Row
from typing import Final

from host_agent.requests.grant import Grant
from host_agent.store import codec, requests

HISTORY: Final = timedelta(days=30)
"""How far back grants are listed that can no longer be used."""
LISTED_AT_ONCE = 1000
AGENT: Final = "host-agent"
"""Who revokes where nobody does."""

_ADD = """
INSERT INTO grants (
    id, request_id, caller, operation, resource, params, terms, consents, created_at, expires_at,
    uses_left, used, revoked_at, revoked_by
) VALUES (
    :id, :request_id, :caller, :operation, :resource, :params, :terms, :consents, :created_at,
    :expires_at, :uses_left, :used, :revoked_at, :revoked_by
)
"""


def add(connection: Connection, grant: Grant) -> None:
    """Store a grant that is given now."""
    connection.execute(_ADD, _row(grant))


_NEWEST_MADE = "SELECT max(created_at) FROM grants"
_MADE_SINCE = """
SELECT * FROM grants WHERE created_at >= :since
ORDER BY created_at DESC, sequence DESC LIMIT :limit
"""
_LIVE = """
SELECT * FROM grants
WHERE revoked_at IS NULL AND expires_at > :now AND (uses_left IS NULL OR uses_left > 0)
"""


def recent(connection: Connection) -> list[Grant]:
    """Return the grants of the last 30 days, newest first, at most 1,000, and all live ones.

    The newest instant that the store knows stands for now, which may be some time ago: more are
    returned then, never fewer.
    """
    now = _newest_time(connection)
    if now is None:
        return []
    since = {"since": codec.microseconds(now - HISTORY), "limit": LISTED_AT_ONCE}
    found = connection.execute(_MADE_SINCE, since).fetchall()
    found += connection.execute(_LIVE, {"now": codec.microseconds(now)})
    by_sequence = {row["sequence"]: row for row in found}
    newest_first = sorted(
        by_sequence.values(), key=lambda row: (row["created_at"], row["sequence"]), reverse=True
    )
    return [_read(row) for row in newest_first]


def _newest_time(connection: Connection) -> datetime | None:
    (made,) = connection.execute(_NEWEST_MADE).fetchone()
    known = (codec.optional_instant(made), requests.newest_time(connection))
    return max((instant for instant in known if instant is not None), default=None)


_LIVE_OF = """
SELECT * FROM grants
WHERE caller = :caller AND operation = :operation
    AND revoked_at IS NULL AND expires_at > :now AND (uses_left IS NULL OR uses_left > 0)
    AND NOT EXISTS (
        SELECT 1 FROM requests
        WHERE requests.id = grants.request_id AND requests.state IN ('pending', 'approved'))
ORDER BY expires_at, sequence
"""


def live_of(connection: Connection, caller: str, operation: str, now: datetime) -> list[Grant]:
    """Return the grants of a caller and operation that can be used at `now`.

    The first to expire comes first.
    """
    keys = {"caller": caller, "operation": operation, "now": codec.microseconds(now)}
    return [_read(row) for row in connection.execute(_LIVE_OF, keys)]


_USE = """
UPDATE grants SET uses_left = uses_left - 1, used = used + 1
WHERE id = :id
    AND revoked_at IS NULL AND expires_at > :now AND (uses_left IS NULL OR uses_left > 0)
    AND NOT EXISTS (
        SELECT 1 FROM requests
        WHERE requests.id = grants.request_id AND requests.state IN ('pending', 'approved'))
"""


def use(connection: Connection, grant_id: str, now: datetime) -> bool:
    """Use a grant once, if it can be used at `now`: counted before anything runs."""
    keys = {"id": grant_id, "now": codec.microseconds(now)}
    return connection.execute(_USE, keys).rowcount == 1


_LIVE_NAMED = """
SELECT * FROM grants
WHERE id >= :low AND id < :high
    AND revoked_at IS NULL AND expires_at > :now AND (uses_left IS NULL OR uses_left > 0)
ORDER BY id LIMIT 2
"""
_REVOKE = "UPDATE grants SET revoked_at = :revoked_at, revoked_by = :revoked_by WHERE id = :id"


def revoke(connection: Connection, prefix: str, *, by: str, now: datetime) -> Grant | None:
    """Revoke the grant of this id, or unique prefix of one; None if there is no live one."""
    ids = requests.ids_beginning(prefix)
    if ids is None:
        return None
    keys = {**ids, "now": codec.microseconds(now)}
    found = connection.execute(_LIVE_NAMED, keys).fetchall()
    if not found or (len(found) > 1 and found[0]["id"] != prefix):
        return None
    revoked = replace(_read(found[0]), revoked_at=now, revoked_by=by)
    connection.execute(_REVOKE, _row(revoked))
    return revoked


_VOID = """
UPDATE grants SET revoked_at = :revoked_at, revoked_by = :revoked_by
WHERE request_id = :request_id AND revoked_at IS NULL
"""


def void(connection: Connection, request_id: str, now: datetime) -> None:
    """Revoke what was given with a request that ended before it ran."""
    values = {"request_id": request_id, "revoked_at": codec.microseconds(now), "revoked_by": AGENT}
    connection.execute(_VOID, values)


_FORGET = "DELETE FROM grants WHERE expires_at < :before"


def forget(connection: Connection, older_than: datetime) -> None:
    """Delete grants that ended so long before `older_than` that nothing lists them."""
    connection.execute(_FORGET, {"before": codec.microseconds(older_than - HISTORY)})


def _row(grant: Grant) -> codec.Values:
    return {
        "id": grant.id,
        "request_id": grant.request_id,
        "caller": grant.caller,
        "operation": grant.operation,
        "resource": grant.resource,
        "params": codec.dump(grant.params),
        "terms": codec.dump(codec.terms_json(grant.terms)),
        "consents": codec.dump([codec.decision_json(consent) for consent in grant.consents]),
        "created_at": codec.microseconds(grant.created_at),
        "expires_at": codec.microseconds(grant.expires_at),
        "uses_left": grant.uses_left,
        "used": grant.used,
        "revoked_at": codec.optional_microseconds(grant.revoked_at),
        "revoked_by": grant.revoked_by,
    }


def _read(row: Row) -> Grant:
    try:
        return Grant(
            id=row["id"],
            request_id=row["request_id"],
            caller=row["caller"],
            operation=row["operation"],
            resource=row["resource"],
            params=json.loads(row["params"]),
            terms=codec.terms_of(json.loads(row["terms"])),
            consents=tuple(codec.decision_of(entry) for entry in json.loads(row["consents"])),
            created_at=codec.instant(row["created_at"]),
            expires_at=codec.instant(row["expires_at"]),
            uses_left=row["uses_left"],
            used=row["used"],
            revoked_at=codec.optional_instant(row["revoked_at"]),
            revoked_by=row["revoked_by"],
        )
    except (ValueError, KeyError, TypeError) as error:
        message = f"the row of grant {row['id']!r} cannot be read: {error!r}"
        raise codec.RowError(message) from error
