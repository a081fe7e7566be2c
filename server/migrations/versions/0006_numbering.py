"""The ledger knows which outbox gives the numbers, so that one that begins again is not taken for the earlier one

Revision ID: 0006
Revises: 0005_identity
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005_identity"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("ledger", sa.Column("numbering", sa.String(), nullable=True))


def downgrade() -> None:
    op.drop_column("ledger", "numbering")
