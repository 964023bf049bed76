"""Index what the operator asks: what failed at what time, and with which code.

A large table is left as it is: building would hold up those who write, for longer than a process
that starts has. `python -m operations upgrade` does it beside them; nothing needs it before.
"""

import sqlalchemy as sql
from alembic import op

from operations.history.indexes import is_large

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    if is_large(op.get_bind()):
        return
    has_code = sql.text("code IS NOT NULL")
    op.create_index("ix_analyses_status_finished_at", "analyses", ["status", "finished_at", "code"])
    op.create_index(
        "ix_analyses_code_finished_at",
        "analyses",
        ["code", "finished_at"],
        postgresql_where=has_code,
        sqlite_where=has_code,
    )
    op.drop_index("ix_analyses_code", "analyses")
