"""The table of analyses. Databases from before these migrations have it already."""

import sqlalchemy as sql
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "analyses",
        sql.Column("request_id", sql.String(32), primary_key=True),
        sql.Column("round", sql.Integer, nullable=False),
        sql.Column("status", sql.String(16), nullable=False),
        sql.Column("code", sql.String(40)),
        sql.Column("created_at", sql.DateTime(timezone=True), nullable=False),
        sql.Column("finished_at", sql.DateTime(timezone=True), nullable=False),
        sql.Column("record", sql.Text),
        if_not_exists=True,
    )
    for name in ("code", "finished_at"):
        op.create_index(f"ix_analyses_{name}", "analyses", [name], if_not_exists=True)
