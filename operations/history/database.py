"""The durable history: what Redis has decided, kept in a database. The only importer of sqlalchemy.

table           column                          holds
analyses        request_id                      the key: an analysis is there once
                round, finished_at              a later one replaces an earlier one, never back
                status, code, created_at        for the operator's commands; `deleted`: a tombstone
                record                          AnalysisRecord as JSON; nothing in a tombstone
schema_version  version                         SCHEMA_VERSION

A tombstone stops a late delivery from writing again what a person has deleted. Every write is safe
to repeat. Each command has a connection of its own: nothing is shared between forked workers, and
none has gone stale when the database comes back.
"""

import os
import re
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from common.failures import Failure
from common.fields import REQUEST_ID_PATTERN
from common.logs import get_logger
from common.ports import HistoryUnavailable
from common.record import AnalysisRecord
from common.states import Status
from common.store import NotFound, parse_record, utc_now
from operations.history import address
from operations.history.settings import HistorySettings

SCHEMA_VERSION = 1
CONNECT_SECONDS = 2  # the least that libpq takes
STATEMENT_SECONDS = 2.0
PREPARE_SECONDS = 8.0  # instead, until the tables are known to be there: ten commands more
MAX_CONNECTIONS = 4  # of one process; who waits for one longer than a second is told "away"
PURGE_EVERY_SECONDS = 600.0
MAX_PURGED = 1000  # at a time, so that no write waits for long
PAGE = 5000  # rows that are read at a time, within the time that a statement has
DELETED = "deleted"
# The first of several processes makes the tables; the others wait for it.
ALONE = {"postgresql": "SELECT pg_advisory_xact_lock(7318)", "sqlite": "BEGIN IMMEDIATE"}
# What the operator can do about a database that answers, and can't do what is asked.
REMEDIES = {
    "ReadOnlySqlTransaction": "ReadOnlySqlTransaction: it is read-only (a replica?); "
    "point DATABASE_URL at the primary, or let its user write",
    "DiskFull": "DiskFull: make room, or lower HISTORY_DAYS and run purge",
    "InsufficientPrivilege": "InsufficientPrivilege: let its user read and write its tables",
    "QueryCanceled": "QueryCanceled: it takes too long; look at its load",
}
INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}

_metadata = sql.MetaData()
_version = sql.Table(
    "schema_version", _metadata, sql.Column("version", sql.Integer, primary_key=True)
)
_analyses = sql.Table(
    "analyses",
    _metadata,
    sql.Column("request_id", sql.String(32), primary_key=True),
    sql.Column("round", sql.Integer, nullable=False),
    sql.Column("status", sql.String(16), nullable=False),
    sql.Column("code", sql.String(40), index=True),
    sql.Column("created_at", sql.DateTime(timezone=True), nullable=False),
    sql.Column("finished_at", sql.DateTime(timezone=True), nullable=False, index=True),
    sql.Column("record", sql.Text),
)

log = get_logger(__name__)


class Count(NamedTuple):
    """How many analyses ended so; `code` says why they failed."""

    status: str
    code: str | None
    number: int


class FailedRow(NamedTuple):
    """What the operator is told of a failed analysis."""

    request_id: str
    round: int
    code: str | None
    finished_at: datetime


