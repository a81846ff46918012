"""What stands between a caller and one more ask: refusals, since when they count, what waits.

A release moves the start of the count; it deletes nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from sqlite3 import Connection

from host_agent.errors import TargetChangedError
from host_agent.requests.grant import Grant
from host_agent.requests.model import Request
from host_agent.store import codec, grants


@dataclass(frozen=True, slots=True, kw_only=True)
class AskContext:
    """What stands between a caller and one more ask.

    `refusals` are the caller's requests that came to nothing: denied, expired, or withdrawn by the
    caller after somebody was asked. `others` are those of other operations that wait, or were
    denied, without output, oldest first. `grants` can be used for the operation.
    """

    refusals: int
    others: list[Request]
    grants: list[Grant]


_RELEASE = """
INSERT INTO releases (caller, released_at, released_by)
VALUES (:caller, :released_at, :released_by)
ON CONFLICT (caller) DO UPDATE
SET released_at = excluded.released_at, released_by = excluded.released_by
WHERE releases.released_at <= excluded.released_at
"""


def release(connection: Connection, caller: str, *, by: str, now: datetime) -> None:
    """Forget a caller's refusals up to `now`: `ask_context` counts later ones only.

    An older release changes nothing.
    """
    values = {"caller": caller, "released_at": codec.microseconds(now), "released_by": by}
    connection.execute(_RELEASE, values)


def ask_context(
    connection: Connection,
    caller: str,
    operation: str,
    *,
    refused_since: datetime,
    denied_since: datetime,
    now: datetime,
) -> AskContext:
    """Return what decides about one more ask of `caller` for `operation`, in one look.

    A release forgets the refusals and denials before it.
    """
    return AskContext(
        refusals=_refusals(connection, caller, refused_since),
        others=_others(connection, caller, denied_since, operation),
        grants=grants.live_of(connection, caller, operation, now),
    )


# A request that nobody was prompted for is no weight on anybody. Withdrawn is what was cancelled
# without a problem, or for a newer ask of the same.
_REFUSALS = """
SELECT count(*) FROM requests
WHERE caller = :caller AND state IN ('denied', 'expired', 'cancelled')
    AND finished_at >= :since
    AND finished_at >
        coalesce((SELECT released_at FROM releases WHERE caller = :caller), -4611686018427387904)
    AND (state != 'cancelled'
        OR (problem IS NULL OR json_extract(problem, '$.code') = :superseded)
        AND EXISTS (
            SELECT 1 FROM notifications
            WHERE request_id = requests.id AND kind = 'prompt' AND tries > 0))
"""


def _refusals(connection: Connection, caller: str, since: datetime) -> int:
    keys = {
        "caller": caller,
        "since": codec.microseconds(since),
        "superseded": TargetChangedError.code,
    }
    return int(connection.execute(_REFUSALS, keys).fetchone()[0])


# Two ranges of operations, so that the index passes over the one that is asked for: there may be
# hundreds of it.
_OTHERS = """
SELECT * FROM requests
WHERE caller = :caller AND operation != :operation AND state = 'denied'
    AND finished_at >= :since
    AND finished_at >
        coalesce((SELECT released_at FROM releases WHERE caller = :caller), -4611686018427387904)
UNION ALL
SELECT * FROM requests
WHERE caller = :caller AND finished_at IS NULL AND state = 'pending' AND operation < :operation
UNION ALL
SELECT * FROM requests
WHERE caller = :caller AND finished_at IS NULL AND state = 'pending' AND operation > :operation
"""


def _others(
    connection: Connection, caller: str, denied_since: datetime, operation: str
) -> list[Request]:
    keys = {
        "caller": caller,
        "since": codec.microseconds(denied_since),
        "operation": operation,
    }
    found = sorted(connection.execute(_OTHERS, keys), key=lambda row: row["sequence"])
    return [codec.read_request(row) for row in found]
