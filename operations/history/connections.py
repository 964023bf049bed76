"""Connections to the database: a few for each process, and a time limit for each use of one.

The program stops waiting by cancelling what it does, which also discards the connection; the server
stops by itself (`statement_timeout`), as nobody waits for its work any more.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from common.deadline import PerLoop, run_within
from common.ports import HistoryUnavailable
from operations.history import migrations
from operations.history.causes import cause

# Each is long enough for a server that is half a second away, there and back.
USE_SECONDS = 5.0  # connecting anew included
CHECK_SECONDS = 9.0  # before the first use: whether the tables fit
UPGRADE_SECONDS = 12.0  # and if not, making them so
CONNECT_SECONDS = 4
MIN_CONNECT_SECONDS = 2  # libpq takes no less
STATEMENT_SECONDS = 2
MAX_CONNECTIONS = 4  # of one process
MAX_WAIT_SECONDS = 1.0  # for one of them; who waits longer is told that all are busy
CONNECTION_TTL_SECONDS = 180  # firewalls forget idle ones after some minutes
# One round trip fewer than as two statements; the connection is in autocommit mode for that.
BEGIN = f"BEGIN; SET LOCAL statement_timeout = {STATEMENT_SECONDS * 1000}"
DECIDED_AT_CONNECTING = ("ReadOnlySqlTransaction", "InsufficientPrivilege")
T = TypeVar("T")


class Connections:
    """Connections to one database, opened at first use; safe to share between threads."""

    def __init__(self, address: str) -> None:
        self._engines = PerLoop(lambda: make_engine(address))
        self._is_prepared = False

    def run(self, work: Callable[[sql.Connection], T]) -> T:
        """Do some work in a transaction of its own.

        Raises: HistoryUnavailable, when the database is away within about 5 s, or 10 s until it has
        been used once.
        """
        try:
            if not self._is_prepared:
                if not run_within(CHECK_SECONDS, self._transact(migrations.is_current)):
                    run_within(UPGRADE_SECONDS, self._transact(migrations.upgrade))
                self._is_prepared = True
            return run_within(USE_SECONDS, self._transact(work))
        except (SQLAlchemyError, OSError, migrations.UnknownVersion) as error:
            raise HistoryUnavailable(f"database: {cause(error)}") from error

    async def _transact(self, work: Callable[[sql.Connection], T]) -> T:
        async with self._engines.get().begin() as connection:
            return await connection.run_sync(work)


def make_engine(address: str) -> AsyncEngine:
    """Make what opens connections when they are needed, for one event loop."""
    url = sql.make_url(address)
    is_postgres = url.get_backend_name() != "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": STATEMENT_SECONDS}}
    if is_postgres:
        hosts = 1 + str(url.query.get("host", "")).count(",")
        connect_seconds = max(MIN_CONNECT_SECONDS, CONNECT_SECONDS // hosts)  # for each of them
        options = {
            # pgbouncer may give each transaction another server: nothing stays prepared there.
            "connect_args": {
                "client_encoding": "utf8",  # else it is the database's, which may lack characters
                "connect_timeout": connect_seconds,
                "prepare_threshold": None,
            },
            "isolation_level": "AUTOCOMMIT",
            "use_native_hstore": False,  # three commands fewer at the first use
        }
    engine = create_async_engine(
        url.set(drivername="postgresql+psycopg" if is_postgres else "sqlite+aiosqlite"),
        pool_size=MAX_CONNECTIONS,
        max_overflow=0,
        pool_timeout=MAX_WAIT_SECONDS,
        pool_recycle=CONNECTION_TTL_SECONDS,
        pool_pre_ping=True,  # after a restart of the database nobody meets a connection from before
        hide_parameters=True,
        **options,
    )
    if is_postgres:
        sql.event.listen(engine.sync_engine, "begin", lambda each: each.exec_driver_sql(BEGIN))
    sql.event.listen(engine.sync_engine, "handle_error", _leave)
    return engine


def _leave(context: sql.engine.ExceptionContext) -> None:
    """Connect anew where that may help: another server may be the primary since."""
    if type(context.original_exception).__name__ in DECIDED_AT_CONNECTING:
        context.is_disconnect = True
