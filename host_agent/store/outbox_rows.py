"""Notifications as rows: what is to be told, to whom, over what, and what each try came to.

`withdraw_and_tell` runs inside the transaction that moves a request, so that nobody is left with a
prompt for what is decided, and nobody who was asked goes without the outcome.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

from sqlalchemy import Connection, Row, bindparam, func, select, union_all, update
from sqlalchemy.dialects.sqlite import insert as insert_or

from host_agent.requests.model import State
from host_agent.requests.notification import DeliveryState, Failure, Kind, Notification
from host_agent.store import rows
from host_agent.store.port import Notifications
from host_agent.store.schema import is_waiting, notifications, requests

_n = notifications.c
# A row that is there stays as it is: told once means once.
_ADD = insert_or(notifications).on_conflict_do_nothing()
_IS_PROMPT = _n.kind == Kind.PROMPT.value
_PROMPTS = select(_n.owner, _n.channel, _n.state).where(
    _n.request_id == bindparam("request_id"), _IS_PROMPT
)
_WITHDRAW = (
    update(notifications)
    .where(_n.request_id == bindparam("of"), _IS_PROMPT, is_waiting)
    .values(state=DeliveryState.WITHDRAWN.value)
)
_BY_ID = select(notifications).where(_n.id == bindparam("id"))
_SETTLE = update(notifications).where(_n.id == bindparam("key_id"))
_OPEN: Final = frozenset({DeliveryState.WAITING, DeliveryState.WITHDRAWN})
"""States of a try that nobody has settled."""
_STATE_OF = select(requests.c.state, requests.c.finished_at).where(
    requests.c.id == bindparam("request_id")
)
_NEXT_OF = (
    select(_n.sequence)
    .where(_n.request_id == bindparam("of"), _IS_PROMPT, _n.owner == bindparam("to"), is_waiting)
    .order_by(_n.next_at, _n.sequence)
    .limit(1)
    .scalar_subquery()
)
_HASTEN = (
    update(notifications)
    .where(_n.sequence == _NEXT_OF, _n.next_at > bindparam("now"))
    .values(next_at=bindparam("now"))
)
DUE = (
    select(notifications)
    .where(is_waiting, _n.next_at <= bindparam("now"))
    .order_by(_n.next_at, _n.sequence)
    .limit(bindparam("limit"))
)
NEXT = select(func.min(_n.next_at)).where(is_waiting)
OF_REQUEST = (
    select(notifications).where(_n.request_id == bindparam("request_id")).order_by(_n.sequence)
)
_SENT_TO = (
    _n.channel == bindparam("channel"),
    _n.owner == bindparam("owner"),
    _IS_PROMPT,
    _n.state == DeliveryState.DELIVERED.value,
)
# Two looks, an index each: a person may answer either message of a prompt.
BY_REFERENCE = union_all(
    select(notifications).where(*_SENT_TO, _n.reference == bindparam("reference")),
    select(notifications).where(*_SENT_TO, _n.answer_reference == bindparam("reference")),
)
WAITING = select(_n.channel, func.count()).where(is_waiting).group_by(_n.channel)


def add(connection: Connection, made: Iterable[Notification]) -> None:
    """Store notifications of any requests.

    One of a request that is gone is left out; a prompt of one that is decided is kept withdrawn.
    """
    found: dict[str, State | None] = {}
    for one in made:
        if one.request_id not in found:
            row = connection.execute(_STATE_OF, {"request_id": one.request_id}).one_or_none()
            found[one.request_id] = None if row is None else State(row.state)
        state = found[one.request_id]
        if state is not None:
            add_to(connection, [one], state)


def add_to(connection: Connection, made: Sequence[Notification], state: State) -> None:
    """Store notifications of requests that are in `state`."""
    if made:
        connection.execute(_ADD, [_row(_as_of(one, state)) for one in made])


def withdraw_and_tell(
    connection: Connection, request_id: str, *, has_left_pending: bool, ended: datetime | None
) -> None:
    """Withdraw the prompts of a request that left `pending`; tell its end to whom one has reached.

    A request without prompts costs one look at an index.
    """
    prompts = connection.execute(_PROMPTS, {"request_id": request_id}).all()
    if has_left_pending and any(row.state == DeliveryState.WAITING.value for row in prompts):
        connection.execute(_WITHDRAW, {"of": request_id})
    reached = [row for row in prompts if row.state == DeliveryState.DELIVERED.value]
    if ended is not None and reached:
        made = [_outcome(request_id, row.owner, row.channel, ended) for row in reached]
        connection.execute(_ADD, [_row(one) for one in made])


def settle(connection: Connection, tried: Notification, expected_tries: int) -> bool:
    """Store what a try came to, as `RequestStore.settle_notification` says."""
    row = connection.execute(_BY_ID, {"id": tried.id}).one_or_none()
    if row is None or row.tries != expected_tries:
        return False
    stored = read(row)
    if stored.state not in _OPEN:
        return False
    is_delivered = tried.state is DeliveryState.DELIVERED
    stays_withdrawn = stored.state is DeliveryState.WITHDRAWN and not is_delivered
    state = stored.state if stays_withdrawn else tried.state
    values = _tried_row(replace(tried, state=state))
    connection.execute(_SETTLE, {**values, "key_id": stored.id})
    if is_delivered and stored.kind is Kind.PROMPT:
        _tell_late(connection, stored)
    return True


def hasten(connection: Connection, request_id: str, owner: str, now: datetime) -> None:
    """Make the owner's waiting prompt that is next due, due now, unless it is already."""
    keys = {"of": request_id, "to": owner.casefold(), "now": rows.microseconds(now)}
    connection.execute(_HASTEN, keys)


