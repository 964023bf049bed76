"""Remove the version table from before these migrations: Alembic has its own."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.drop_table("schema_version", if_exists=True)
