"""The tables of the request store in numbered steps, and how a database comes to have them.

A new database is made by all steps, an older one by those that it lacks; one of a newer program is
refused, untouched. SQLite keeps the number of the last step in the file (`PRAGMA user_version`),
beside the mark of this program (`PRAGMA application_id`). Instants are integers: microseconds since
1970, UTC.
"""

from collections.abc import Mapping
from sqlite3 import Connection
from typing import Final

_LIVE_OPERATION = """
CREATE INDEX live_operation ON requests (caller, operation) WHERE finished_at IS NULL
"""
_ENDED_OF_RESOURCE = """
CREATE INDEX ended_of_resource ON requests (operation, resource, finished_at)
WHERE finished_at IS NOT NULL
"""
# Live requests are few, whatever the history: the indexes that begin with `live` hold only them.
# `wish`, `request_key` by the second step, is a hash of operation and parameters; `issued` are
# authority and end of the certificate.
_REQUESTS = (
    """
CREATE TABLE requests (
    sequence INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    caller TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    serial TEXT NOT NULL,
    owner TEXT NOT NULL,
    unix_user TEXT,
    operation TEXT NOT NULL,
    params TEXT NOT NULL,
    wish BLOB NOT NULL,
    resource TEXT,
    digest TEXT NOT NULL,
    rule TEXT NOT NULL,
    reason TEXT,
    terms TEXT NOT NULL,
    precondition TEXT,
    preview TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    decisions TEXT NOT NULL,
    outcome TEXT,
    problem TEXT,
    finished_at INTEGER,
    version INTEGER NOT NULL,
    issued TEXT,
    CONSTRAINT ended_when_finished
        CHECK ((finished_at IS NULL) = (state IN ('approved', 'pending', 'running')))
)
""",
    """
CREATE UNIQUE INDEX live_digest ON requests (caller, digest) WHERE finished_at IS NULL
""",
    "CREATE INDEX live_wish ON requests (caller, wish, state) WHERE finished_at IS NULL",
    _LIVE_OPERATION,
    "CREATE INDEX live_expiry ON requests (expires_at, state) WHERE finished_at IS NULL",
    """
CREATE INDEX ended_of_caller ON requests (caller, state, finished_at)
WHERE finished_at IS NOT NULL
""",
    "CREATE INDEX ended ON requests (finished_at) WHERE finished_at IS NOT NULL",
    _ENDED_OF_RESOURCE,
    "CREATE INDEX by_caller ON requests (caller, sequence)",
    "CREATE INDEX by_state ON requests (state, sequence)",
    # `body` is zlib of stdout, stderr and data as JSON.
    """
CREATE TABLE outputs (
    request_id TEXT NOT NULL PRIMARY KEY REFERENCES requests (id) ON DELETE CASCADE,
    body BLOB NOT NULL
)
""",
)
# A code is spent once its request has left `pending`.
_CODES = (
    """
CREATE TABLE codes (
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    owner TEXT NOT NULL,
    channel TEXT NOT NULL,
    purpose TEXT NOT NULL,
    code_hash TEXT NOT NULL,
    is_spent INTEGER NOT NULL,
    PRIMARY KEY (request_id, owner, channel)
)
""",
    "CREATE INDEX code_by_hash ON codes (code_hash)",
)
_NOTIFICATION_BY_ANSWER_REFERENCE = """
CREATE INDEX notification_by_answer_reference ON notifications (channel, owner, answer_reference)
WHERE answer_reference IS NOT NULL
"""
# `answer_reference` is that of the second message, which holds the code.
_NOTIFICATIONS = (
    """
CREATE TABLE notifications (
    sequence INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    channel TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    delivered_at INTEGER,
    reference TEXT,
    failure TEXT,
    answer_reference TEXT
)
""",
    """
CREATE UNIQUE INDEX notification_of_request ON notifications (request_id, kind, owner, channel)
""",
    "CREATE INDEX waiting_notifications ON notifications (next_at) WHERE state = 'waiting'",
    """
CREATE INDEX notification_by_reference ON notifications (channel, owner, reference)
WHERE reference IS NOT NULL
""",
    _NOTIFICATION_BY_ANSWER_REFERENCE,
)
# Only the configuration names a contact that is not enrolled.
_CONTACTS = (
    """
CREATE TABLE contacts (
    owner TEXT NOT NULL,
    channel TEXT NOT NULL,
    address TEXT NOT NULL,
    since INTEGER NOT NULL,
    disabled TEXT,
    is_enrolled INTEGER NOT NULL,
    offered_by TEXT,
    PRIMARY KEY (owner, channel, address)
)
""",
    "CREATE INDEX contact_by_address ON contacts (channel, address)",
    """
CREATE TABLE enrolments (
    owner TEXT NOT NULL,
    channel TEXT NOT NULL,
    code_hash TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    offered_by TEXT NOT NULL,
    PRIMARY KEY (owner, channel)
)
""",
    "CREATE INDEX enrolment_by_hash ON enrolments (channel, code_hash)",
)
_NONCES = (
    """
CREATE TABLE nonces (
    scope TEXT NOT NULL,
    nonce TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (scope, nonce)
)
""",
    "CREATE INDEX nonce_expiry ON nonces (expires_at)",
)
# A grant outlives its request, so it does not refer to it.
_GRANTS = (
    """
CREATE TABLE grants (
    sequence INTEGER NOT NULL PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT NOT NULL,
    caller TEXT NOT NULL,
    operation TEXT NOT NULL,
    resource TEXT NOT NULL,
    params TEXT NOT NULL,
    terms TEXT NOT NULL,
    consents TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    uses_left INTEGER,
    used INTEGER NOT NULL,
    revoked_at INTEGER,
    revoked_by TEXT,
    CONSTRAINT uses_are_counted CHECK (uses_left >= 0)
)
""",
    """
CREATE INDEX grants_of_caller ON grants (caller, operation, expires_at) WHERE revoked_at IS NULL
""",
    "CREATE INDEX grants_by_time ON grants (created_at)",
    "CREATE INDEX grant_expiry ON grants (expires_at)",
)
_RELEASES = (
    """
CREATE TABLE releases (
    caller TEXT NOT NULL PRIMARY KEY,
    released_at INTEGER NOT NULL,
    released_by TEXT NOT NULL
)
""",
)
# `body` is zlib of the answer as JSON, `size` its length.
_ANSWERS = (
    """
CREATE TABLE answers (
    sequence INTEGER NOT NULL PRIMARY KEY,
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    body_sha256 TEXT NOT NULL,
    status INTEGER NOT NULL,
    body BLOB,
    size INTEGER NOT NULL,
    request_id TEXT,
    expires_at INTEGER NOT NULL
)
""",
    "CREATE UNIQUE INDEX answer_of_key ON answers (caller, key)",
    "CREATE INDEX answers_of_caller ON answers (caller, sequence, size)",
    "CREATE INDEX answer_expiry ON answers (expires_at)",
)
_COMMITS = (
    "CREATE TABLE commits (id INTEGER NOT NULL PRIMARY KEY, count INTEGER NOT NULL)",
    "INSERT INTO commits (id, count) VALUES (1, 0)",
)

