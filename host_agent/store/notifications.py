"""Notifications: what is to be told, to whom, over what, and what each try came to.

`withdraw_and_tell` runs inside the transaction that moves a request, so that nobody is left with a
prompt for what is decided, and nobody who was asked goes without the outcome.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from sqlite3 import Connection, Row
from typing import Final
from uuid import uuid4

from host_agent.requests.model import State
from host_agent.requests.notification import DeliveryState, Failure, Kind, Notification
from host_agent.store.codec import (
    RowError,
    Values,
    instant,
    microseconds,
    optional_instant,
    optional_microseconds,
)

_OPEN: Final = frozenset({DeliveryState.WAITING, DeliveryState.WITHDRAWN})
"""States of a try that nobody has settled."""

# -- write -----------------------------------------------------------------------------------------

# A row that is there stays as it is: told once means once.
_ADD = """
INSERT INTO notifications (
    id, request_id, kind, owner, channel, state, created_at, next_at, tries, delivered_at,
    reference, failure, answer_reference
) VALUES (
    :id, :request_id, :kind, :owner, :channel, :state, :created_at, :next_at, :tries,
    :delivered_at, :reference, :failure, :answer_reference
) ON CONFLICT DO NOTHING
"""
_STATE_OF_REQUEST = "SELECT state, finished_at FROM requests WHERE id = :request_id"


def add(connection: Connection, made: Iterable[Notification]) -> None:
    """Store notifications; one of the same request, kind, owner and channel stays as it is.

    One of a request that is gone is left out; a prompt of one that is decided is kept withdrawn.
    """
    found: dict[str, State | None] = {}
    for one in made:
        if one.request_id not in found:
            keys = {"request_id": one.request_id}
            row = connection.execute(_STATE_OF_REQUEST, keys).fetchone()
            found[one.request_id] = None if row is None else State(row["state"])
        state = found[one.request_id]
        if state is not None:
            add_to(connection, [one], state)


def add_to(connection: Connection, made: Sequence[Notification], state: State) -> None:
    """Store notifications of requests that are in `state`."""
    connection.executemany(_ADD, [_row(_as_of(one, state)) for one in made])


_PROMPTS = """
SELECT owner, channel, state FROM notifications WHERE request_id = :request_id AND kind = 'prompt'
"""
_WITHDRAW = """
UPDATE notifications SET state = 'withdrawn'
WHERE request_id = :request_id AND kind = 'prompt' AND state = 'waiting'
"""


def withdraw_and_tell(
    connection: Connection, request_id: str, *, has_left_pending: bool, ended: datetime | None
) -> None:
    """Withdraw the prompts of a request that left `pending`; tell its end to whom one has reached.

    A request without prompts costs one look at an index.
    """
    keys = {"request_id": request_id}
    prompts = connection.execute(_PROMPTS, keys).fetchall()
    if has_left_pending and any(row["state"] == DeliveryState.WAITING for row in prompts):
        connection.execute(_WITHDRAW, keys)
    reached = [row for row in prompts if row["state"] == DeliveryState.DELIVERED]
    if ended is not None:
        made = [_outcome(request_id, row["owner"], row["channel"], ended) for row in reached]
        connection.executemany(_ADD, [_row(one) for one in made])


_BY_ID = "SELECT * FROM notifications WHERE id = :id"
_SETTLE = """
UPDATE notifications SET
    state = :state, next_at = :next_at, tries = :tries, delivered_at = :delivered_at,
    reference = :reference, failure = :failure, answer_reference = :answer_reference
WHERE id = :id
"""


def settle(connection: Connection, notification: Notification, *, expected_tries: int) -> bool:
    """Store what a try came to, if nobody has settled that try before; False if so.

    Two processes that sent the same try leave one result. A notification that was withdrawn
    meanwhile stays withdrawn, but a delivery of it is stored as one; and a prompt delivered after
    its request has ended stores the outcome as `transitions.transition` would have.
    """
    row = connection.execute(_BY_ID, {"id": notification.id}).fetchone()
    if row is None or row["tries"] != expected_tries:
        return False
    stored = _read(row)
    if stored.state not in _OPEN:
        return False
    is_delivered = notification.state is DeliveryState.DELIVERED
    stays_withdrawn = stored.state is DeliveryState.WITHDRAWN and not is_delivered
    state = stored.state if stays_withdrawn else notification.state
    connection.execute(_SETTLE, {**_tried_row(replace(notification, state=state)), "id": stored.id})
    if is_delivered and stored.kind is Kind.PROMPT:
        _tell_late(connection, stored)
    return True


def _tell_late(connection: Connection, delivered: Notification) -> None:
    """Tell the end of a request that ended while its prompt was on the way."""
    keys = {"request_id": delivered.request_id}
    ended = connection.execute(_STATE_OF_REQUEST, keys).fetchone()["finished_at"]
    if ended is not None:
        made = _outcome(delivered.request_id, delivered.owner, delivered.channel, instant(ended))
        connection.execute(_ADD, _row(made))


_HASTEN = """
UPDATE notifications SET next_at = :now
WHERE next_at > :now AND sequence = (
    SELECT sequence FROM notifications
    WHERE request_id = :request_id AND kind = 'prompt' AND owner = :owner AND state = 'waiting'
    ORDER BY next_at, sequence LIMIT 1)
