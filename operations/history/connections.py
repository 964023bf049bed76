"""Connections to the database: a few for each process, and a time limit for each use of one.

One is for what is written (`writer.py`); the others are for everything else.

The program stops waiting by cancelling what it does, which also discards the connection; the server
stops by itself (`statement_timeout`), as nobody waits for its work any more.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from math import inf
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from common.deadline import PerLoop, run_within
from common.ports import HistoryBusy, HistoryUnavailable
from operations.history import migrations
from operations.history.causes import BUSY, cause
from operations.history.writer import Row, Writer, write_rows

# Each is long enough for a server that is half a second away, there and back.
USE_SECONDS = 5.0  # connecting anew included
CHECK_SECONDS = 9.0  # before the first use: whether the tables fit
UPGRADE_SECONDS = 12.0  # and if not, making them so
CONNECT_SECONDS = 4
MIN_CONNECT_SECONDS = 2  # libpq takes no less
STATEMENT_SECONDS = 2
MAX_CONNECTIONS = 4  # of one process
MAX_WAIT_SECONDS = 1.0  # for one of them, but for writing
CONNECTION_TTL_SECONDS = 180  # firewalls forget idle ones after some minutes
# One round trip fewer than as two statements; the connection is in autocommit mode for that.
BEGIN = f"BEGIN; SET LOCAL statement_timeout = {STATEMENT_SECONDS * 1000}"
# A single statement needs none of this: one round trip instead of three. Nothing limits it at the
# server then, but who cancels it here cancels it there.
AT_ONCE = "at_once"
DECIDED_AT_CONNECTING = ("ReadOnlySqlTransaction", "InsufficientPrivilege")
T = TypeVar("T")


class Connections:
    """Connections to one database, opened at first use; safe to share between threads.

    Every method raises HistoryUnavailable when the database is away within about 5 s, or 10 s until
    it has been used once; HistoryBusy when it answered others meanwhile.
    """

    def __init__(self, address: str) -> None:
        self._pools = PerLoop(lambda: _Pool(make_engine(address), self._note_answer))
        self._is_prepared = False
        self._answered_at = -inf

    def run(self, work: Callable[[sql.Connection], T], *, seconds: float = USE_SECONDS) -> T:
        """Do some work in a transaction of its own; it may be repeated, and must be safe to.

        Who may wait longer says so, and raises the limit of its statements itself.
        """

        async def run() -> T:
            return await self._pools.get().run(work)

        with _errors():
            return self._use(run, seconds)

    def write(self, rows: Sequence[Row]) -> None:
        """Return when all these rows are there, which others are written with; if not, none is."""

        async def write() -> Exception | None:
            return await self._pools.get().writer.write(rows)

        with _errors():
            if error := self._use(write, USE_SECONDS):
                raise error

    def _use(self, call: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> T:
        if not self._is_prepared:
            run_within(CHECK_SECONDS + UPGRADE_SECONDS, self._prepare())
            self._is_prepared = True
        began = time.monotonic()
        try:
            return run_within(seconds, call())
        except TimeoutError as error:
            if self._answered_at < began:
                raise
            raise HistoryBusy(f"database: {BUSY}") from error

    async def _prepare(self) -> None:
        await self._pools.get().prepare()

    def _note_answer(self) -> None:
        self._answered_at = time.monotonic()


@contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, OSError, migrations.UnknownVersion) as error:
        raise HistoryUnavailable(f"database: {cause(error)}") from error


class _Pool:
    """The connections of one event loop."""

    def __init__(self, engine: AsyncEngine, note_answer: Callable[[], None]) -> None:
        self._engine = engine
        self._at_once = engine.execution_options(**{AT_ONCE: True})
        self._note_answer = note_answer
        self._others = asyncio.Semaphore(MAX_CONNECTIONS - 1)  # one is always free for the writer
        self._preparing: asyncio.Task[None] | None = None
        self.writer = Writer(self._write)

    async def run(self, work: Callable[[sql.Connection], T]) -> T:
        async with asyncio.timeout(MAX_WAIT_SECONDS):
            await self._others.acquire()
        try:
            return await self._transact(work)
        finally:
            self._others.release()

    async def prepare(self) -> None:
        """Make the tables fit, once for all who ask meanwhile."""
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.create_task(self._make_fit())
            self._preparing.add_done_callback(_take_notice)
        await asyncio.shield(self._preparing)

    async def _make_fit(self) -> None:
        if not await _leave_after(CHECK_SECONDS, self._transact(migrations.is_current)):
            await _leave_after(UPGRADE_SECONDS, self._transact(migrations.upgrade))

    async def _write(self, rows: list[Row]) -> None:
        engine = self._engine if len(rows) > 1 else self._at_once
        write = self._transact(lambda connection: write_rows(connection, rows), engine)
        await _leave_after(USE_SECONDS, write)

    async def _transact(
        self, work: Callable[[sql.Connection], T], engine: AsyncEngine | None = None
    ) -> T:
        engine = engine or self._engine
        try:
            done = await _try(work, engine)
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            done = await _try(work, engine)  # on a new one: the database may have been restarted
        self._note_answer()
        return done


async def _try(work: Callable[[sql.Connection], T], engine: AsyncEngine) -> T:
    async with engine.begin() as connection:
        return await connection.run_sync(work)


async def _leave_after(seconds: float, call: Coroutine[Any, Any, T]) -> T:
    """Cancel it when its time is up, and wait no longer: a silent server isn't left that quickly.

    Raises: TimeoutError.
    """
    task = asyncio.create_task(call)
    task.add_done_callback(_take_notice)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TimeoutError
    return task.result()


def _take_notice(task: asyncio.Task[Any]) -> None:
    """Else asyncio logs the error of a task that was left, which may quote a row."""
    if not task.cancelled():
        task.exception()


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
        pool_recycle=CONNECTION_TTL_SECONDS,
        hide_parameters=True,
        **options,
    )
    if is_postgres:
        sql.event.listen(engine.sync_engine, "begin", _begin)
    sql.event.listen(engine.sync_engine, "handle_error", _leave)
    return engine


def _begin(connection: sql.Connection) -> None:
    if AT_ONCE not in connection.get_execution_options():
        connection.exec_driver_sql(BEGIN)


def _leave(context: sql.engine.ExceptionContext) -> None:
    """Connect anew where that may help: another server may be the primary since."""
    if type(context.original_exception).__name__ in DECIDED_AT_CONNECTING:
        context.is_disconnect = True
