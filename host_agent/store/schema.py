"""The tables of the request store, and how a database comes to have them.

A new database gets the newest tables at once and is stamped; an older one is migrated; one of a
newer program is refused, untouched. Instants are integers: microseconds since 1970, UTC.
"""

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    insert,
    inspect,
    literal_column,
    select,
)

from host_agent.requests.model import LIVE

REVISIONS = ("r0001", "r0002", "r0003", "r0004")
"""Every revision of the tables, oldest first; the last is the one that this program works with."""
HEAD = REVISIONS[-1]

metadata = MetaData()

_LIVE_STATES = ", ".join(f"'{state.value}'" for state in sorted(LIVE))

requests = Table(
    "requests",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("state", String, nullable=False),
    Column("caller", String, nullable=False),
    Column("fingerprint", String, nullable=False),
    Column("serial", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("unix_user", String),
    Column("operation", String, nullable=False),
    Column("params", Text, nullable=False),
    Column("wish", LargeBinary, nullable=False, comment="hash of operation and parameters"),
    Column("resource", Text),
    Column("digest", String, nullable=False),
    Column("rule", Text, nullable=False),
    Column("reason", Text),
    Column("terms", Text, nullable=False),
    Column("precondition", Text),
    Column("preview", Text),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("decisions", Text, nullable=False),
    Column("outcome", Text),
    Column("problem", Text),
    Column("finished_at", Integer),
    Column("version", Integer, nullable=False),
    Column("issued", Text, comment="authority and end of the certificate, as JSON"),
    CheckConstraint(
        f"(finished_at IS NULL) = (state IN ({_LIVE_STATES}))", name="ended_when_finished"
    ),
)
_is_live = requests.c.finished_at.is_(None)
_has_ended = requests.c.finished_at.is_not(None)
# Live requests are few, whatever the history: these indexes hold only them. Naming another
# dialect here would import it: 3 MiB of an idle agent.
Index(
    "live_digest",
    requests.c.caller,
    requests.c.digest,
    unique=True,
    sqlite_where=_is_live,
)
Index(
    "live_wish",
    requests.c.caller,
    requests.c.wish,
    requests.c.state,
    sqlite_where=_is_live,
)
Index(
    "live_operation",
    requests.c.caller,
    requests.c.operation,
    sqlite_where=_is_live,
)
Index(
    "live_expiry",
    requests.c.expires_at,
    requests.c.state,
    sqlite_where=_is_live,
)
Index(
    "ended_of_caller",
    requests.c.caller,
    requests.c.state,
    requests.c.finished_at,
    sqlite_where=_has_ended,
)
Index("ended", requests.c.finished_at, sqlite_where=_has_ended)
Index(
    "ended_of_resource",
    requests.c.operation,
    requests.c.resource,
    requests.c.finished_at,
    sqlite_where=_has_ended,
)
Index("by_caller", requests.c.caller, requests.c.sequence)
Index("by_state", requests.c.state, requests.c.sequence)

outputs = Table(
    "outputs",
    metadata,
    Column("request_id", String, ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("body", LargeBinary, nullable=False, comment="zlib of stdout, stderr and data as JSON"),
)

codes = Table(
    "codes",
    metadata,
    Column("request_id", String, ForeignKey("requests.id", ondelete="CASCADE"), primary_key=True),
    Column("owner", String, primary_key=True),
    Column("channel", String, primary_key=True),
    Column("purpose", String, nullable=False),
    Column("code_hash", String, nullable=False),
    Column("is_spent", Integer, nullable=False, comment="1: the request has left pending"),
)
Index("code_by_hash", codes.c.code_hash)

notifications = Table(
    "notifications",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("request_id", String, ForeignKey("requests.id", ondelete="CASCADE"), nullable=False),
    Column("kind", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("channel", String, nullable=False),
    Column("state", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("next_at", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("delivered_at", Integer),
    Column("reference", Text),
    Column("failure", String),
    Column("answer_reference", Text, comment="of the second message, which holds the code"),
)
# Bound values cannot choose a partial index, so what asks for these writes the state out as well.
is_waiting = notifications.c.state == literal_column("'waiting'", String)
Index(
    "notification_of_request",
    notifications.c.request_id,
    notifications.c.kind,
    notifications.c.owner,
    notifications.c.channel,
    unique=True,
)
Index("waiting_notifications", notifications.c.next_at, sqlite_where=is_waiting)
Index(
    "notification_by_reference",
    notifications.c.channel,
    notifications.c.owner,
    notifications.c.reference,
    sqlite_where=notifications.c.reference.is_not(None),
)
Index(
    "notification_by_answer_reference",
    notifications.c.channel,
    notifications.c.owner,
    notifications.c.answer_reference,
    sqlite_where=notifications.c.answer_reference.is_not(None),
)

contacts = Table(
    "contacts",
    metadata,
    Column("owner", String, primary_key=True),
    Column("channel", String, primary_key=True),
    Column("address", String, primary_key=True),
    Column("since", Integer, nullable=False),
    Column("disabled", String),
    Column("is_enrolled", Integer, nullable=False, comment="0: only the configuration names it"),
    Column("offered_by", String),
)
Index("contact_by_address", contacts.c.channel, contacts.c.address)

enrolments = Table(
    "enrolments",
    metadata,
    Column("owner", String, primary_key=True),
    Column("channel", String, primary_key=True),
    Column("code_hash", String, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("offered_by", String, nullable=False),
)
Index("enrolment_by_hash", enrolments.c.channel, enrolments.c.code_hash)

nonces = Table(
    "nonces",
    metadata,
    Column("scope", String, primary_key=True),
    Column("nonce", String, primary_key=True),
    Column("expires_at", Integer, nullable=False),
)
Index("nonce_expiry", nonces.c.expires_at)

# A grant outlives its request, so it does not refer to it.
grants = Table(
    "grants",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("request_id", String, nullable=False),
    Column("caller", String, nullable=False),
    Column("operation", String, nullable=False),
    Column("resource", Text, nullable=False),
    Column("params", Text, nullable=False),
    Column("terms", Text, nullable=False),
    Column("consents", Text, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("expires_at", Integer, nullable=False),
    Column("uses_left", Integer),
    Column("used", Integer, nullable=False),
    Column("revoked_at", Integer),
    Column("revoked_by", String),
    CheckConstraint("uses_left >= 0", name="uses_are_counted"),
)
Index(
    "grants_of_caller",
    grants.c.caller,
    grants.c.operation,
    grants.c.expires_at,
    sqlite_where=grants.c.revoked_at.is_(None),
)
Index("grants_by_time", grants.c.created_at)
Index("grant_expiry", grants.c.expires_at)

releases = Table(
    "releases",
    metadata,
    Column("caller", String, primary_key=True),
    Column("released_at", Integer, nullable=False),
    Column("released_by", String, nullable=False),
)

answers = Table(
    "answers",
    metadata,
    Column("sequence", Integer, primary_key=True),
    Column("caller", String, nullable=False),
    Column("key", String, nullable=False),
    Column("body_sha256", String, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", LargeBinary, comment="zlib of the answer as JSON"),
    Column("size", Integer, nullable=False),
    Column("request_id", String),
    Column("expires_at", Integer, nullable=False),
)
Index("answer_of_key", answers.c.caller, answers.c.key, unique=True)
Index("answers_of_caller", answers.c.caller, answers.c.sequence, answers.c.size)
Index("answer_expiry", answers.c.expires_at)

commits = Table(
    "commits",
    metadata,
    Column("id", Integer, primary_key=True, comment="1: there is one row"),
    Column("count", Integer, nullable=False),
)

_stamps = MetaData()
_stamp = Table("alembic_version", _stamps, Column("version_num", String(32), primary_key=True))


class SchemaError(Exception):
    """The database is not one that this program can work with; the message says why."""


def prepare(connection: Connection) -> None:
    """Bring the database to `HEAD`. The caller holds a write transaction, so that one agent does.

    Raises:
        SchemaError: the tables are of a newer program, or of another one.
    """
    found = set(inspect(connection).get_table_names())
    if not found:
        create(connection)
        return
    if _stamp.name not in found:
        message = "the file is a database of another program"
        raise SchemaError(message)
    revision = connection.execute(select(_stamp.c.version_num)).scalar_one_or_none()
    if revision == HEAD:
        return
    if revision not in REVISIONS:
        message = "the file was written by a newer version of host-agent; run that version"
        raise SchemaError(message)
    migrate(connection)


def create(connection: Connection) -> None:
    """Make the newest tables in an empty database and stamp it with `HEAD`."""
    metadata.create_all(connection)
    _stamps.create_all(connection)
    connection.execute(insert(commits).values(id=1, count=0))
    connection.execute(insert(_stamp).values(version_num=HEAD))


def migrate(connection: Connection, *, target: str = "head") -> None:
    """Run the migrations that are missing up to `target`, inside the caller's transaction.

    Alembic is imported here, because a start without migrations should not pay for it.
    """
    from alembic import command
    from alembic.config import Config

    location = Path(__file__).with_name("migrations")
    config = Config()
    config.set_main_option("script_location", str(location).replace("%", "%%"))
    config.attributes["connection"] = connection
    upgrade: Callable[[Config, str], None] = command.upgrade
    upgrade(config, target)