"""


def hasten(connection: Connection, request_id: str, owner: str, now: datetime) -> None:
    """Make an owner's waiting prompt that is next due, due now: another way to them failed."""
    keys = {"request_id": request_id, "owner": owner.casefold(), "now": microseconds(now)}
    connection.execute(_HASTEN, keys)


# -- read ------------------------------------------------------------------------------------------

_DUE = """
SELECT * FROM notifications WHERE state = 'waiting' AND next_at <= :now
ORDER BY next_at, sequence LIMIT :limit
"""


def due(connection: Connection, now: datetime, *, limit: int) -> list[Notification]:
    """Return waiting notifications that are due, the longest due first."""
    keys = {"now": microseconds(now), "limit": limit}
    return [_read(row) for row in connection.execute(_DUE, keys)]


_NEXT = "SELECT min(next_at) FROM notifications WHERE state = 'waiting'"


def next_due(connection: Connection) -> datetime | None:
    """Return when the next waiting notification is due."""
    return optional_instant(connection.execute(_NEXT).fetchone()[0])


_OF_REQUEST = "SELECT * FROM notifications WHERE request_id = :request_id ORDER BY sequence"


def of_request(connection: Connection, request_id: str) -> list[Notification]:
    """Return all notifications of a request, in the order in which they were made."""
    return [_read(row) for row in connection.execute(_OF_REQUEST, {"request_id": request_id})]


# Two looks, an index each: a person may answer either message of a prompt.
_BY_REFERENCE = """
SELECT * FROM notifications
WHERE channel = :channel AND owner = :owner AND kind = 'prompt' AND state = 'delivered'
    AND reference = :reference
UNION ALL
SELECT * FROM notifications
WHERE channel = :channel AND owner = :owner AND kind = 'prompt' AND state = 'delivered'
    AND answer_reference = :reference
"""


def by_reference(
    connection: Connection, owner: str, channel: str, reference: str
) -> Notification | None:
    """Return the delivered prompt one of whose messages the channel calls `reference`.

    The newest, if there are several.
    """
    keys = {"owner": owner.casefold(), "channel": channel, "reference": reference}
    found = connection.execute(_BY_REFERENCE, keys).fetchall()
    return _read(max(found, key=lambda row: row["sequence"])) if found else None


_WAITING = "SELECT channel, count(*) FROM notifications WHERE state = 'waiting' GROUP BY channel"


def waiting(connection: Connection) -> dict[str, int]:
    """Return how many notifications wait, by channel."""
    return dict(connection.execute(_WAITING).fetchall())


# -- rows ------------------------------------------------------------------------------------------


def _read(row: Row) -> Notification:
    try:
        return Notification(
            id=row["id"],
            request_id=row["request_id"],
            kind=Kind(row["kind"]),
            owner=row["owner"],
            channel=row["channel"],
            state=DeliveryState(row["state"]),
            created_at=instant(row["created_at"]),
            next_at=instant(row["next_at"]),
            tries=row["tries"],
            delivered_at=optional_instant(row["delivered_at"]),
            reference=row["reference"],
            failure=None if row["failure"] is None else Failure(row["failure"]),
            answer_reference=row["answer_reference"],
        )
    except (ValueError, TypeError) as error:
        message = f"the row of notification {row['id']!r} cannot be read: {error!r}"
        raise RowError(message) from error


def _outcome(request_id: str, owner: str, channel: str, ended: datetime) -> Notification:
    return Notification(
        id=uuid4().hex,
        request_id=request_id,
        kind=Kind.OUTCOME,
        owner=owner,
        channel=channel,
        state=DeliveryState.WAITING,
        created_at=ended,
        next_at=ended,
    )


def _as_of(made: Notification, state: State) -> Notification:
    is_late = made.kind is Kind.PROMPT and state is not State.PENDING
    if is_late and made.state is DeliveryState.WAITING:
        return replace(made, state=DeliveryState.WITHDRAWN)
    return made


def _row(made: Notification) -> Values:
    return {
        "id": made.id,
        "request_id": made.request_id,
        "kind": made.kind.value,
        "owner": made.owner.casefold(),
        "channel": made.channel,
        "created_at": microseconds(made.created_at),
        **_tried_row(made),
    }


def _tried_row(tried: Notification) -> Values:
    """Return the columns that a try may change, and no other."""
    return {
        "state": tried.state.value,
        "next_at": microseconds(tried.next_at),
        "tries": tried.tries,
        "delivered_at": optional_microseconds(tried.delivered_at),
        "reference": tried.reference,
        "failure": None if tried.failure is None else tried.failure.value,
        "answer_reference": tried.answer_reference,
    }
