"""What the history adds to the core: the port `History`.

Redis decides what happened; what it says is then written to the database, and nothing else is. A
delivery is answered 200 only when the database has what it settled: otherwise its redelivery finds
the record terminal, asks no model, and writes it. What ends without a delivery (cancelled, timed
out, never queued), or longer ago than QStash redelivers, stays in Redis until the sweeper has
written it.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from common.connection import StoreUnavailable
from common.events import Claimed, Deleted, DeliveryIgnored, Event, Settled
from common.failures import Failure
from common.logs import get_logger
from common.ports import HistoryBusy, HistoryUnavailable
from common.record import AnalysisRecord
from common.states import Status
from common.store import Store
from common.times import QSTASH_DELIVERIES
from common.tracing import span
from operations.history.database import Database
from operations.history.settings import HistorySettings
from operations.history.sweeper import PAUSE_SECONDS, Sweeper
from operations.history.unarchived import RECENT, Unarchived, ended
from operations.statistics import Gauge

MAX_RETRY = timedelta(hours=1)
ENDED_WITHOUT_DELIVERY = (Failure.TIMED_OUT, Failure.NOT_QUEUED)

log = get_logger(__name__)


class DatabaseHistory:
    """Keeps what has ended; safe to share between threads."""

    def __init__(
        self, settings: HistorySettings, store: Store, *, in_background: bool = False
    ) -> None:
        self.keeps = timedelta(days=settings.history_days)
        self.database = Database(settings)
        self._store = store
        self._max_outage = settings.history_max_outage
        self._unarchived = Unarchived(store, self._max_outage)
        self._sweeper = Sweeper(self.database, self._unarchived, store.events)
        self._in_background = in_background  # else a command
        self._resume_at = 0.0
        # A message's deliveries, and those of the report that it was given up, are spread over
        # the time that Redis keeps an analysis at least.
        self._retry_after = min(store.ttl / (2 * QSTASH_DELIVERIES), MAX_RETRY)
        self._this_thread = threading.local()
        store.count_with_changes(self._unarchived.note_change)
        store.events.subscribe(self._watch)

    def ended(self, request_id: str) -> None:
        """Keep what Redis says, if it is terminal by Redis's own clock. Safe to repeat.

        Raises: NotFound, Unreadable, StoreUnavailable, HistoryUnavailable.
        """
        record = self._settled_here(request_id) or self._store.current(request_id)
        if not record.status.is_terminal:
            return
        try:
            self._write(record)
        except HistoryBusy:  # some seconds are enough
            self._wake()
            raise
        except HistoryUnavailable as error:
            self._wake()
            raise HistoryUnavailable(str(error), self._retry_after) from error

    def find(self, request_id: str) -> AnalysisRecord:
        """Read all that is kept. Raises: NotFound, Unreadable, HistoryUnavailable."""
        return self.database.find(request_id)

    def check(self) -> None:
        """Raise HistoryUnavailable unless the database takes what ends; leaves nothing there.

        And StoreUnavailable, unless Redis does what that needs.
        """
        self.database.ping()
        self._unarchived.check()

    def forget(self, request_id: str) -> None:
        """Erase what is kept, and what is on its way; by Redis's clock, as all times are.

        Raises: StoreUnavailable, HistoryUnavailable.
        """
        self.database.delete(request_id, self._store.now())

    def save(self, records: list[AnalysisRecord]) -> None:
        """Keep terminal records, whether they wait for it or not: for the operator's command.

        Raises: StoreUnavailable, HistoryUnavailable.
        """
        self.database.write_many(records)
        self._unarchived.leave([ended(each) for each in records])

    def sweep(self) -> bool:
        """Write what is not there yet; False if some of it has to wait.

        Raises: StoreUnavailable, HistoryUnavailable.
        """
        return self._sweeper.sweep()

    def gauges(self, now: datetime) -> Iterator[Gauge]:
        """Tell what waits to be written, and have it written: for each scrape of the metrics."""
        backlog = self._unarchived.backlog()
        longest = max(now - backlog.oldest, timedelta(0)) if backlog.oldest else timedelta(0)
        if longest > RECENT:
            self._wake()
        yield Gauge("analysis_unarchived", "Ended, and not in the history yet", backlog.number)
        yield Gauge(
            "analysis_oldest_unarchived_seconds",
            "How long ago the first of them ended",
            longest.total_seconds(),
        )
        yield Gauge(
            "analysis_history_max_outage_seconds",
            "For how long Redis keeps them for the history",
            self._max_outage.total_seconds(),
        )
        yield Gauge("analysis_history_lost", "Gone before the history had them", backlog.lost)

    def _watch(self, event: Event) -> None:
        match event:
            case Claimed() | DeliveryIgnored():  # it may be another round
                self._this_thread.settled = None
            case Settled(record):
                self._this_thread.settled = record
                if record.status is Status.CANCELLED or record.failure in ENDED_WITHOUT_DELIVERY:
                    self._wake() if self._in_background else self._try_to_write(record)
            case Deleted(request_id, _):
                with self._telling():
                    self._unarchived.forget(request_id)

    def _settled_here(self, request_id: str) -> AnalysisRecord | None:
        """What this thread has settled last, if it was this: Redis needn't be asked again."""
        record: AnalysisRecord | None = getattr(self._this_thread, "settled", None)
        self._this_thread.settled = None
        return record if record and record.request_id == request_id else None

    def _write(self, record: AnalysisRecord) -> None:
        with span("INSERT analyses", asks_another=True):
            self.database.write(record)
        with self._telling():  # it is only written once more
            if self._unarchived.leave([ended(record)]):
                self._wake()

    def _try_to_write(self, record: AnalysisRecord) -> None:
        """In a command, which ends when it is done; a database that is away holds it up once."""
        if time.monotonic() < self._resume_at:
            return
        self._resume_at = time.monotonic() + PAUSE_SECONDS
        with self._telling():
            self._write(record)
            self._resume_at = 0.0

    def _wake(self) -> None:
        if self._in_background:
            self._sweeper.wake()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Go on without a store: what waits to be written is tried again."""
        try:
            yield
        except StoreUnavailable as error:
            log.warning("history lags", cause=str(error))
