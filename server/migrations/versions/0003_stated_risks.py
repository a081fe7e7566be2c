"""Stated risks of machines and order lines"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "risk",
        sa.Column("risk_id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("probability", sa.Float(), nullable=False),
        sa.Column("issued_ms", _BIG, nullable=False),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("id", _BIG, autoincrement=True, nullable=False),
        sa.Column("gateway", sa.String(), nullable=False),
        sa.Column("seq", _BIG, nullable=False),
        sa.Column("sent_ms", _BIG, nullable=False),
        sa.Column("stored_ms", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("gateway", "risk_id"),
        sa.UniqueConstraint("gateway", "seq"),
    )
    with op.batch_alter_table("risk", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_risk_gateway"), ["gateway"], unique=False)
        batch_op.create_index(batch_op.f("ix_risk_risk_id"), ["risk_id"], unique=False)
        batch_op.create_index("ix_risk_latest", ["gateway", "kind", "subject", "issued_ms"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("risk", schema=None) as batch_op:
        batch_op.drop_index("ix_risk_latest")
        batch_op.drop_index(batch_op.f("ix_risk_risk_id"))
        batch_op.drop_index(batch_op.f("ix_risk_gateway"))
    op.drop_table("risk")
