"""A prompt has a second message; what was asked before is found by its resource."""

import sqlalchemy as sa
from alembic import op

revision = "r0003"
down_revision: str | None = "r0002"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the reference of the second message, and the indexes."""
    op.add_column("notifications", sa.Column("answer_reference", sa.Text))
    op.create_index(
        "notification_by_answer_reference",
        "notifications",
        ["channel", "owner", "answer_reference"],
        sqlite_where=sa.text("answer_reference IS NOT NULL"),
    )
    op.create_index(
        "ended_of_resource",
        "requests",
        ["operation", "resource", "finished_at"],
        sqlite_where=sa.text("finished_at IS NOT NULL"),
    )