def read(row: Row[Any]) -> Notification:
    """Return the notification of a row.

    Raises:
        RowError: the row is not one that this module wrote.
    """
    try:
        return Notification(
            id=row.id,
            request_id=row.request_id,
            kind=Kind(row.kind),
            owner=row.owner,
            channel=row.channel,
            state=DeliveryState(row.state),
            created_at=rows.instant(row.created_at),
            next_at=rows.instant(row.next_at),
            tries=row.tries,
            delivered_at=rows.optional_instant(row.delivered_at),
            reference=row.reference,
            failure=None if row.failure is None else Failure(row.failure),
            answer_reference=row.answer_reference,
        )
    except (ValueError, TypeError) as error:
        message = f"the row of notification {row.id!r} cannot be read: {error!r}"
        raise rows.RowError(message) from error


def of_request(connection: Connection, request_id: str) -> Notifications:
    """Return all notifications of a request, in the order in which they were made."""
    return [read(row) for row in connection.execute(OF_REQUEST, {"request_id": request_id})]


def due(connection: Connection, now: datetime, limit: int) -> Notifications:
    """Return waiting notifications that are due, the longest due first."""
    keys = {"now": rows.microseconds(now), "limit": limit}
    return [read(row) for row in connection.execute(DUE, keys)]


def next_due(connection: Connection) -> datetime | None:
    """Return when the next waiting notification is due."""
    return rows.optional_instant(connection.execute(NEXT).scalar_one())


def by_reference(
    connection: Connection, owner: str, channel: str, reference: str
) -> Notification | None:
    """Return the delivered prompt one of whose messages the channel calls `reference`.

    The newest, if there are several.
    """
    keys = {"owner": owner.casefold(), "channel": channel, "reference": reference}
    found = connection.execute(BY_REFERENCE, keys).all()
    return read(max(found, key=lambda row: row.sequence)) if found else None


def waiting(connection: Connection) -> dict[str, int]:
    """Return how many notifications wait, by channel."""
    return {row[0]: row[1] for row in connection.execute(WAITING)}


def _tell_late(connection: Connection, delivered: Notification) -> None:
    """Tell the end of a request that ended while its prompt was on the way."""
    key = {"request_id": delivered.request_id}
    ended = connection.execute(_STATE_OF, key).one().finished_at
    if ended is not None:
        made = _outcome(
            delivered.request_id, delivered.owner, delivered.channel, rows.instant(ended)
        )
        connection.execute(_ADD, _row(made))


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


def _row(made: Notification) -> rows.Values:
    return {
        "id": made.id,
        "request_id": made.request_id,
        "kind": made.kind.value,
        "owner": made.owner.casefold(),
        "channel": made.channel,
        "created_at": rows.microseconds(made.created_at),
        **_tried_row(made),
    }


def _tried_row(tried: Notification) -> rows.Values:
    """Return the columns that a try may change, and no other."""
    return {
        "state": tried.state.value,
        "next_at": rows.microseconds(tried.next_at),
        "tries": tried.tries,
        "delivered_at": rows.optional_microseconds(tried.delivered_at),
        "reference": tried.reference,
        "failure": None if tried.failure is None else tried.failure.value,
        "answer_reference": tried.answer_reference,
    }
