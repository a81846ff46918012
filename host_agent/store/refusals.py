"""What stands between a caller and one more ask: refusals, since when they count, what waits.

A release moves the start of the count; it deletes nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from sqlite3 import Connection

from host_agent.errors import TargetChangedError
from host_agent.operations.catalogue import Operation
from host_agent.requests.grant import Grant
from host_agent.requests.model import Denials, Request
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


_DENIALS = """
SELECT json_extract(decisions, '$[#-1].not_before') AS not_before,
    json_extract(decisions, '$[#-1].reason') AS words, finished_at
FROM requests
WHERE operation = :operation AND resource IS :resource AND finished_at >= :since
    AND state = 'denied' AND owner = :owner AND request_key = :key
    AND finished_at > coalesce(
        (SELECT released_at FROM releases WHERE caller = requests.caller), -4611686018427387904)
ORDER BY finished_at
"""


def denials(
    connection: Connection,
    owner: str,
    operation: Operation,
    *,
    counted_since: datetime,
    held_since: datetime,
) -> Denials:
    """Return how the same act was denied to `owner`, whichever of its callers asked.

    `times` counts from `counted_since` on; `until` is of every denial from `held_since` on. A
    release of the caller that asked forgets those before it.
    """
    keys = {
        "operation": operation.name,
        "resource": operation.resource,
        "key": codec.request_key(operation.name, operation.params.canonical()),
        "owner": owner,
        "since": codec.microseconds(min(counted_since, held_since)),
    }
    found = connection.execute(_DENIALS, keys).fetchall()
    counted = [row for row in found if row["finished_at"] >= codec.microseconds(counted_since)]
    until = [row["not_before"] for row in found if row["not_before"] is not None]
    return Denials(
        times=len(counted),
        until=codec.instant(max(until)) if until else None,
        words=found[-1]["words"] if found else None,
    )


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
    held_since: datetime,
    now: datetime,
) -> AskContext:
    """Return what decides about one more ask of `caller` for `operation`, in one look.

    A denial counts from `denied_since` on, or from `held_since` on if it says not before a time
    that is to come. A release forgets the refusals and denials before it.
    """
    return AskContext(
        refusals=_refusals(connection, caller, refused_since),
        others=_others(connection, caller, operation, denied_since, held_since, now),
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
    AND finished_at >= :held_since
    AND (finished_at >= :since OR json_extract(decisions, '$[#-1].not_before') > :now)
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
    connection: Connection,
    caller: str,
    operation: str,
    denied_since: datetime,
    held_since: datetime,
    now: datetime,
) -> list[Request]:
    keys = {
        "caller": caller,
        "since": codec.microseconds(denied_since),
        "held_since": codec.microseconds(min(denied_since, held_since)),
        "now": codec.microseconds(now),
        "operation": operation,
    }
    found = sorted(connection.execute(_OTHERS, keys), key=lambda row: row["sequence"])
    return [codec.read_request(row) for row in found]
