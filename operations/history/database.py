"""The durable history: what Redis has decided, kept in a database.

`schema.py` says what the tables hold. Every write is safe to repeat.
"""

import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite

from common.failures import Failure
from common.fields import REQUEST_ID_PATTERN
from common.logs import get_logger
from common.ports import HistoryUnavailable
from common.record import AnalysisRecord
from common.states import Status
from common.store import NotFound, nobodys_id, parse_record, utc_now
from operations.history import address, causes
from operations.history.connections import Connections
from operations.history.schema import DELETED, analyses
from operations.history.settings import HistorySettings

PURGE_EVERY_SECONDS = 600.0
MAX_PURGED = 1000  # at a time, so that no write waits for long
PAGE = 5000  # rows that are read at a time, within the time that a statement has
INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}

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
    """The history. Every method raises HistoryUnavailable when the database is away, within the
    time that `connections.py` allows.
    """

    def __init__(self, settings: HistorySettings) -> None:
        assert settings.database_url, "without one there is no history"
        url, dropped = address.database(settings.database_url.get_secret_value())
        if dropped:
            log.warning("parameters left out", cause=f"DATABASE_URL: {', '.join(dropped)}")
        self.connections = Connections(url)
        self._keeps_input = settings.keep_input
        self._days = timedelta(days=settings.history_days)
        self._purged_at: float | None = None

    def write(self, record: AnalysisRecord) -> None:
        """Keep a terminal record, unless a later one is here, or it was deleted."""
        self.write_many([record])
        self._purge_now_and_then()

    def write_many(self, records: Iterable[AnalysisRecord]) -> None:
        """Keep terminal records, each as `write` does, all or none."""
        rows = [self._row(record) for record in records]

        def write(connection: sql.Connection) -> None:
            connection.execute(_upsert(connection), rows)

        self.connections.run(write)

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
        wanted = analyses.c.request_id == request_id, self._is_kept()
        query = sql.select(analyses.c.record).where(*wanted)
        raw = self.connections.run(lambda connection: connection.scalar(query))
        return parse_record(raw, request_id)

    def failed(
        self,
        code: str | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
    ) -> Iterator[FailedRow]:
        """All that are kept, the oldest first, and have failed with this code and in this time.

        Reads PAGE rows at a time: no statement takes long, and little memory is needed.
        """
        row = analyses.c
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
            found = [FailedRow(*each) for each in self._rows(following)]
            for each in found:
                yield each._replace(finished_at=_in_utc(each.finished_at))
            if len(found) < PAGE:
                return
            last = found[-1]

    def counts(self) -> list[Count]:
        """How many are kept, by status and code."""
        ends = analyses.c.status, analyses.c.code
        query = sql.select(*ends, sql.func.count()).where(self._is_kept())
        return [Count(*each) for each in self._rows(query.group_by(*ends).order_by(*ends))]

    def delete(self, request_id: str, at: datetime) -> None:
        """Erase what is kept and leave a tombstone, even if there was nothing yet.

        What was created before this time is not written again.
        """
        erased = {"status": DELETED, "code": None, "finished_at": at, "record": None}

        def delete(connection: sql.Connection) -> None:
            insert = INSERTS[connection.dialect.name](analyses).values(
                request_id=request_id, round=0, created_at=at, **erased
            )
            connection.execute(
                insert.on_conflict_do_update(index_elements=["request_id"], set_=erased)
            )

        self.connections.run(delete)

    def purge(self) -> int:
        """Remove the oldest 1,000 that are older than `HISTORY_DAYS`; return how many were."""
        too_old = (
            sql.select(analyses.c.request_id)
            .where(sql.not_(self._is_young()))
            .order_by(analyses.c.finished_at)
            .limit(MAX_PURGED)
        )
        delete = analyses.delete().where(analyses.c.request_id.in_(too_old))
        return self.connections.run(lambda connection: connection.execute(delete).rowcount)

    def ping(self) -> None:
        """Raise HistoryUnavailable unless a row can be written, read and removed.

        As deliveries and the commands do it; then it is rolled back, and nobody sees it.
        """
        trial = _trial()
        row = analyses.c.request_id == trial["request_id"]

        def try_it(connection: sql.Connection) -> None:
            connection.execute(_upsert(connection), trial)
            written = connection.scalar(sql.select(analyses.c.record).where(row))
            connection.execute(analyses.delete().where(row))
            connection.get_transaction().rollback()  # type: ignore[union-attr]  # `run` begins one
            if written != trial["record"]:
                raise HistoryUnavailable(f"database: {causes.FOREIGN}")

        self.connections.run(try_it)

    def _rows(self, query: sql.Select[*tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        return self.connections.run(lambda connection: list(map(tuple, connection.execute(query))))

    def _is_young(self) -> sql.ColumnElement[bool]:
        return analyses.c.finished_at > utc_now() - self._days

    def _is_kept(self) -> sql.ColumnElement[bool]:
        return sql.and_(analyses.c.status != DELETED, self._is_young())

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


def _upsert(connection: sql.Connection) -> sql.Executable:
    """Write a row, unless what is there has happened after it."""
    insert = INSERTS[connection.dialect.name](analyses)
    new = insert.excluded
    return insert.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=["request_id"],
        set_={column.name: new[column.name] for column in analyses.c},
        where=_is_later(new),
    )


def _trial() -> dict[str, object]:
    """A row like any other, with characters that not every encoding has."""
    now = utc_now()
    return {
        "request_id": nobodys_id(),
        "round": 1,
        "status": Status.CANCELLED.value,
        "code": None,
        "created_at": now,
        "finished_at": now,
        "record": "Ω 字 🖋",
    }


def _is_later(new: Any) -> sql.ColumnElement[bool]:
    """Whether what is to be written has happened after what is there."""
    row = analyses.c

    def is_greater(*names: str) -> sql.ColumnElement[bool]:
        return sql.tuple_(*(new[name] for name in names)) > sql.tuple_(*(row[n] for n in names))

    return sql.case(
        (row.status == DELETED, new.created_at > row.finished_at),
        # Of rounds that were never queued none counts for more than what ended after it.
        (row.code == Failure.NOT_QUEUED.value, is_greater("created_at", "finished_at")),
        else_=is_greater("created_at", "round", "finished_at"),
    )


def _in_utc(time: datetime) -> datetime:
    """SQLite tells times without a zone, PostgreSQL in that of the session."""
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
