"""Alembic's entry: the URL comes from the caller, never from a file."""

from __future__ import annotations

from alembic import context

from server.database import Database, Table

database = Database(context.config.attributes["url"])
with database.engine.connect() as connection:
    context.configure(connection=connection, target_metadata=Table.metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
database.close()
