"""What the durable history adds to `submission.py`, when there is a `DATABASE_URL`.

Redis decides what happened; what it says is then written to the archive, and nothing else is. What
a delivery settles, its answer vouches for (`webhook_service/archiving.py`). What ends without one
(cancelled, timed out, never queued) is written by who settles it, and else by who reads it next.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from common.failures import Failure
from common.logs import get_logger
from common.qstash import Queue
from common.record import AnalysisRecord, Status
from common.settings import Settings
from common.store import NotFound, Store, StoreUnavailable, Unreadable
from common.submission import Submissions

if TYPE_CHECKING:
    from operations.history.database import Archive
    from operations.history.settings import HistorySettings
    from operations.limit_settings import LimitSettings

MAX_REMEMBERED = 1000
PAUSE_SECONDS = 30.0  # after the database was away: people wait for what is only a precaution
ENDED_WITHOUT_DELIVERY = (Failure.TIMED_OUT, Failure.NOT_QUEUED)

log = get_logger(__name__)


def open_archive(settings: HistorySettings | None) -> Archive | None:
    """Make the archive, if there is to be one; once per process, as it limits its connections.

    Connects at first use.
    """
    if settings is None or settings.database_url is None:
        return None
    from operations.history.database import Archive

    return Archive(settings)


def make_submissions(
    store: Store,
    queue: Queue,
    settings: Settings,
    archive: Archive | None,
    *,
    limits: LimitSettings | None = None,
    is_operator: bool = False,
) -> Submissions:
    """Make what a person can do, with the history if there is one."""
    if archive:
        return SubmissionsWithHistory(
            store, queue, settings, archive, limits=limits, is_operator=is_operator
        )
    return Submissions(store, queue, settings, limits=limits, is_operator=is_operator)


def write_down(store: Store, archive: Archive, request_id: str) -> None:
    """Write what Redis says to the archive, if it is terminal by Redis's own clock.

    Safe to repeat. Raises: NotFound, StoreUnavailable (or its HistoryUnavailable).
    """
    record = store.update(request_id, lambda record, _: record)
    if record.status.is_terminal:
        archive.write(record)


class SubmissionsWithHistory(Submissions):
    """Finds in the archive what Redis has forgotten; deletes there, too."""

    def __init__(
        self,
        store: Store,
        queue: Queue,
        settings: Settings,
        archive: Archive,
        **named: Any,
    ) -> None:
        super().__init__(store, queue, settings, **named)
        self._archive = archive
        self._resume_at = 0.0
        self._written: set[tuple[str, datetime | None]] = set()

    def submit(self, *arguments: Any, **named: Any) -> AnalysisRecord:
        return self._kept(super().submit(*arguments, **named))

    def look_up(self, request_id: str) -> AnalysisRecord:
        try:
            return self._kept(super().look_up(request_id))
        except NotFound:
            return self._archive.read(request_id)

    def cancel(self, request_id: str, owner_token: str) -> AnalysisRecord:
        return self._kept(super().cancel(request_id, owner_token))

    def retry(
        self, request_id: str, owner_token: str, visitor: str | None = None
    ) -> AnalysisRecord:
        try:
            return self._kept(super().retry(request_id, owner_token, visitor))
        except NotFound:
            if not self._is_operator:
                raise
        return self._bring_back(request_id)

    def delete(self, request_id: str, owner_token: str) -> None:
        """First in the archive: it must not show what Redis has forgotten."""
        try:
            self._check_owner(self._store.read(request_id), owner_token)
        except NotFound:
            self._check_owner(self._archive.read(request_id), owner_token)
        except Unreadable:  # nobody's, but the operator's to delete
            if not self._is_operator:
                raise
        self._archive.delete(request_id)
        try:
            super().delete(request_id, owner_token)
        except NotFound:
            log.info("deleted from the history", request_id=request_id)

    def _bring_back(self, request_id: str) -> AnalysisRecord:
        """Run again a failed analysis that Redis has forgotten.

        Raises: NotFound, TransitionError.
        """
        now = self._store.now()
        record = self._reopened(self._archive.find(request_id), now)
        if not self._store.create(record):  # somebody else was quicker
            return self._store.read(request_id)
        try:
            self._archive.find(request_id)
        except NotFound:  # deleted just now: it must not come back
            self._store.delete(request_id)
            raise
        log.info("reopened from the history", request_id=request_id, round=record.round)
        return self._publish(record, now)

    def _kept(self, record: AnalysisRecord) -> AnalysisRecord:
        """Write down, once, what ended without a delivery; a database that is away stops nobody."""
        is_ours = record.status is Status.CANCELLED or record.failure in ENDED_WITHOUT_DELIVERY
        this = record.request_id, record.finished_at
        if not is_ours or this in self._written or time.monotonic() < self._resume_at:
            return record
        try:
            with suppress(NotFound):  # deleted just now
                write_down(self._store, self._archive, record.request_id)
        except StoreUnavailable as error:
            log.warning("not archived", request_id=record.request_id, cause=str(error))
            self._resume_at = time.monotonic() + PAUSE_SECONDS
            return record
        if len(self._written) >= MAX_REMEMBERED:
            self._written.clear()
        self._written.add(this)
        return record
