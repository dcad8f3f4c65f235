"""The audit trail is only added to: the database refuses to change a record, or to delete one of the last 30 days.

How many batches and rows a backfill has come to may be counted up; housekeeping deletes what is older than
`service.keep_audit`, which is 30 days at least.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SAID = "the audit trail is only added to"
KEPT = ("id", "at", "actor", "action", "reason", "arguments")


def upgrade() -> None:
    """Go forward."""
    op.create_index(op.f("ix_audit_at"), "audit", ["at"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        columns = ", ".join(f'"{name}"' for name in KEPT)
        op.execute(
            f"CREATE TRIGGER audit_is_not_changed BEFORE UPDATE OF {columns} ON audit "
            f"BEGIN SELECT RAISE(ABORT, '{SAID}'); END"
        )
        op.execute(
            f"CREATE TRIGGER audit_is_kept BEFORE DELETE ON audit WHEN OLD.at > datetime('now', '-30 days') "
            f"BEGIN SELECT RAISE(ABORT, '{SAID}'); END"
        )
        return
    changed = " OR ".join(f"OLD.{name}::text IS DISTINCT FROM NEW.{name}::text" for name in KEPT)
    op.execute(
        sa.text(
            f"""
            CREATE FUNCTION audit_is_only_added_to() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              IF TG_OP = 'TRUNCATE' THEN RAISE EXCEPTION '{SAID}'; END IF;
              IF TG_OP = 'UPDATE' THEN
                IF {changed} THEN RAISE EXCEPTION '{SAID}'; END IF;
                RETURN NEW;
              END IF;
              IF OLD.at > now() - interval '30 days' THEN RAISE EXCEPTION '{SAID}'; END IF;
              RETURN OLD;
            END $$
            """.replace(":", r"\:")
        )
    )
    function = "EXECUTE FUNCTION audit_is_only_added_to()"
    op.execute(f"CREATE TRIGGER audit_is_kept BEFORE UPDATE OR DELETE ON audit FOR EACH ROW {function}")
    op.execute(f"CREATE TRIGGER audit_is_whole BEFORE TRUNCATE ON audit FOR EACH STATEMENT {function}")


def downgrade() -> None:
    """Go back."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_is_kept")
        op.execute("DROP TRIGGER audit_is_not_changed")
    else:
        op.execute("DROP TRIGGER audit_is_whole ON audit")
        op.execute("DROP TRIGGER audit_is_kept ON audit")
        op.execute("DROP FUNCTION audit_is_only_added_to()")
    op.drop_index(op.f("ix_audit_at"), table_name="audit")
