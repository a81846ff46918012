"""The hashes of the codes that are out, as rows: one a request, owner and channel.

A code dies with the decision: its row stays, spent, so that its holder can be told what became of
the request, and goes when the request is purged.
"""

from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update
from sqlalchemy.dialects.sqlite import insert as insert_or

from host_agent.requests.model import State
from host_agent.requests.notification import CodeHash, Purpose
from host_agent.store import queries, rows
from host_agent.store.port import CodeHashes
from host_agent.store.schema import codes

_c = codes.c
_ADD = insert_or(codes).prefix_with("OR REPLACE")
_SPEND = update(codes).where(_c.request_id == bindparam("of")).values(is_spent=1)
OF_REQUEST = (
    select(codes)
    .where(_c.request_id == bindparam("request_id"), _c.is_spent == 0)
    .order_by(_c.owner, _c.channel)
)
BY_HASH = select(codes).where(_c.code_hash == bindparam("hash")).order_by(_c.is_spent).limit(1)


def add(connection: Connection, code: CodeHash) -> bool:
    """Keep a hash in place of an older one; False if the request is not pending."""
    stored = queries.stored_state(connection, code.request_id)
    if stored is None or stored[0] is not State.PENDING:
        return False
    values = {
        "request_id": code.request_id,
        "owner": code.owner.casefold(),
        "channel": code.channel,
        "purpose": code.purpose.value,
        "code_hash": code.code_hash,
        "is_spent": 0,
    }
    connection.execute(_ADD, values)
    return True


def spend(connection: Connection, request_id: str) -> None:
    """Let all codes of a request die: it has left `pending`."""
    connection.execute(_SPEND, {"of": request_id})


def of_request(connection: Connection, request_id: str) -> CodeHashes:
    """Return the hashes of the codes that are out for a request, spent ones left out."""
    return [_read(row) for row in connection.execute(OF_REQUEST, {"request_id": request_id})]


def by_hash(connection: Connection, code_hash: str) -> CodeHash | None:
    """Return what a hash belongs to, also where it is spent."""
    row = connection.execute(BY_HASH, {"hash": code_hash}).one_or_none()
    return None if row is None else _read(row)


def _read(row: Row[Any]) -> CodeHash:
    try:
        purpose = Purpose(row.purpose)
    except ValueError as error:
        message = f"a code of request {row.request_id!r} cannot be read: {error!r}"
        raise rows.RowError(message) from error
    return CodeHash(
        request_id=row.request_id,
        owner=row.owner,
        channel=row.channel,
        purpose=purpose,
        code_hash=row.code_hash,
        is_spent=bool(row.is_spent),
    )
