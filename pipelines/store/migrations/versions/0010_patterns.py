"""The queue of one reason alone: of a rare one, else, all alerts would be looked through."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

QUEUE = ["urgency", "stake", "rarity", "id"]


def upgrade() -> None:
    """Go forward."""
    op.create_index("ix_alerts_pattern", "alerts", ["source", "is_waiting", "pattern", *QUEUE])


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_alerts_pattern", "alerts")
