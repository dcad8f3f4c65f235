"""Which rows came before, so that an export of everything is not scored again; and how many of a batch did."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

COUNTS = ("repeated", "corrected")


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "known_rows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("run", sa.Integer(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("columns", sa.String(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("oldest", sa.Integer(), nullable=False),
        sa.Column("marks", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source", "run", "part", name=op.f("uq_known_rows_source_run_part")),
    )
    for name in COUNTS:
        op.add_column("batches", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    """Go back."""
    for name in COUNTS:
        op.drop_column("batches", name)
    op.drop_table("known_rows")