class Database:
    """The history. Every method raises HistoryUnavailable when it is away: within about 5 s, or 12
    s until it has been used once.
    """

    def __init__(self, settings: HistorySettings) -> None:
        assert settings.database_url, "without one there is no archive"
        checked, dropped = address.database(settings.database_url.get_secret_value())
        if dropped:
            log.warning("parameters left out", cause=f"DATABASE_URL: {', '.join(dropped)}")
        url = sql.make_url(checked)
        if url.drivername in ("postgres", "postgresql"):
            url = url.set(drivername="postgresql+psycopg")
        limits: dict[str, object] = {"timeout": CONNECT_SECONDS}
        options: dict[str, object] = {}
        if url.get_backend_name() == "postgresql":
            limits = {"connect_timeout": CONNECT_SECONDS, "prepare_threshold": None}
            # Three commands fewer at the first use, which must fit into STATEMENT_SECONDS.
            options = {"use_native_hstore": False}
        self._engine = sql.create_engine(
            url, poolclass=sql.NullPool, connect_args=limits, hide_parameters=True, **options
        )
        if url.get_backend_name() == "postgresql":
            sql.event.listen(self._engine, "do_connect", _connect)
            sql.event.listen(self._engine, "close", _disarm)
        self._keeps_input = settings.keep_input
        self._days = timedelta(days=settings.history_days)
        self._connections = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._is_prepared = False
        self._purged_at: float | None = None

    def write(self, record: AnalysisRecord) -> None:
        """Keep a terminal record, unless a later one is here, or it was deleted."""
        self.write_many([record])
        self._purge_now_and_then()

    def write_many(self, records: Iterable[AnalysisRecord]) -> None:
        """Keep terminal records, each as `write` does, all or none."""
        row = _analyses.c
        with self._begin() as connection:
            insert = INSERTS[connection.dialect.name](_analyses)
            # Of rounds that were never queued none counts for more than what ended after it.
            is_later = sql.case(
                (
                    row.code == Failure.NOT_QUEUED.value,
                    insert.excluded.finished_at > row.finished_at,
                ),
                else_=sql.tuple_(insert.excluded.round, insert.excluded.finished_at)
                > sql.tuple_(row.round, row.finished_at),
            )
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=[row.request_id],
                    set_={column.name: insert.excluded[column.name] for column in row},
                    where=sql.and_(row.status != DELETED, is_later),
                ),
                [self._row(record) for record in records],
            )

    def _row(self, record: AnalysisRecord) -> dict[str, object]:
        assert record.status.is_terminal, "Redis has decided before anything is written"
        assert record.finished_at, "a terminal record says when"
        kept = record if self._keeps_input else record.model_copy(update={"input": None})
        return {
            "request_id": record.request_id,
            "round": record.round,
            "status": record.status.value,
            "code": record.failure and record.failure.value,
            "created_at": record.created_at.astimezone(UTC),
            "finished_at": record.finished_at.astimezone(UTC),
            "record": kept.model_dump_json(by_alias=True),
        }

    def find(self, request_id: str) -> AnalysisRecord:
        """Read all that is kept. Raises: NotFound."""
        if not re.fullmatch(REQUEST_ID_PATTERN, request_id):
            raise NotFound("not a request id")
        row = _analyses.c
        with self._begin() as connection:
            stored = connection.scalar(
                sql.select(row.record).where(row.request_id == request_id, self._is_kept())
            )
        return parse_record(stored)

    def failed(
        self,
        code: str | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
    ) -> Iterator[FailedRow]:
        """All that are kept, the oldest first, and have failed with this code and in this time.

        Reads PAGE rows at a time: no statement takes long, and little memory is needed.
        """
        row = _analyses.c
        wanted = [row.status == Status.FAILED.value, self._is_kept()]
        wanted += [row.code == code] if code else []
        wanted += [row.finished_at >= after] if after else []
        wanted += [row.finished_at <= before] if before else []
        page = (
            sql.select(row.request_id, row.round, row.code, row.finished_at)
            .where(*wanted)
            .order_by(row.finished_at, row.request_id)
            .limit(PAGE)
        )
        position = sql.tuple_(row.finished_at, row.request_id)
        last: FailedRow | None = None
        while True:
            following = page if last is None else page.where(position > (last.finished_at, last[0]))
            with self._begin() as connection:
                found = [FailedRow(*each) for each in connection.execute(following)]
            for each in found:
                yield each._replace(finished_at=_in_utc(each.finished_at))
            if len(found) < PAGE:
                return
            last = found[-1]

    def counts(self) -> list[Count]:
        """How many are kept, by status and code."""
        row = _analyses.c
        with self._begin() as connection:
            found = connection.execute(
                sql.select(row.status, row.code, sql.func.count())
                .where(self._is_kept())
                .group_by(row.status, row.code)
                .order_by(row.status, row.code)
            ).all()
        return [Count(*each) for each in found]

    def delete(self, request_id: str) -> None:
        """Erase what is kept and leave a tombstone, even if there was nothing yet."""
        now = utc_now()
        erased = {"status": DELETED, "code": None, "finished_at": now, "record": None}
        with self._begin() as connection:
            insert = INSERTS[connection.dialect.name](_analyses).values(
                request_id=request_id, round=0, created_at=now, **erased
            )
            connection.execute(
                insert.on_conflict_do_update(index_elements=["request_id"], set_=erased)
            )

    def purge(self) -> int:
        """Remove the oldest 1,000 that are older than `HISTORY_DAYS`; return how many were."""
        row = _analyses.c
        too_old = (
            sql.select(row.request_id)
            .where(sql.not_(self._is_young()))
            .order_by(row.finished_at)
            .limit(MAX_PURGED)
        )
        with self._begin() as connection:
            delete = _analyses.delete().where(row.request_id.in_(too_old))
            return connection.execute(delete).rowcount

    def ping(self) -> None:
        """Raise HistoryUnavailable unless the database takes a row, with a schema that fits.

        The row is rolled back: nobody sees it.
        """
        now = utc_now()
        probe = {"request_id": "", "round": 0, "status": DELETED, "code": None, "record": None}
        with self._begin() as connection, connection.begin_nested() as trial:
            connection.execute(
                sql.insert(_analyses).values(created_at=now, finished_at=now, **probe)
            )
            trial.rollback()

    def _is_young(self) -> sql.ColumnElement[bool]:
        return _analyses.c.finished_at > utc_now() - self._days

    def _is_kept(self) -> sql.ColumnElement[bool]:
        return sql.and_(_analyses.c.status != DELETED, self._is_young())

    def _purge_now_and_then(self) -> None:
        """There is no scheduler: those who write sweep as well."""
        now = time.monotonic()
        if self._purged_at is not None and now - self._purged_at < PURGE_EVERY_SECONDS:
            return
        self._purged_at = now
        try:
            self.purge()
        except HistoryUnavailable as error:  # the analysis is written, and this can wait
            log.warning("history not purged", cause=str(error))

    @contextmanager
    def _begin(self) -> Iterator[sql.Connection]:
        """Open a connection for one transaction of bounded time."""
        if not self._connections.acquire(timeout=1):
            raise HistoryUnavailable("database: all connections are busy")
        try:
            with self._engine.connect() as connection, connection.begin():
                if self._is_prepared:
                    _limit_server(connection, STATEMENT_SECONDS)
                else:
                    _extend(connection)
                    _limit_server(connection, PREPARE_SECONDS)
                    _prepare(connection)
                yield connection
            self._is_prepared = True  # now that it is committed
        except (SQLAlchemyError, OSError) as error:
            # Only the kind is told: the text may hold the address, or what was to be written.
            cause = getattr(error, "orig", None) or error
            name = type(cause).__name__
            raise HistoryUnavailable(f"database: {REMEDIES.get(name, name)}") from error
        finally:
            self._connections.release()


