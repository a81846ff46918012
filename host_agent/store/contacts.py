"""Contacts and enrolments: where an owner is reached, and who may say where.

An owner has one enrolled contact a channel. Beside it stand the addresses that only the
configuration names and that were disabled: such a mark goes when that address is enrolled anew.
"""

from dataclasses import replace
from datetime import datetime
from sqlite3 import Connection, Row

from host_agent.requests.notification import Contact, Failure
from host_agent.store.codec import RowError, Values, instant, microseconds

_ALL = "SELECT * FROM contacts ORDER BY owner, channel, is_enrolled, address"


def all_of(connection: Connection) -> list[Contact]:
    """Return every enrolled contact, and every disabled one; by owner and channel."""
    return [_read(row) for row in connection.execute(_ALL)]


_BY_ADDRESS = "SELECT * FROM contacts WHERE channel = :channel AND address = :address"
_REMOVE = """
DELETE FROM contacts
WHERE owner = :owner AND channel = :channel AND (is_enrolled = 1 OR address = :address)
"""
_ADD = """
INSERT INTO contacts (owner, channel, address, since, disabled, is_enrolled, offered_by)
VALUES (:owner, :channel, :address, :since, :disabled, :is_enrolled, :offered_by)
"""


def put(connection: Connection, contact: Contact) -> bool:
    """Store a contact in place of the owner's older one on that channel.

    False if the address is another owner's on that channel; nothing was stored then.
    """
    row = _row(contact, is_enrolled=True)
    if any(known["owner"] != row["owner"] for known in connection.execute(_BY_ADDRESS, row)):
        return False
    connection.execute(_REMOVE, row)
    connection.execute(_ADD, row)
    return True


_DISABLE = """
UPDATE contacts SET disabled = :disabled
WHERE owner = :owner AND channel = :channel AND address = :address
"""


def disable(
    connection: Connection,
    owner: str,
    channel: str,
    address: str,
    *,
    failure: Failure,
    now: datetime,
) -> bool:
    """Disable an owner's contact at `address`, also one that only the configuration names.

    False if it was disabled already.
    """
    contact = Contact(owner=owner, channel=channel, address=address, since=now, disabled=failure)
    row = _row(contact, is_enrolled=False)
    at_address = connection.execute(_BY_ADDRESS, row).fetchall()
    known = [one for one in at_address if one["owner"] == row["owner"]]
    if not known:
        connection.execute(_ADD, row)
        return True
    if known[0]["disabled"] is not None:
        return False
    connection.execute(_DISABLE, row)
    return True


_OFFER = """
INSERT OR REPLACE INTO enrolments (owner, channel, code_hash, expires_at, offered_by)
VALUES (:owner, :channel, :code_hash, :expires_at, :offered_by)
"""


def offer(
    connection: Connection,
    owner: str,
    channel: str,
    *,
    code_hash: str,
    expires_at: datetime,
    by: str,
) -> None:
    """Keep the hash of a one-time enrolment code, in place of the owner's older one.

    `by` is the owner of the admin who offers it; the contact keeps it.
    """
    values = {
        "owner": owner.casefold(),
        "channel": channel,
        "code_hash": code_hash,
        "expires_at": microseconds(expires_at),
        "offered_by": by,
    }
    connection.execute(_OFFER, values)


_OFFERED = "SELECT * FROM enrolments WHERE channel = :channel AND code_hash = :code_hash"
_USE_UP = "DELETE FROM enrolments WHERE owner = :owner AND channel = :channel"


def enrol(
    connection: Connection, channel: str, address: str, *, code_hash: str, now: datetime
) -> Contact | None:
    """Use up an enrolment code and store its owner's contact, in one transaction.

    It is disabled as `unrecorded` until `put` says otherwise: it counts once it is written down
    that it does.

    None if there is no such code, it is expired, or the address is another owner's; a code is used
    up by success only.
    """
    keys = {"channel": channel, "code_hash": code_hash}
    offered = connection.execute(_OFFERED, keys).fetchone()
    if offered is None or microseconds(now) >= offered["expires_at"]:
        return None
    contact = Contact(
        owner=offered["owner"],
        channel=channel,
        address=address,
        since=now,
        disabled=Failure.UNRECORDED,
        offered_by=offered["offered_by"],
    )
    if not put(connection, contact):
        return None
    connection.execute(_USE_UP, {"owner": offered["owner"], "channel": channel})
    return contact


def _row(contact: Contact, *, is_enrolled: bool) -> Values:
    return {
        "owner": contact.owner.casefold(),
        "channel": contact.channel,
        "address": contact.address,
        "since": microseconds(contact.since),
        "disabled": None if contact.disabled is None else contact.disabled.value,
        "is_enrolled": int(is_enrolled),
        "offered_by": contact.offered_by,
    }


def _read(row: Row) -> Contact:
    contact = Contact(
        owner=row["owner"],
        channel=row["channel"],
        address=row["address"],
        since=instant(row["since"]),
        offered_by=row["offered_by"],
    )
    if row["disabled"] is None:
        return contact
    try:
        return replace(contact, disabled=Failure(row["disabled"]))
    except ValueError as error:
        message = f"the contact of {row['owner']!r} on {row['channel']} cannot be read: {error!r}"
        raise RowError(message) from error
