"""What Alembic runs around each migration: on the connection that `schema.migrate` hands over.

The transaction is that connection's: a migration that fails leaves nothing behind.
"""

from alembic import context
from sqlalchemy import Connection

from host_agent.store.schema import metadata


def run() -> None:
    """Run the migrations on the connection of the configuration's attributes."""
    connection = context.config.attributes.get("connection")
    if not isinstance(connection, Connection):
        message = "migrations run through host_agent.store.schema.migrate only"
        raise TypeError(message)
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


run()
