"""Reports as people left them, and the wordings that they proposed

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "report_edit",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("gateway", sa.String(), nullable=False),
        sa.Column("report_id", sa.String(), nullable=False),
        sa.Column("document", sa.String(), nullable=False),
        sa.Column("frames", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("time_ms", BIG, nullable=False),
        sa.Column("en", sa.JSON(), nullable=False),
        sa.Column("zh", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_report_edit_report", "report_edit", ["gateway", "report_id"])
    op.create_table(
        "wording",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("document", sa.String(), nullable=False),
        sa.Column("clause", sa.String(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("gateway", sa.String(), nullable=False),
        sa.Column("report_id", sa.String(), nullable=False),
        sa.Column("doubts", sa.JSON(), nullable=False),
        sa.Column("proposed_ms", BIG, nullable=False),
        sa.Column("answered_ms", BIG, nullable=True),
        sa.Column("answered_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("document", "clause", "language", "text"),
    )
    op.create_index("ix_wording_status", "wording", ["status"])


def downgrade() -> None:
    op.drop_table("wording")
    op.drop_table("report_edit")
