"""Databases of before the store numbered its steps, in the words that made them.

SQLAlchemy and Alembic wrote these statements: `UPGRADES` those that brought a database to each
revision, `CREATED` those that made a new one at the last of them.
"""

import sqlite3
from pathlib import Path

UPGRADES = {
    "r0001": """\
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE requests (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    caller VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    serial VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    unix_user VARCHAR,
    operation VARCHAR NOT NULL,
    params TEXT NOT NULL,
    wish BLOB NOT NULL,
    resource TEXT,
    digest VARCHAR NOT NULL,
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
    PRIMARY KEY (sequence),
    CONSTRAINT ended_when_finished
        CHECK ((finished_at IS NULL) = (state IN ('approved', 'pending', 'running'))),
    UNIQUE (id)
);
CREATE UNIQUE INDEX live_digest ON requests (caller, digest) WHERE finished_at IS NULL;
CREATE INDEX live_wish ON requests (caller, wish, state) WHERE finished_at IS NULL;
CREATE INDEX live_expiry ON requests (expires_at, state) WHERE finished_at IS NULL;
CREATE INDEX ended_of_caller ON requests (caller, state, finished_at)
WHERE finished_at IS NOT NULL;
CREATE INDEX ended ON requests (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX by_caller ON requests (caller, sequence);
CREATE INDEX by_state ON requests (state, sequence);
CREATE TABLE outputs (
    request_id VARCHAR NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (request_id),
    FOREIGN KEY(request_id) REFERENCES requests (id) ON DELETE CASCADE
);
CREATE TABLE codes (
    request_id VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    code_hash VARCHAR NOT NULL,
    PRIMARY KEY (request_id, owner),
    FOREIGN KEY(request_id) REFERENCES requests (id) ON DELETE CASCADE
);
CREATE TABLE answers (
    sequence INTEGER NOT NULL,
    caller VARCHAR NOT NULL,
    "key" VARCHAR NOT NULL,
    body_sha256 VARCHAR NOT NULL,
    status INTEGER NOT NULL,
    body BLOB,
    size INTEGER NOT NULL,
    request_id VARCHAR,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (sequence)
);
CREATE UNIQUE INDEX answer_of_key ON answers (caller, "key");
CREATE INDEX answers_of_caller ON answers (caller, sequence, size);
CREATE INDEX answer_expiry ON answers (expires_at);
CREATE TABLE commits (
    id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (id)
);
INSERT INTO commits (id, count) VALUES (1, 0);
INSERT INTO alembic_version (version_num) VALUES ('r0001');
""",
    "r0002": """\
ALTER TABLE codes RENAME TO codes_before;
CREATE TABLE codes (
    request_id VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    channel VARCHAR NOT NULL,
    purpose VARCHAR NOT NULL,
    code_hash VARCHAR NOT NULL,
    is_spent INTEGER NOT NULL,
    PRIMARY KEY (request_id, owner, channel),
    FOREIGN KEY(request_id) REFERENCES requests (id) ON DELETE CASCADE
);
INSERT INTO codes (request_id, owner, channel, purpose, code_hash, is_spent)
SELECT request_id, owner, 'http', 'confirm', code_hash, 0
FROM codes_before;
DROP TABLE codes_before;
CREATE INDEX code_by_hash ON codes (code_hash);
CREATE TABLE notifications (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    request_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    channel VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    created_at INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    delivered_at INTEGER,
    reference TEXT,
    failure VARCHAR,
    PRIMARY KEY (sequence),
    UNIQUE (id),
    FOREIGN KEY(request_id) REFERENCES requests (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX notification_of_request ON notifications (request_id, kind, owner, channel);
CREATE INDEX waiting_notifications ON notifications (next_at) WHERE state = 'waiting';
CREATE INDEX notification_by_reference ON notifications (channel, owner, reference)
WHERE reference IS NOT NULL;
CREATE TABLE contacts (
    owner VARCHAR NOT NULL,
    channel VARCHAR NOT NULL,
    address VARCHAR NOT NULL,
    since INTEGER NOT NULL,
    disabled VARCHAR,
    is_enrolled INTEGER NOT NULL,
    offered_by VARCHAR,
    PRIMARY KEY (owner, channel, address)
);
CREATE INDEX contact_by_address ON contacts (channel, address);
CREATE TABLE enrolments (
    owner VARCHAR NOT NULL,
    channel VARCHAR NOT NULL,
    code_hash VARCHAR NOT NULL,
    expires_at INTEGER NOT NULL,
    offered_by VARCHAR NOT NULL,
    PRIMARY KEY (owner, channel)
);
CREATE INDEX enrolment_by_hash ON enrolments (channel, code_hash);
CREATE TABLE nonces (
    scope VARCHAR NOT NULL,
    nonce VARCHAR NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (scope, nonce)
);
CREATE INDEX nonce_expiry ON nonces (expires_at);
CREATE TABLE grants (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    request_id VARCHAR NOT NULL,
    caller VARCHAR NOT NULL,
    operation VARCHAR NOT NULL,
    resource TEXT NOT NULL,
    params TEXT NOT NULL,
    terms TEXT NOT NULL,
    consents TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    uses_left INTEGER,
    used INTEGER NOT NULL,
    revoked_at INTEGER,
    revoked_by VARCHAR,
    PRIMARY KEY (sequence),
    CONSTRAINT uses_are_counted CHECK (uses_left >= 0),
    UNIQUE (id)
);
CREATE INDEX grants_of_caller ON grants (caller, operation, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX grants_by_time ON grants (created_at);
CREATE INDEX grant_expiry ON grants (expires_at);
CREATE TABLE releases (
    caller VARCHAR NOT NULL,
    released_at INTEGER NOT NULL,
    released_by VARCHAR NOT NULL,
    PRIMARY KEY (caller)
);
CREATE INDEX live_operation ON requests (caller, operation) WHERE finished_at IS NULL;
UPDATE alembic_version SET version_num='r0002' WHERE alembic_version.version_num = 'r0001';
""",
    "r0003": """\
ALTER TABLE notifications ADD COLUMN answer_reference TEXT;
CREATE INDEX notification_by_answer_reference ON notifications (channel, owner, answer_reference)
WHERE answer_reference IS NOT NULL;
CREATE INDEX ended_of_resource ON requests (operation, resource, finished_at)
WHERE finished_at IS NOT NULL;
UPDATE alembic_version SET version_num='r0003' WHERE alembic_version.version_num = 'r0002';
""",
    "r0004": """\
ALTER TABLE requests ADD COLUMN issued TEXT;
UPDATE alembic_version SET version_num='r0004' WHERE alembic_version.version_num = 'r0003';
""",
}
CREATED = """\
CREATE TABLE requests (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    caller VARCHAR NOT NULL,
    fingerprint VARCHAR NOT NULL,
    serial VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    unix_user VARCHAR,
    operation VARCHAR NOT NULL,
    params TEXT NOT NULL,
    wish BLOB NOT NULL,
    resource TEXT,
    digest VARCHAR NOT NULL,
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
    PRIMARY KEY (sequence),
    CONSTRAINT ended_when_finished
        CHECK ((finished_at IS NULL) = (state IN ('approved', 'pending', 'running'))),
    UNIQUE (id)
);
CREATE INDEX ended_of_caller ON requests (caller, state, finished_at)
WHERE finished_at IS NOT NULL;
CREATE INDEX by_state ON requests (state, sequence);
CREATE INDEX live_wish ON requests (caller, wish, state) WHERE finished_at IS NULL;
CREATE INDEX ended ON requests (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX live_operation ON requests (caller, operation) WHERE finished_at IS NULL;
CREATE INDEX ended_of_resource ON requests (operation, resource, finished_at)
WHERE finished_at IS NOT NULL;
CREATE INDEX by_caller ON requests (caller, sequence);
CREATE INDEX live_expiry ON requests (expires_at, state) WHERE finished_at IS NULL;
CREATE UNIQUE INDEX live_digest ON requests (caller, digest) WHERE finished_at IS NULL;
CREATE TABLE contacts (
    owner VARCHAR NOT NULL,
    channel VARCHAR NOT NULL,
    address VARCHAR NOT NULL,
    since INTEGER NOT NULL,
    disabled VARCHAR,
    is_enrolled INTEGER NOT NULL,
    offered_by VARCHAR,
    PRIMARY KEY (owner, channel, address)
);
CREATE INDEX contact_by_address ON contacts (channel, address);
CREATE TABLE enrolments (
    owner VARCHAR NOT NULL,
    channel VARCHAR NOT NULL,
    code_hash VARCHAR NOT NULL,
    expires_at INTEGER NOT NULL,
    offered_by VARCHAR NOT NULL,
    PRIMARY KEY (owner, channel)
);
CREATE INDEX enrolment_by_hash ON enrolments (channel, code_hash);
CREATE TABLE nonces (
    scope VARCHAR NOT NULL,
    nonce VARCHAR NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (scope, nonce)
);
CREATE INDEX nonce_expiry ON nonces (expires_at);
CREATE TABLE grants (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    request_id VARCHAR NOT NULL,
    caller VARCHAR NOT NULL,
    operation VARCHAR NOT NULL,
    resource TEXT NOT NULL,
    params TEXT NOT NULL,
    terms TEXT NOT NULL,
    consents TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    uses_left INTEGER,
    used INTEGER NOT NULL,
    revoked_at INTEGER,
    revoked_by VARCHAR,
    PRIMARY KEY (sequence),
    CONSTRAINT uses_are_counted CHECK (uses_left >= 0),
    UNIQUE (id)
);
CREATE INDEX grants_of_caller ON grants (caller, operation, expires_at) WHERE revoked_at IS NULL;
CREATE INDEX grants_by_time ON grants (created_at);
CREATE INDEX grant_expiry ON grants (expires_at);
CREATE TABLE releases (
    caller VARCHAR NOT NULL,
    released_at INTEGER NOT NULL,
    released_by VARCHAR NOT NULL,
    PRIMARY KEY (caller)
);
CREATE TABLE answers (
    sequence INTEGER NOT NULL,
    caller VARCHAR NOT NULL,
    "key" VARCHAR NOT NULL,
    body_sha256 VARCHAR NOT NULL,
    status INTEGER NOT NULL,
    body BLOB,
    size INTEGER NOT NULL,
    request_id VARCHAR,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (sequence)
);
CREATE INDEX answers_of_caller ON answers (caller, sequence, size);
CREATE UNIQUE INDEX answer_of_key ON answers (caller, "key");
CREATE INDEX answer_expiry ON answers (expires_at);
CREATE TABLE commits (
    id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (id)
);
CREATE TABLE outputs (
    request_id VARCHAR NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (request_id),
    FOREIGN KEY(request_id) REFERENCES requests (id) ON DELETE CASCADE
);
CREATE TABLE codes (
    request_id VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    channel VARCHAR NOT NULL,
    purpose VARCHAR NOT NULL,
    code_hash VARCHAR NOT NULL,
    is_spent INTEGER NOT NULL,
    PRIMARY KEY (request_id, owner, channel),
    FOREIGN KEY(request_id) REFERENCES requests (id) ON DELETE CASCADE
);
CREATE INDEX code_by_hash ON codes (code_hash);
CREATE TABLE notifications (
    sequence INTEGER NOT NULL,
    id VARCHAR NOT NULL,
    request_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    channel VARCHAR NOT NULL,
    state VARCHAR NOT NULL,
    created_at INTEGER NOT NULL,
    next_at INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    delivered_at INTEGER,
    reference TEXT,
    failure VARCHAR,
    answer_reference TEXT,
    PRIMARY KEY (sequence),
    UNIQUE (id),
    FOREIGN KEY(request_id) REFERENCES requests (id) ON DELETE CASCADE
);
CREATE UNIQUE INDEX notification_of_request ON notifications (request_id, kind, owner, channel);
CREATE INDEX notification_by_answer_reference ON notifications (channel, owner, answer_reference)
WHERE answer_reference IS NOT NULL;
CREATE INDEX waiting_notifications ON notifications (next_at) WHERE state = 'waiting';
CREATE INDEX notification_by_reference ON notifications (channel, owner, reference)
WHERE reference IS NOT NULL;
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    PRIMARY KEY (version_num)
);
INSERT INTO commits (id, count) VALUES (1, 0);
INSERT INTO alembic_version (version_num) VALUES ('r0004');
"""


def make(path: Path, revision: str) -> sqlite3.Connection:
    """Return a connection to a new database as the migrations left it at `revision`."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    for each, statements in UPGRADES.items():
        connection.executescript(statements)
        if each == revision:
            return connection
    raise ValueError(revision)


def make_new(path: Path) -> sqlite3.Connection:
    """Return a connection to a new database as it was made at once, at `r0004`."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(CREATED)
    return connection