_REQUEST_KEY = (
    "ALTER TABLE requests RENAME COLUMN wish TO request_key",
    "DROP INDEX live_wish",
    """
CREATE INDEX live_request_key ON requests (caller, request_key, state) WHERE finished_at IS NULL
""",
)

STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        *_REQUESTS,
        *_CODES,
        *_NOTIFICATIONS,
        *_CONTACTS,
        *_NONCES,
        *_GRANTS,
        *_RELEASES,
        *_ANSWERS,
        *_COMMITS,
    ),
    _REQUEST_KEY,
)
"""Statements by step: those at index n bring the tables from number n to number n + 1."""
APPLICATION_ID: Final = int.from_bytes(b"hoag")

# -- databases from before the numbers -------------------------------------------------------------

_STAMP = "alembic_version"
_ISSUED = "ALTER TABLE requests ADD COLUMN issued TEXT"
# A code of the first tables was typed by an approver with a certificate.
_CARRY_CODES = """
INSERT INTO codes (request_id, owner, channel, purpose, code_hash, is_spent)
SELECT request_id, owner, 'http', 'confirm', code_hash, 0 FROM codes_before
"""
REVISIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "r0001": (
        "ALTER TABLE codes RENAME TO codes_before",
        *_CODES,
        _CARRY_CODES,
        "DROP TABLE codes_before",
        *_NOTIFICATIONS,
        *_CONTACTS,
        *_NONCES,
        *_GRANTS,
        *_RELEASES,
        _LIVE_OPERATION,
        _ENDED_OF_RESOURCE,
        _ISSUED,
    ),
    "r0002": (
        "ALTER TABLE notifications ADD COLUMN answer_reference TEXT",
        _NOTIFICATION_BY_ANSWER_REFERENCE,
        _ENDED_OF_RESOURCE,
        _ISSUED,
    ),
    "r0003": (_ISSUED,),
    "r0004": (),
}
"""What the tables of each revision lack of the first step."""


class SchemaError(Exception):
    """The database is not one that this program can work with; the message says why."""


def prepare(connection: Connection) -> None:
    """Bring the database to the last step. The caller holds a write transaction, so one agent does.

    Raises:
        SchemaError: the tables are of a newer program, or of another one.
    """
    number = _number(connection)
    if number == len(STEPS):
        return
    if number > len(STEPS):
        raise SchemaError(_NEWER)
    if number == 0:
        number = _adopt(connection)
    for step in STEPS[number:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(STEPS)}")


def _number(connection: Connection) -> int:
    """Return the step that the tables are at; 0 where nothing says so."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (number,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID and number > 0:
        return int(number)
    if (application, number) != (0, 0):
        raise SchemaError(_FOREIGN)
    return 0


def _adopt(connection: Connection) -> int:
    """Return 0 for an empty database; bring one of a revision to the first step."""
    found = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    if not found:
        return 0
    if _STAMP not in found:
        raise SchemaError(_FOREIGN)
    stamped = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    statements = None if stamped is None else REVISIONS.get(stamped[0])
    if statements is None:
        raise SchemaError(_NEWER)
    for statement in statements:
        connection.execute(statement)
    connection.execute("DROP TABLE alembic_version")
    return 1


_NEWER = "the file was written by a newer version of host-agent; run that version"
_FOREIGN = "the file is a database of another program"
