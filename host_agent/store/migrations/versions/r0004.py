"""Requests say which authority issued the caller's certificate, and when that ends.

What was stored before does not, so it cannot be asked whether it is still welcome: such requests
are cancelled, and such consents and grants do not count any more.
"""

import sqlalchemy as sa
from alembic import op

revision = "r0004"
down_revision: str | None = "r0003"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    """Add the column, empty."""
    op.add_column("requests", sa.Column("issued", sa.Text))
