"""The ledger knows what a gateway gave up after many attempts, and finds what was quarantined by its number; leases

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("ledger", sa.Column("dead", sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("ledger") as table:
        table.alter_column("dead", server_default=None)
    op.create_index("ix_quarantine_seq", "quarantine", ["gateway", "message_class", "seq"])
    op.create_table(
        "lease",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("until_ms", BIG, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )


def downgrade() -> None:
    op.drop_table("lease")
    op.drop_index("ix_quarantine_seq", "quarantine")
    op.drop_column("ledger", "dead")
