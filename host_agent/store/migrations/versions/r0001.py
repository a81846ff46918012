"""The first tables: requests, outputs, codes, answers, commits."""

import sqlalchemy as sa
from alembic import op

revision = "r0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Make the tables of an empty database."""
    _requests()
    _indexes()
    _of_requests()
    _answers()
    _commits()


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("caller", sa.String, nullable=False),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("serial", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("unix_user", sa.String),
        sa.Column("operation", sa.String, nullable=False),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("wish", sa.LargeBinary, nullable=False),
        sa.Column("resource", sa.Text),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("precondition", sa.Text),
        sa.Column("preview", sa.Text),
        sa.Column("created_at", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.Integer, nullable=False),
        sa.Column("decisions", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text),
        sa.Column("problem", sa.Text),
        sa.Column("finished_at", sa.Integer),
        sa.Column("version", sa.Integer, nullable=False),
        sa.CheckConstraint(
            "(finished_at IS NULL) = (state IN ('approved', 'pending', 'running'))",
            name="ended_when_finished",
        ),
    )


def _indexes() -> None:
    live, ended = sa.text("finished_at IS NULL"), sa.text("finished_at IS NOT NULL")
    op.create_index("live_digest", "requests", ["caller", "digest"], unique=True, sqlite_where=live)
    op.create_index("live_wish", "requests", ["caller", "wish", "state"], sqlite_where=live)
    op.create_index("live_expiry", "requests", ["expires_at", "state"], sqlite_where=live)
    op.create_index(
        "ended_of_caller", "requests", ["caller", "state", "finished_at"], sqlite_where=ended
    )
    op.create_index("ended", "requests", ["finished_at"], sqlite_where=ended)
    op.create_index("by_caller", "requests", ["caller", "sequence"])
    op.create_index("by_state", "requests", ["state", "sequence"])


def _of_requests() -> None:
    op.create_table(
        "outputs",
        _request_id(),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "codes",
        _request_id(),
        sa.Column("owner", sa.String, primary_key=True),
        sa.Column("code_hash", sa.String, nullable=False),
    )


def _request_id() -> "sa.Column[str]":
    request = sa.ForeignKey("requests.id", ondelete="CASCADE")
    return sa.Column("request_id", sa.String, request, primary_key=True)


def _answers() -> None:
    op.create_table(
        "answers",
        sa.Column("sequence", sa.Integer, primary_key=True),
        sa.Column("caller", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("body_sha256", sa.String, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("body", sa.LargeBinary),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("request_id", sa.String),
        sa.Column("expires_at", sa.Integer, nullable=False),
    )
    op.create_index("answer_of_key", "answers", ["caller", "key"], unique=True)
    op.create_index("answers_of_caller", "answers", ["caller", "sequence", "size"])
    op.create_index("answer_expiry", "answers", ["expires_at"])


def _commits() -> None:
    commits = op.create_table(
        "commits",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
    )
    op.bulk_insert(commits, [{"id": 1, "count": 0}])
