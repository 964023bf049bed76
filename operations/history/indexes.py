"""The indexes of a table that is large already: built beside those who write, by the operator.

On PostgreSQL no statement here holds up a reader or a writer (`CONCURRENTLY`). One that is stopped
half-way leaves an index that is not valid, which counts as missing, and is built anew.
"""

from collections.abc import Callable

import sqlalchemy as sql

from common.ports import HistoryUnavailable
from operations.history.schema import analyses

MANY = 50_000  # rows; to index fewer takes less than a second
RETIRED = {"ix_analyses_code"}  # no query needs it any more
VALID = sql.text(
    "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
    "WHERE indrelid = to_regclass('analyses') AND indisvalid"
)
IS_BUILDING = sql.text(
    "SELECT count(*) FROM pg_stat_progress_create_index WHERE relid = to_regclass('analyses')"
)


def is_large(connection: sql.Connection) -> bool:
    """Whether indexing the table would hold others up."""
    some = sql.select(sql.literal(1)).select_from(analyses).limit(MANY + 1).subquery()
    return (connection.scalar(sql.select(sql.func.count()).select_from(some)) or 0) > MANY


def missing(connection: sql.Connection) -> list[str]:
    """The names of those that the operator's questions need, and that are not there."""
    return sorted(str(index.name) for index in _unbuilt(connection))


def bring_up_to_date(connection: sql.Connection, tell: Callable[[str], None]) -> None:
    """Build what is missing, one after the other, and drop what is retired. Takes minutes.

    Ends the connection's transaction: this can't be done in one. Raises: HistoryUnavailable.
    """
    is_postgres = connection.dialect.name == "postgresql"
    at_once = " CONCURRENTLY" if is_postgres else ""
    if is_postgres:
        if connection.scalar(IS_BUILDING):
            raise HistoryUnavailable("database: another process is building an index")
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("SET statement_timeout = 0")
    for index in _unbuilt(connection):
        tell(f"building {index.name}")
        connection.exec_driver_sql(f"DROP INDEX{at_once} IF EXISTS {index.name}")
        connection.execute(sql.schema.CreateIndex(index))
    for name in sorted(RETIRED):
        connection.exec_driver_sql(f"DROP INDEX{at_once} IF EXISTS {name}")
    if is_postgres:
        connection.exec_driver_sql("RESET statement_timeout")


def _unbuilt(connection: sql.Connection) -> list[sql.Index]:
    if connection.dialect.name == "postgresql":
        built = set(connection.scalars(VALID))
    else:
        built = {each["name"] for each in sql.inspect(connection).get_indexes("analyses")}
    return [index for index in analyses.indexes if index.name not in built]
