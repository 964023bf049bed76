"""The durable history: what Redis has decided, kept in a database.

`schema.py` says what the tables hold. Every write is safe to repeat.
"""

import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import sqlalchemy as sql

from common.fields import REQUEST_ID_PATTERN
from common.logs import get_logger
from common.ports import HistoryUnavailable
from common.record import AnalysisRecord
from common.states import Status
from common.store import NotFound, nobodys_id, parse_record, utc_now
from operations.history import address, causes
from operations.history.connections import Connections
from operations.history.reports import Reports
from operations.history.schema import DELETED, analyses, is_kept
from operations.history.settings import HistorySettings
from operations.history.writer import INSERTS, write_rows

PURGE_EVERY_SECONDS = 600.0

log = get_logger(__name__)


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
        self.reports = Reports(self.connections, timedelta(days=settings.history_days))
        self._purged_at: float | None = None

    def write(self, record: AnalysisRecord) -> None:
        """Keep a terminal record, unless a later one is here, or it was deleted."""
        self.write_many([record])
        self._purge_now_and_then()

    def write_many(self, records: Iterable[AnalysisRecord]) -> None:
        """Keep terminal records, each as `write` does, all or none."""
        self.connections.write([self._row(record) for record in records])

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
        wanted = analyses.c.request_id == request_id, is_kept(self.reports.since())
        query = sql.select(analyses.c.record).where(*wanted)
        raw = self.connections.run(lambda connection: connection.scalar(query))
        return parse_record(raw, request_id)

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

    def ping(self) -> None:
        """Raise HistoryUnavailable unless a row can be written, read and removed.

        As deliveries and the commands do it; then it is rolled back, and nobody sees it.
        """
        trial = _trial()
        row = analyses.c.request_id == trial["request_id"]

        def try_it(connection: sql.Connection) -> None:
            write_rows(connection, [trial])
            written = connection.scalar(sql.select(analyses.c.record).where(row))
            connection.execute(analyses.delete().where(row))
            connection.get_transaction().rollback()  # type: ignore[union-attr]  # `run` begins one
            if written != trial["record"]:
                raise HistoryUnavailable(f"database: {causes.FOREIGN}")

        self.connections.run(try_it)

    def _purge_now_and_then(self) -> None:
        """There is no scheduler: those who write sweep as well."""
        now = time.monotonic()
        if self._purged_at is not None and now - self._purged_at < PURGE_EVERY_SECONDS:
            return
        self._purged_at = now
        try:
            self.reports.purge()
        except HistoryUnavailable as error:  # the analysis is written, and this can wait
            log.warning("history not purged", cause=str(error))


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
