"""The hashes of the codes that are out: one a request, owner and channel.

A code dies with the decision: its row stays, spent, so that its holder can be told what became of
the request, and goes when the request is purged.
"""

from sqlite3 import Connection, Row

from host_agent.requests.notification import CodeHash, Purpose
from host_agent.store.codec import RowError

_ADD = """
INSERT OR REPLACE INTO codes (request_id, owner, channel, purpose, code_hash, is_spent)
SELECT :request_id, :owner, :channel, :purpose, :code_hash, 0
FROM requests WHERE id = :request_id AND state = 'pending'
"""


def add(connection: Connection, code: CodeHash) -> bool:
    """Keep the hash of a code, in place of an older one of this request, owner and channel.

    False if the request is not pending: such a code must not be sent.
    """
    values = {
        "request_id": code.request_id,
        "owner": code.owner.casefold(),
        "channel": code.channel,
        "purpose": code.purpose.value,
        "code_hash": code.code_hash,
    }
    return connection.execute(_ADD, values).rowcount == 1


_SPEND = "UPDATE codes SET is_spent = 1 WHERE request_id = :request_id"


def spend(connection: Connection, request_id: str) -> None:
    """Let all codes of a request die: it has left `pending`."""
    connection.execute(_SPEND, {"request_id": request_id})


_OF_REQUEST = """
SELECT * FROM codes WHERE request_id = :request_id AND is_spent = 0 ORDER BY owner, channel
"""


def of_request(connection: Connection, request_id: str) -> list[CodeHash]:
    """Return the hashes of the codes that are out for a request, spent ones left out."""
    return [_read(row) for row in connection.execute(_OF_REQUEST, {"request_id": request_id})]


_BY_HASH = "SELECT * FROM codes WHERE code_hash = :code_hash ORDER BY is_spent LIMIT 1"


def by_hash(connection: Connection, code_hash: str) -> CodeHash | None:
    """Return what a hash belongs to, also where it is spent."""
    row = connection.execute(_BY_HASH, {"code_hash": code_hash}).fetchone()
    return None if row is None else _read(row)


def _read(row: Row) -> CodeHash:
    try:
        purpose = Purpose(row["purpose"])
    except ValueError as error:
        message = f"a code of request {row['request_id']!r} cannot be read: {error!r}"
        raise RowError(message) from error
    return CodeHash(
        request_id=row["request_id"],
        owner=row["owner"],
        channel=row["channel"],
        purpose=purpose,
        code_hash=row["code_hash"],
        is_spent=bool(row["is_spent"]),
    )
