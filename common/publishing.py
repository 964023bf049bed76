"""Gets a round's message to QStash, and writes into the record how that went."""

from collections.abc import Callable
from datetime import datetime

from common.connection import StoreUnavailable
from common.events import Published, PublishFailed
from common.logs import get_logger
from common.qstash import QStashRefused, QStashUnclear, Queue
from common.record import AnalysisRecord
from common.states import TransitionError
from common.store import Store
from common.versions import Unreadable

log = get_logger(__name__)


class Publisher:
    """Publishes what has been stored: the record first, then the message."""

    def __init__(self, store: Store, queue: Queue) -> None:
        self._store = store
        self._queue = queue
        self._events = store.events

    def publish(
        self, record: AnalysisRecord, now: datetime, *, is_first: bool = True
    ) -> AnalysisRecord:
        """Publish this round's message and write into the record how that went.

        If it is not the first try, an earlier one may have been taken without our knowing.
        """
        try:
            message_id = self._queue.publish(record, now=now, is_first=is_first)
        except (QStashRefused, QStashUnclear) as error:
            self._events.emit(PublishFailed(record, str(error)))
            if isinstance(error, QStashUnclear):
                return record
            return self._note(
                record,
                now,
                lambda r, now: r.not_queued(of_round=record.round, is_first=is_first, now=now),
                cause=str(error),
            )
        self._events.emit(Published(record, message_id))
        try:
            return self._note(
                record, now, lambda r, _: r.published(message_id, of_round=record.round)
            )
        except (StoreUnavailable, Unreadable) as error:
            # The message is on its way; without its id the record is only published once more.
            log.warning("message id not stored", request_id=record.request_id, cause=str(error))
            return record

    def _note(
        self,
        record: AnalysisRecord,
        now: datetime,
        transition: Callable[[AnalysisRecord, datetime], AnalysisRecord],
        cause: str | None = None,
    ) -> AnalysisRecord:
        try:
            return self._store.update(
                record.request_id, transition, known=(record, now), cause=cause
            )
        except TransitionError:  # somebody went on with it meanwhile
            return self._store.read(record.request_id)
