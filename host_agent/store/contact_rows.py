"""Contacts and enrolments as rows: where an owner is reached, and who may say where.

An owner has one enrolled contact a channel. Beside it stand the addresses that only the
configuration names and that were disabled: such a mark goes when that address is enrolled anew.
"""

from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, delete, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or

from host_agent.requests.notification import Contact, Failure
from host_agent.store import rows
from host_agent.store.port import Contacts
from host_agent.store.schema import contacts, enrolments

_c = contacts.c
_e = enrolments.c
ALL = select(contacts).order_by(_c.owner, _c.channel, _c.is_enrolled, _c.address)
BY_ADDRESS = select(contacts).where(
    _c.channel == bindparam("channel"), _c.address == bindparam("address")
)
_ADD = insert(contacts)
_REPLACE = delete(contacts).where(
    _c.owner == bindparam("owner"),
    _c.channel == bindparam("channel"),
    or_(_c.is_enrolled == 1, _c.address == bindparam("address")),
)
_DISABLE = (
    update(contacts)
    .where(
        and_(
            _c.owner == bindparam("of"),
            _c.channel == bindparam("over"),
            _c.address == bindparam("at"),
        )
    )
    .values(disabled=bindparam("why"))
)
_OFFER = insert_or(enrolments).prefix_with("OR REPLACE")
OFFERED = select(enrolments).where(
    _e.channel == bindparam("channel"), _e.code_hash == bindparam("hash")
)
_USE_UP = delete(enrolments).where(
    _e.owner == bindparam("owner"), _e.channel == bindparam("channel")
)


def all_of(connection: Connection) -> Contacts:
    """Return every enrolled contact, and every disabled one; by owner and channel."""
    return [_read(row) for row in connection.execute(ALL)]


def put(connection: Connection, contact: Contact) -> bool:
    """Store an enrolled contact; False if the address is another owner's on that channel."""
    owner = contact.owner.casefold()
    keys = {"channel": contact.channel, "address": contact.address}
    if any(row.owner != owner for row in connection.execute(BY_ADDRESS, keys)):
        return False
    connection.execute(_REPLACE, {"owner": owner, **keys})
    connection.execute(_ADD, _row(contact, is_enrolled=True))
    return True


def disable(connection: Connection, contact: Contact) -> bool:
    """Disable an owner's address for `contact.disabled`; False if it is disabled already."""
    owner = contact.owner.casefold()
    keys = {"channel": contact.channel, "address": contact.address}
    known = [row for row in connection.execute(BY_ADDRESS, keys) if row.owner == owner]
    if not known:
        connection.execute(_ADD, _row(contact, is_enrolled=False))
        return True
    if known[0].disabled is not None:
        return False
    why = None if contact.disabled is None else contact.disabled.value
    named = {"of": owner, "over": contact.channel, "at": contact.address}
    connection.execute(_DISABLE, {**named, "why": why})
    return True


def offer(
    connection: Connection,
    owner: str,
    channel: str,
    *,
    code_hash: str,
    expires_at: datetime,
    by: str,
) -> None:
    """Keep the hash of an enrolment code in place of the owner's older one on that channel."""
    values = {
        "owner": owner.casefold(),
        "channel": channel,
        "code_hash": code_hash,
        "expires_at": rows.microseconds(expires_at),
        "offered_by": by,
    }
    connection.execute(_OFFER, values)


def enrol(
    connection: Connection, channel: str, address: str, code_hash: str, now: datetime
) -> Contact | None:
    """Use up an enrolment code by storing its owner's contact; None leaves everything as it is."""
    offered = connection.execute(OFFERED, {"channel": channel, "hash": code_hash}).first()
    if offered is None or rows.microseconds(now) >= offered.expires_at:
        return None
    contact = Contact(
        owner=offered.owner,
        channel=channel,
        address=address,
        since=now,
        disabled=Failure.UNRECORDED,
        offered_by=offered.offered_by,
    )
    if not put(connection, contact):
        return None
    connection.execute(_USE_UP, {"owner": offered.owner, "channel": channel})
    return contact


def _row(contact: Contact, *, is_enrolled: bool) -> rows.Values:
    return {
        "owner": contact.owner.casefold(),
        "channel": contact.channel,
        "address": contact.address,
        "since": rows.microseconds(contact.since),
        "disabled": None if contact.disabled is None else contact.disabled.value,
        "is_enrolled": int(is_enrolled),
        "offered_by": contact.offered_by,
    }


def _read(row: Row[Any]) -> Contact:
    contact = Contact(
        owner=row.owner,
        channel=row.channel,
        address=row.address,
        since=rows.instant(row.since),
        offered_by=row.offered_by,
    )
    if row.disabled is None:
        return contact
    try:
        return replace(contact, disabled=Failure(row.disabled))
    except ValueError as error:
        message = f"the contact of {row.owner!r} on {row.channel} cannot be read: {error!r}"
        raise rows.RowError(message) from error
