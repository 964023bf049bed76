"""Deliveries where there is a history: answered 200 only when the archive has what Redis says.

While the database is away, a settled delivery is answered 503; its redelivery finds the record
terminal, asks no model, and writes it. So does QStash's report that it has given a message up.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from common.history import write_down
from common.logs import get_logger
from common.settings import Settings
from common.store import HistoryUnavailable, NotFound, Store, StoreUnavailable
from common.times import QSTASH_DELIVERIES
from webhook_service.worker import (
    STORE_RETRY,
    AnalystProtocol,
    Delivery,
    Outcome,
    OutcomeKind,
    Worker,
)

if TYPE_CHECKING:
    from operations.history.database import Archive

MAX_ARCHIVE_RETRY = timedelta(hours=1)

log = get_logger(__name__)


class ArchivingWorker(Worker):
    """A worker whose outcome counts once the archive has it, too."""

    def __init__(
        self, store: Store, analyst: AnalystProtocol, settings: Settings, archive: Archive
    ) -> None:
        super().__init__(store, analyst, settings.times)
        self._archive = archive
        # Redis has the analysis meanwhile: a message's deliveries, and those of the report that it
        # was given up, are spread over the time that it keeps it.
        self._retry = min(settings.ttl / (2 * QSTASH_DELIVERIES), MAX_ARCHIVE_RETRY)

    def process(self, delivery: Delivery) -> Outcome:
        return self._archived(delivery, super().process(delivery))

    def give_up(self, delivery: Delivery) -> Outcome:
        return self._archived(delivery, super().give_up(delivery))

    def _archived(self, delivery: Delivery, outcome: Outcome) -> Outcome:
        if outcome.kind is OutcomeKind.RETRY:
            return outcome
        try:
            write_down(self._store, self._archive, delivery.request_id)
        except NotFound:  # deleted, or its time is over: it must not come back
            return outcome
        except StoreUnavailable as error:
            log.error("not archived", **delivery.model_dump(), cause=str(error))
            is_archive = isinstance(error, HistoryUnavailable)
            return Outcome(OutcomeKind.RETRY, self._retry if is_archive else STORE_RETRY)
        return outcome