def _in_utc(time: datetime) -> datetime:
    """SQLite tells times without a zone, PostgreSQL in that of the session."""
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


def _connect(dialect: Any, record: Any, arguments: Any, options: Any) -> Any:
    """Connect, and break the connection off when all that is done over it takes too long.

    A time limit at the server alone is none: its answer may be what doesn't come, and what
    SQLAlchemy asks a new server first would wait for it without end.
    """
    driver = dialect.connect(*arguments, **options)
    own = socket.socket(fileno=os.dup(driver.fileno()))
    record.info[_connect] = _timer(STATEMENT_SECONDS, own), own
    return driver


def _timer(seconds: float, own: socket.socket) -> threading.Timer:
    timer = threading.Timer(seconds, _break_off, [own])
    timer.start()
    return timer


def _extend(connection: sql.Connection) -> None:
    """Allow more time for a connection that makes the tables; a no-op for SQLite."""
    if armed := connection.info.get(_connect):
        timer, own = armed
        timer.cancel()
        connection.info[_connect] = _timer(PREPARE_SECONDS, own), own


def _break_off(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _disarm(_: object, record: Any) -> None:
    timer, own = record.info.pop(_connect)
    timer.cancel()
    timer.join()
    own.close()


def _limit_server(connection: sql.Connection, seconds: float) -> None:
    """Have the server stop as well: nobody waits for its work any more."""
    if connection.dialect.name == "postgresql":
        milliseconds = round(seconds * 1000)
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")


def _prepare(connection: sql.Connection) -> None:
    """Make the tables in an empty database. Raises: HistoryUnavailable if others are there."""
    if not sql.inspect(connection).has_table(_version.name):
        connection.exec_driver_sql(ALONE[connection.dialect.name])
        _metadata.create_all(connection)
        if connection.scalar(sql.select(_version.c.version)) is None:
            connection.execute(sql.insert(_version).values(version=SCHEMA_VERSION))
    version = connection.scalar(sql.select(sql.func.max(_version.c.version)))
    if version != SCHEMA_VERSION:
        raise HistoryUnavailable(
            f"database: has version {version} of the schema, and this program needs "
            f"{SCHEMA_VERSION}: run the program that fits it, or point DATABASE_URL elsewhere"
        )
