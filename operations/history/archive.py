"""What the history adds to the core: the port `History`.

Redis decides what happened; what it says is then written to the database, and nothing else is. A
delivery is answered 200 only when the database has what it settled: otherwise its redelivery finds
the record terminal, asks no model, and writes it. What ends without a delivery (cancelled, timed
out, never queued) is written by whoever settles it, and else by whoever reads it next.
"""

import threading
import time
from contextlib import suppress
from datetime import datetime, timedelta

from common.connection import StoreUnavailable
from common.events import Event, Settled, StoreFailed
from common.failures import Failure
from common.logs import get_logger
from common.ports import HistoryUnavailable
from common.record import AnalysisRecord
from common.states import Status
from common.store import NotFound, Store
from common.times import QSTASH_DELIVERIES
from common.tracing import span
from common.versions import Unreadable
from operations.history.database import Database
from operations.history.settings import HistorySettings

MAX_REMEMBERED = 1000
PAUSE_SECONDS = 30.0  # after the database was away: people wait for what is only a precaution
MAX_RETRY = timedelta(hours=1)
ENDED_WITHOUT_DELIVERY = (Failure.TIMED_OUT, Failure.NOT_QUEUED)

log = get_logger(__name__)


class DatabaseHistory:
    """Keeps what has ended; safe to share between threads."""

    def __init__(self, settings: HistorySettings, store: Store) -> None:
        self.keeps = timedelta(days=settings.history_days)
        self.database = Database(settings)
        self._store = store
        # Redis has the analysis meanwhile: a message's deliveries, and those of the report that it
        # was given up, are spread over the time that it keeps it.
        self._retry_after = min(store.ttl / (2 * QSTASH_DELIVERIES), MAX_RETRY)
        self._resume_at = 0.0
        self._this_thread = threading.local()
        self._archived: set[tuple[str, datetime | None]] = set()
        store.events.subscribe(self._watch)

    def ended(self, request_id: str) -> None:
        """Keep what Redis says, if it is terminal by Redis's own clock. Safe to repeat.

        Raises: NotFound, Unreadable, StoreUnavailable, HistoryUnavailable.
        """
        self._this_thread.is_ending = True
        try:
            record = self._store.current(request_id)
        finally:
            self._this_thread.is_ending = False
        if not record.status.is_terminal:
            return
        try:
            with span("INSERT analyses", asks_another=True):
                self.database.write(record)
        except HistoryUnavailable as error:
            raise HistoryUnavailable(str(error), self._retry_after) from error

    def noticed(self, record: AnalysisRecord) -> None:
        """Keep, once, what ended without a delivery; a database that is away stops nobody."""
        is_ours = record.status is Status.CANCELLED or record.failure in ENDED_WITHOUT_DELIVERY
        this = record.request_id, record.finished_at
        if not is_ours or this in self._archived or time.monotonic() < self._resume_at:
            return
        try:
            with suppress(NotFound, Unreadable):  # deleted, or changed by a newer version, just now
                self.ended(record.request_id)
        except StoreUnavailable as error:
            failed = StoreFailed(error.store, str(error), request_id=record.request_id)
            self._store.events.emit(failed)
            self._resume_at = time.monotonic() + PAUSE_SECONDS
            return
        if len(self._archived) >= MAX_REMEMBERED:
            self._archived.clear()
        self._archived.add(this)

    def find(self, request_id: str) -> AnalysisRecord:
        """Read all that is kept. Raises: NotFound, Unreadable, HistoryUnavailable."""
        return self.database.find(request_id)

    def check(self) -> None:
        """Raise HistoryUnavailable unless the database takes what ends; leaves nothing there."""
        self.database.ping()

    def forget(self, request_id: str) -> None:
        """Erase what is kept, and what is on its way; by Redis's clock, as all times are.

        Raises: StoreUnavailable, HistoryUnavailable.
        """
        self.database.delete(request_id, self._store.now())

    def _watch(self, event: Event) -> None:
        is_ending = getattr(self._this_thread, "is_ending", False)  # then it is written anyway
        if isinstance(event, Settled) and not is_ending:
            self.noticed(event.record)
