"""Keys, sign-ins, requests that were answered, notes beside alerts, events scored on request."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("scopes", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "sign_ins",
        sa.Column("hash", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_index(op.f("ix_sign_ins_key"), "sign_ins", ["key"], unique=False)
    op.create_table(
        "answered_requests",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", "name"),
    )
    op.create_index(op.f("ix_answered_requests_at"), "answered_requests", ["at"], unique=False)
    op.create_table(
        "alert_notes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("alert", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_alert_notes_alert"), "alert_notes", ["alert"], unique=False)
    op.create_table(
        "held_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("row", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source", "key", name=op.f("uq_held_events_source_key")),
        sqlite_autoincrement=True,  # a number is never used again: the largest tells whether anything has changed
    )
    op.create_index(op.f("ix_held_events_at"), "held_events", ["at"], unique=False)
    op.create_index(op.f("ix_alerts_group"), "alerts", ["group"], unique=False)


def downgrade() -> None:
    """Go back."""
    op.drop_index(op.f("ix_alerts_group"), table_name="alerts")
    op.drop_index(op.f("ix_held_events_at"), table_name="held_events")
    op.drop_table("held_events")
    op.drop_index(op.f("ix_alert_notes_alert"), table_name="alert_notes")
    op.drop_table("alert_notes")
    op.drop_index(op.f("ix_answered_requests_at"), table_name="answered_requests")
    op.drop_table("answered_requests")
    op.drop_index(op.f("ix_sign_ins_key"), table_name="sign_ins")
    op.drop_table("sign_ins")
    op.drop_table("api_keys")
