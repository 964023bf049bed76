"""Changes of the schema, by Alembic: whoever uses a database first takes it to the newest version.

To change the tables, change `schema.py` and add a file to `versions/` that does the same to a
database that is there. Processes of the version before may still be running: they must be able to
go on with it.
"""

from pathlib import Path

import sqlalchemy as sql
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from operations.history import indexes

VERSION_TABLE = "history_version"  # Alembic's own name may be another program's
# The first of several processes changes the schema; the others wait for it, longer than for others.
ALONE = {
    "postgresql": "SET LOCAL statement_timeout = 10000; SELECT pg_advisory_xact_lock(7318)",
    "sqlite": "BEGIN IMMEDIATE",
}


class UnknownVersion(Exception):
    """The database was changed by a newer program than this."""


def is_current(connection: sql.Connection) -> bool:
    """Whether the database has seen all migrations, and has its indexes. Raises: UnknownVersion."""
    versions = ScriptDirectory.from_config(_config(connection))
    newest, found = versions.get_current_head(), _version(connection)
    if found not in (None, *(each.revision for each in versions.walk_revisions())):
        raise UnknownVersion(
            f"has version {found} of the schema, and this program needs {newest}: "
            "run the program that fits it, or point DATABASE_URL elsewhere"
        )
    return found == newest and not indexes.is_due(connection)


def upgrade(connection: sql.Connection) -> None:
    """Run the migrations that the database has not seen: none, if others were quicker.

    Then build the indexes that it lacks, unless that takes long.
    """
    connection.exec_driver_sql(ALONE[connection.dialect.name])
    command.upgrade(_config(connection), "head")
    indexes.build_if_due(connection)


def _config(connection: sql.Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config


def _version(connection: sql.Connection) -> str | None:
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()
