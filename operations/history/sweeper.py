"""Writes what has ended and is not in the history yet, as soon as the database takes it.

It runs in a thread of its own, which there is only while something waits: woken by whoever ends an
analysis without a delivery, has failed to write, or finds others waiting.
"""

import logging
import threading
import time
from dataclasses import dataclass

from common.connection import StoreUnavailable
from common.events import Event, Events, RecordNotRead, StoreFailed
from common.logs import get_logger
from common.ports import HistoryBusy, HistoryUnavailable
from common.record import AnalysisRecord
from common.store import NotFound, parse_record
from common.versions import Unreadable
from operations.history.database import Database
from operations.history.unarchived import Ended, Unarchived, ended, instant

SOON_SECONDS = 1.0  # what ends together is written together
PAUSE_SECONDS = 30.0  # longer than a turn
FEW, MANY = 10, 200  # at a time: until the database has taken some, and then
MAX_REMEMBERED = 1000

log = get_logger(__name__)


@dataclass(frozen=True)
class Refused(Event):
    """The database takes others, and not this one."""

    request_id: str
    cause: str
    line = "history refuses an analysis"
    usual_level = logging.ERROR


@dataclass(frozen=True)
class Lost(Event):
    """The record was gone from Redis before the database had it."""

    request_id: str
    ended_at: str
    cause: str = "the database was away for over HISTORY_MAX_OUTAGE, or Redis lost the record"
    line = "history lost an analysis"
    usual_level = logging.ERROR


class Sweeper:
    """Writes the unarchived; safe to share between threads."""

    def __init__(self, database: Database, unarchived: Unarchived, events: Events) -> None:
        self._database = database
        self._unarchived = unarchived
        self._events = events
        self._lock = threading.Lock()
        self._is_wanted = self._is_running = False
        self._told: set[Ended] = set()

    def wake(self) -> None:
        """Sweep soon, and again until nothing is left. Returns at once."""
        with self._lock:
            self._is_wanted = True
            if not self._is_running:
                threading.Thread(target=self._run, name="history-sweeper", daemon=True).start()
                self._is_running = True

    def _run(self) -> None:
        time.sleep(SOON_SECONDS)
        while self._is_due():
            if not self._sweep_or_tell():
                self.wake()
            time.sleep(PAUSE_SECONDS)

    def _is_due(self) -> bool:
        with self._lock:
            self._is_running, self._is_wanted = self._is_wanted, False
            return self._is_running

    def _sweep_or_tell(self) -> bool:
        try:
            return self.sweep()
        except StoreUnavailable as error:
            self._events.emit(StoreFailed(error.store, str(error), at="history"))
        except Exception as error:  # a fault of ours must not end the thread
            log.error("unexpected error", exc_info=error)
        return False

    def sweep(self) -> bool:
        """Write all, those first that ended first; say whether none is left.

        One that the database refuses, or that can't be read, is left aside, and holds up no other.
        Raises: StoreUnavailable, HistoryUnavailable.
        """
        left, number = 0, FEW
        these = self._unarchived.take(0, number, is_first=True)
        while these:
            left += self._write(these)
            if len(these) < number:
                break
            number = MANY
            these = self._unarchived.take(left, number)
        return these is not None and not left

    def _write(self, these: list[Ended]) -> int:
        """Write some, and say how many of them are left."""
        records: dict[str, AnalysisRecord] = {}
        gone, unfinished, left = [], [], 0
        for each, value in zip(these, self._unarchived.values(these), strict=True):
            try:
                record = parse_record(value, each.request_id)
            except NotFound:
                gone.append(each)
            except Unreadable as error:
                left += 1
                self._tell(each, RecordNotRead(error))
            else:
                if record.status.is_terminal:
                    records[each.request_id] = record
                else:  # begun again by an earlier version, which doesn't know the set
                    unfinished.append(each)
        if gone:
            self._tell_lost(gone)
        if unfinished:
            self._unarchived.drop(unfinished)
        refused = self._write_or_refuse(sorted(records.values(), key=lambda each: each.request_id))
        written = [each for each in these if each.request_id in records.keys() - refused]
        if written:
            self._unarchived.leave(written)
        return left + len(refused)

    def _write_or_refuse(self, records: list[AnalysisRecord]) -> set[str]:
        """Write them, in halves where that fails, down to the ones that the database refuses.

        Raises: HistoryUnavailable, when it takes nothing at all.
        """
        if not records:
            return set()
        try:
            self._database.write_many(records)
            return set()
        except HistoryBusy:
            raise
        except HistoryUnavailable as error:
            self._database.ping()
            if len(records) == 1:
                this = ended(records[0])
                self._tell(this, Refused(this.request_id, str(error)))
                return {this.request_id}
        middle = len(records) // 2
        return self._write_or_refuse(records[:middle]) | self._write_or_refuse(records[middle:])

    def _tell_lost(self, gone: list[Ended]) -> None:
        lost = self._unarchived.drop(gone, are_lost=True)
        for each in gone:
            if each.request_id in lost:
                self._events.emit(Lost(each.request_id, instant(each.ended_at).isoformat()))

    def _tell(self, this: Ended, event: Event) -> None:
        """Tell of one that is left, once: it is tried again and again."""
        if this in self._told:
            return
        if len(self._told) >= MAX_REMEMBERED:
            self._told.clear()
        self._told.add(this)
        self._events.emit(event)
