"""What the queue is sorted by, and which alerts wait for an answer, so that it need not sort all of them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

FILL = """
UPDATE alerts SET
  urgency = CASE severity WHEN 'low' THEN 0 WHEN 'medium' THEN 1 WHEN 'high' THEN 2 WHEN 'critical' THEN 3 ELSE -1 END,
  stake = COALESCE(amount, -1),
  rarity = -p_value,
  is_waiting = kind IN ('opened', 'worse', 'again')
    AND NOT EXISTS (SELECT 1 FROM alert_answers WHERE alert_answers.alert = alerts.id)
    AND NOT EXISTS (
      SELECT 1 FROM alerts AS later
      WHERE later.incident = alerts.incident AND later.kind IN ('opened', 'worse', 'again')
        AND (later.created_at > alerts.created_at OR later.created_at = alerts.created_at AND later.id > alerts.id))
"""
COLUMNS: tuple[tuple[str, Any, Any], ...] = (
    ("is_waiting", sa.Boolean(), sa.false()),
    ("urgency", sa.Integer(), "-1"),
    ("stake", sa.Double(), "-1"),
    ("rarity", sa.Double(), "-1"),
)


def upgrade() -> None:
    """Go forward."""
    for name, kind, default in COLUMNS:
        op.add_column("alerts", sa.Column(name, kind, nullable=False, server_default=default))
    op.execute(FILL)
    op.create_index("ix_alerts_queue", "alerts", ["source", "is_waiting", "urgency", "stake", "rarity", "id"])
    op.create_index("ix_alerts_source_label_is_waiting", "alerts", ["source", "label", "is_waiting"])


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_alerts_source_label_is_waiting", "alerts")
    op.drop_index("ix_alerts_queue", "alerts")
    for name, *_ in COLUMNS:
        op.drop_column("alerts", name)
