"""One-time ids as rows: put if absent, in the writer's transaction.

An id is kept an hour beyond its last instant, so that it cannot be used again while a message that
bears it would still be taken, also where the clock is set back meanwhile. Ids within their time are
never dropped: a full scope refuses instead.
"""

from datetime import datetime, timedelta

from sqlalchemy import Connection, bindparam, delete, func, insert, select

from host_agent.store import rows
from host_agent.store.port import Spent
from host_agent.store.schema import nonces

_n = nonces.c
FORGET = delete(nonces).where(_n.expires_at < bindparam("now"))
BY_ID = select(_n.expires_at).where(_n.scope == bindparam("scope"), _n.nonce == bindparam("nonce"))
COUNT = select(func.count()).where(
    _n.scope == bindparam("scope"), _n.expires_at >= bindparam("now")
)
_KEPT_LONGER = timedelta(hours=1)
_ADD = insert(nonces)


def spend(
    connection: Connection,
    scope: str,
    nonce: str,
    *,
    expires_at: datetime,
    now: datetime,
    capacity: int,
) -> Spent:
    """Use up a one-time id, as `RequestStore.spend_nonce` says."""
    keys = {"scope": scope, "nonce": nonce}
    connection.execute(FORGET, {"now": rows.microseconds(now - _KEPT_LONGER)})
    if connection.execute(BY_ID, keys).one_or_none() is not None:
        return Spent.REPLAYED
    alive = {"scope": scope, "now": rows.microseconds(now)}
    if connection.execute(COUNT, alive).scalar_one() >= capacity:
        return Spent.FULL
    connection.execute(_ADD, {**keys, "expires_at": rows.microseconds(expires_at)})
    return Spent.NEW
