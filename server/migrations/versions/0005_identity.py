"""Certificates, one-time tokens and who was not believed

Revision ID: 0005_identity
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005_identity"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "enrol_token",
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("gateway", sa.String(), nullable=False),
        sa.Column("made_ms", BIG, nullable=False),
        sa.Column("expires_ms", BIG, nullable=False),
        sa.Column("used_ms", BIG, nullable=True),
        sa.Column("key_digest", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_enrol_token_gateway", "enrol_token", ["gateway"])
    op.create_table(
        "certificate",
        sa.Column("serial", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("because", sa.String(), nullable=False),
        sa.Column("key_digest", sa.String(), nullable=False),
        sa.Column("token_digest", sa.String(), nullable=False),
        sa.Column("issued_ms", BIG, nullable=False),
        sa.Column("not_after_ms", BIG, nullable=False),
        sa.Column("revoked_ms", BIG, nullable=True),
        sa.Column("revoked_because", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("serial"),
    )
    op.create_index("ix_certificate_name", "certificate", ["name"])
    op.create_index("ix_certificate_token_digest", "certificate", ["token_digest"])
    op.create_table(
        "identity_refusal",
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("times", BIG, nullable=False),
        sa.Column("last_ms", BIG, nullable=False),
        sa.Column("last_detail", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("reason"),
    )


def downgrade() -> None:
    op.drop_table("identity_refusal")
    op.drop_table("certificate")
    op.drop_table("enrol_token")
