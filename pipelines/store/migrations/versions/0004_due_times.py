"""The next time of each job, as plain values.

Until now APScheduler kept them in a table of its own, ``apscheduler_jobs``, with each job as a pickle: whoever could
write to that table could run code in the service. The times are taken over, without reading a pickle, and the table is
dropped. A service of an earlier version makes it anew, with jobs that are due at their next times from then on.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OLD = "apscheduler_jobs"


def upgrade() -> None:
    """Go forward."""
    due_times = op.create_table(
        "due_times",
        sa.Column("job", sa.String(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("job"),
    )
    connection = op.get_bind()
    if not sa.inspect(connection).has_table(OLD):
        return
    old = sa.table(OLD, sa.column("id", sa.String), sa.column("next_run_time", sa.Float))
    found = connection.execute(sa.select(old.c.id, old.c.next_run_time).where(old.c.next_run_time.is_not(None))).all()
    rows = [{"job": job, "due_at": datetime.fromtimestamp(at, UTC), "settings": {}} for job, at in found]
    if rows:
        op.bulk_insert(due_times, rows)
    op.drop_table(OLD)


def downgrade() -> None:
    """Go back."""
    op.drop_table("due_times")
