"""Notifications, contacts, enrolments, nonces, grants, releases; a code belongs to a channel."""

import sqlalchemy as sa
from alembic import op

revision = "r0002"
down_revision: str | None = "r0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make the new tables and carry the codes over; requests get one more index."""
    _codes()
    _notifications()
    _contacts()
    _nonces()
    _grants()
    _releases()
    op.create_index(
        "live_operation",
        "requests",
        ["caller", "operation"],
        sqlite_where=sa.text("finished_at IS NULL"),
    )


def _codes() -> None:
    op.rename_table("codes", "codes_before")
    op.create_table(
        "codes",
        sa.Column("request_id", sa.String, _request(), primary_key=True),
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("channel", sa.String, primary_key=True),
        sa.Column("purpose", sa.String, nullable=False),
        sa.Column("code_hash", sa.String, nullable=False),
        sa.Column("is_spent", sa.Integer, nullable=False),
    )
    # A code of the first tables was typed by an approver with a certificate.
    op.execute(
        "INSERT INTO codes (request_id, owner, channel, purpose, code_hash, is_spent)"
        " SELECT request_id, owner, 'http', 'confirm', code_hash, 0 FROM codes_before"
    )
    op.drop_table("codes_before")
    op.create_index("code_by_hash", "codes", ["code_hash"])


def _notifications() -> None:
    op.create_table(
        "notifications",
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("request_id", sa.String, _request(), nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("channel", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("next_at", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("delivered_at", sa.Integer),
        sa.Column("reference", sa.Text),
        sa.Column("failure", sa.String),
    )
    key = ["request_id", "kind", "owner", "channel"]
    op.create_index("notification_of_request", "notifications", key, unique=True)
    waiting, named = sa.text("state = 'waiting'"), sa.text("reference IS NOT NULL")
    op.create_index("waiting_notifications", "notifications", ["next_at"], sqlite_where=waiting)
    op.create_index(
        "notification_by_reference",
        "notifications",
        ["channel", "owner", "reference"],
        sqlite_where=named,
    )


def _contacts() -> None:
    op.create_table(
        "contacts",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("channel", sa.String, primary_key=True),
        sa.Column("address", sa.String, primary_key=True),
        sa.Column("since", sa.Integer, nullable=False),
        sa.Column("disabled", sa.String),
        sa.Column("is_enrolled", sa.Integer, nullable=False),
        sa.Column("offered_by", sa.String),
    )
    op.create_index("contact_by_address", "contacts", ["channel", "address"])
    op.create_table(
        "enrolments",
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("channel", sa.String, primary_key=True),
        sa.Column("code_hash", sa.String, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.Column("offered_by", sa.String, nullable=False),
    )
    op.create_index("enrolment_by_hash", "enrolments", ["channel", "code_hash"])


def _nonces() -> None:
    op.create_table(
        "nonces",
        sa.Column("scope", sa.String, primary_key=True),
        sa.Column("nonce", sa.String, primary_key=True),
        sa.Column("expires_at", sa.Integer, nullable=False),
    )
    op.create_index("nonce_expiry", "nonces", ["expires_at"])


def _grants() -> None:
    op.create_table(
        "grants",
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("request_id", sa.String, nullable=False),
        sa.Column("caller", sa.String, nullable=False),
        sa.Column("operation", sa.String, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("consents", sa.Text, nullable=False),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.Column("uses_left", sa.Integer),
        sa.Column("used", sa.Integer, nullable=False),
        sa.Column("revoked_at", sa.Integer),
        sa.Column("revoked_by", sa.String),
        sa.CheckConstraint("uses_left >= 0", name="uses_are_counted"),
    )
    op.create_index(
        "grants_of_caller",
        "grants",
        ["caller", "operation", "expires_at"],
        sqlite_where=sa.text("revoked_at IS NULL"),
    )
    op.create_index("grants_by_time", "grants", ["created_at"])
    op.create_index("grant_expiry", "grants", ["expires_at"])


def _releases() -> None:
    op.create_table(
        "releases",
        sa.Column("caller", sa.String, primary_key=True),
        sa.Column("released_at", sa.Integer, nullable=False),
        sa.Column("released_by", sa.String, nullable=False),
    )


def _request() -> sa.ForeignKey:
    return sa.ForeignKey("requests.id", ondelete="CASCADE")
