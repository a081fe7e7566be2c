"""What gateways say of their own accord: known inputs, remaining lives, risks

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "statement",
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("statement_id", sa.String(), nullable=False),
        sa.Column("machine", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("time_ms", BIG, nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("gateway", sa.String(), nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("sent_ms", BIG, nullable=False),
        sa.Column("stored_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("gateway", "type", "statement_id", "time_ms"),
    )
    op.create_index("ix_statement_gateway", "statement", ["gateway"])
    op.create_index("ix_statement_latest", "statement", ["type", "gateway", "machine", "time_ms"])


def downgrade() -> None:
    op.drop_table("statement")
