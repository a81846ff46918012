"""One-time ids: put if absent, in the writer's transaction.

An id is kept an hour beyond its last instant, so that it cannot be used again while a message that
bears it would still be taken, also where the clock is set back meanwhile. Ids within their time are
never dropped: a full scope refuses instead.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from sqlite3 import Connection

from host_agent.store.codec import microseconds

_KEPT_LONGER = timedelta(hours=1)
_FORGET = "DELETE FROM nonces WHERE expires_at < :before"
_BY_ID = "SELECT expires_at FROM nonces WHERE scope = :scope AND nonce = :nonce"
_COUNT = "SELECT count(*) FROM nonces WHERE scope = :scope AND expires_at >= :now"
_ADD = "INSERT INTO nonces (scope, nonce, expires_at) VALUES (:scope, :nonce, :expires_at)"


class Spent(StrEnum):
    """What became of a one-time id."""

    NEW = "new"
    REPLAYED = "replayed"
    FULL = "full"
    """No room: too many are within their time. It must be refused."""


def spend(
    connection: Connection,
    scope: str,
    nonce: str,
    *,
    expires_at: datetime,
    now: datetime,
    capacity: int,
) -> Spent:
    """Use up a one-time id of `scope`, atomically and durably.

    It lives through `expires_at`, that instant included. Expired ones make room first; when
    `capacity` are still alive, `FULL`.
    """
    keys = {"scope": scope, "nonce": nonce}
    connection.execute(_FORGET, {"before": microseconds(now - _KEPT_LONGER)})
    if connection.execute(_BY_ID, keys).fetchone() is not None:
        return Spent.REPLAYED
    (alive,) = connection.execute(_COUNT, {"scope": scope, "now": microseconds(now)}).fetchone()
    if alive >= capacity:
        return Spent.FULL
    connection.execute(_ADD, {**keys, "expires_at": microseconds(expires_at)})
    return Spent.NEW
