"""Run by Alembic: apply the migrations over the connection that ``Store.upgrade`` opened."""

from __future__ import annotations

from alembic import context

from pipelines.store.tables import Base


def run() -> None:
    """Apply them in the transaction that is open."""
    context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
    context.run_migrations()


if hasattr(context, "config"):  # it has one only while Alembic runs this file
    run()
