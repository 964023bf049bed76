"""The indexes: whoever uses a small table first builds what it lacks; on a large one, the operator.

They are no version of the schema: a program that knows nothing of them goes on, and starts.
On PostgreSQL the operator's way holds up no reader or writer (`CONCURRENTLY`). Stopped half-way, it
leaves an index that is not valid, which counts as missing, and is built anew.
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


def is_due(connection: sql.Connection) -> bool:
    """Whether some are missing that anybody may build: it would hold nobody up."""
    return bool(_unbuilt(connection)) and not _is_large(connection)


def build_if_due(connection: sql.Connection) -> None:
    """Build them in this transaction; drop what is retired."""
    if is_due(connection):
        _build(connection, "", lambda _: None)


def missing(connection: sql.Connection) -> list[str]:
    """The names of those that the operator's questions need, and that are not there."""
    return sorted(str(index.name) for index in _unbuilt(connection))


def build_beside_writers(connection: sql.Connection, tell: Callable[[str], None]) -> None:
    """Build what is missing, one after the other, and drop what is retired. Takes minutes.

    Ends the connection's transaction: this can't be done in one. Raises: HistoryUnavailable.
    """
    if connection.dialect.name != "postgresql":
        _build(connection, "", tell)
        return
    if connection.scalar(IS_BUILDING):
        raise HistoryUnavailable("database: another process is building an index")
    connection.exec_driver_sql("COMMIT")
    connection.exec_driver_sql("SET statement_timeout = 0")
    _build(connection, "CONCURRENTLY", tell)
    connection.exec_driver_sql("RESET statement_timeout")


def _build(connection: sql.Connection, how: str, tell: Callable[[str], None]) -> None:
    for index in _unbuilt(connection):
        tell(f"building {index.name}")
        connection.exec_driver_sql(f"DROP INDEX {how} IF EXISTS {index.name}")
        create = str(sql.schema.CreateIndex(index).compile(connection))
        connection.exec_driver_sql(create.replace("INDEX", f"INDEX {how}", 1))
    for name in sorted(RETIRED):
        connection.exec_driver_sql(f"DROP INDEX {how} IF EXISTS {name}")


def _is_large(connection: sql.Connection) -> bool:
    some = sql.select(sql.literal(1)).select_from(analyses).limit(MANY + 1).subquery()
    return (connection.scalar(sql.select(sql.func.count()).select_from(some)) or 0) > MANY


def _unbuilt(connection: sql.Connection) -> list[sql.Index]:
    if connection.dialect.name == "postgresql":
        built = set(connection.scalars(VALID))
    else:
        built = {each["name"] for each in sql.inspect(connection).get_indexes("analyses")}
    return [index for index in analyses.indexes if index.name not in built]
