"""When jobs run next, as the leader has written it down."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from pipelines.service.scheduler import TABLE
from pipelines.store import Store


def next_times(store: Store) -> dict[str, datetime]:
    """The next time of each job; empty if the service has never run."""
    with store.read() as session:
        if not sa.inspect(session.connection()).has_table(TABLE):
            return {}
        table = sa.table(TABLE, sa.column("id"), sa.column("next_run_time"))
        rows = session.execute(sa.select(table.c.id, table.c.next_run_time)).all()
    return {str(name): datetime.fromtimestamp(moment, UTC) for name, moment in rows if moment is not None}
