"""What Alembic runs: the versions that are missing, over the connection that it was given."""

from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationInfo

from common.logs import get_logger
from operations.history.migrations import VERSION_TABLE

log = get_logger("operations.history.migrations")


def _note(*, step: MigrationInfo, **_: Any) -> None:
    log.info("schema changed", version=step.up_revision_id)


context.configure(
    context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    on_version_apply=_note,  # type: ignore[arg-type]  # Alembic names all arguments
)
context.run_migrations()
