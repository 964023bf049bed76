"""What the operator's commands work with: the records in Redis, the history, QStash."""

from __future__ import annotations

import heapq
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import click

from common.environment import load
from common.events import Reopened
from common.logs import start_logging
from common.ports import HistoryUnavailable
from common.publishing import Publisher
from common.qstash import DeadLetter, QStashRefused, QStashUnclear, Queue
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.store import NotFound, open_store
from common.submission import Submissions
from operations.history import connect_history, database_of
from operations.records import every_record, in_redis
from operations.settings import OperationsSettings
from operations.statistics import connect_statistics

if TYPE_CHECKING:
    from operations.history.database import Database
    from operations.history.reports import Reports

LOOKED_UP_AT_ONCE = 500  # ids of the history's, in Redis
EVER = timedelta(days=36_500)
T = TypeVar("T")


def load_settings() -> tuple[ServiceSettings, OperationsSettings]:
    """Raises: SettingsError."""
    settings, options = load(ServiceSettings, OperationsSettings)
    start_logging(settings)
    return settings, options


class Found(NamedTuple):
    """A record, and where it is: Redis, or the history alone."""

    record: AnalysisRecord
    where: str


class Wanted(NamedTuple):
    """Which failed analyses are asked for: with a code, or any; that ended in this time."""

    code: str | None
    after: datetime
    before: datetime


class Failed(NamedTuple):
    """What is listed of a failed analysis; in this order, the oldest comes first."""

    finished_at: datetime
    request_id: str
    round: int
    code: str | None
    where: str


class CliContext:
    """All that the commands work with."""

    def __init__(self) -> None:
        self.is_complete = True  # whether all that was asked for could be told
        settings, self.options = load_settings()
        self.store = open_store(settings)
        self.queue = Queue(settings)
        self.statistics = connect_statistics(self.store)
        self.history = connect_history(self.options, self.store)
        self.database = database_of(self.history)
        # No limits: the operator has just fixed what was wrong.
        self.submissions = Submissions(
            self.store, self.queue, settings, history=self.history, is_operator=True
        )

    def retry(self, request_id: str) -> AnalysisRecord:
        """Run a failed analysis again. Raises: NotFound, TransitionError."""
        try:
            return self.submissions.retry(request_id, "")
        except NotFound:
            return self._bring_back(request_id)

    def _bring_back(self, request_id: str) -> AnalysisRecord:
        """Run again one that Redis has forgotten. Raises: NotFound, TransitionError."""
        now = self.store.now()
        record = self.submissions.reopened(self.history.find(request_id), now)
        if not self.store.create(record):  # somebody else was quicker
            return self.store.read(request_id)
        try:
            self.history.find(request_id)
        except NotFound:  # deleted just now: it must not come back
            self.store.delete(request_id)
            raise
        self.store.events.emit(Reopened(record))
        return Publisher(self.store, self.queue).publish(record, now)

    def find(self, request_id: str) -> Found:
        """Raises: NotFound."""
        try:
            return Found(self.store.read(request_id), "Redis")
        except NotFound:
            return Found(self.history.find(request_id), "history")

    def failed(self, wanted: Wanted, limit: int | None = None) -> Iterator[Failed]:
        """The oldest first, while they are read. Redis decides about those that both know.

        Holds what is listed of those in Redis (at most `limit`), and a page of the history's.
        """
        in_redis = self._failed_in_redis(wanted, limit)
        in_order = heapq.merge(in_redis, self._failed_in_history(wanted))
        same = groupby(in_order, key=attrgetter("request_id"))  # Redis has lost it meanwhile
        return islice((next(each) for _, each in same), limit)

    def _failed_in_redis(self, wanted: Wanted, limit: int | None) -> list[Failed]:
        found = (
            Failed(record.finished_at, record.request_id, record.round, record.failure, "Redis")
            for record in self.every_record()
            if record.failure
            and wanted.code in (None, record.failure)
            and record.finished_at
            and wanted.after <= record.finished_at <= wanted.before
        )
        return heapq.nsmallest(limit, found) if limit else sorted(found)

    def _failed_in_history(self, wanted: Wanted) -> Iterator[Failed]:
        rows = self.from_history(lambda reports: reports.failed(*wanted))
        while page := list(islice(rows, LOOKED_UP_AT_ONCE)):
            known = in_redis(self.store, [row.request_id for row in page])
            for request_id, number, code, finished_at in page:
                if request_id not in known:
                    yield Failed(finished_at, request_id, number, code, "history")

    def every_record(self) -> Iterator[AnalysisRecord]:
        """All in Redis that can be read; a warning if some can't."""
        unreadable: list[str] = []
        yield from every_record(self.store, unreadable)
        if unreadable:
            self.warn(f"{len(unreadable)} in Redis can't be read: see the log.")

    def from_history(self, ask: Callable[[Reports], Iterable[T]]) -> Iterator[T]:
        """What the history answers, if there is one; a warning once it is away.

        It may go after some rows have been told: Redis knows the rest.
        """
        try:
            if self.database:
                yield from ask(self.database.reports)
        except HistoryUnavailable as error:
            self.warn(f"The history does not answer: {error}")

    def ask_database(self, ask: Callable[[Database], T]) -> T | None:
        """Ask the history; None without one, or with a warning if it is away."""
        try:
            return ask(self.database) if self.database else None
        except HistoryUnavailable as error:
            self.warn(f"The history does not answer: {error}")
            return None

    def database_to_change(self) -> Database:
        """The history, for a command that is about nothing else."""
        if self.database is None:
            raise click.ClickException("There is no history: DATABASE_URL is not set.")
        return self.database

    def dead_letters(
        self, take: Callable[[Iterator[DeadLetter]], T], request_id: str | None = None
    ) -> T | None:
        """Take from QStash's dead letters, or those of one analysis; None if it won't say."""
        try:
            return take(self.queue.dead_letters(request_id))
        except (QStashRefused, QStashUnclear) as error:
            self.warn(f"QStash does not show its dead letters: {error}")
            return None

    def warn(self, sentence: str) -> None:
        """Tell what could not be told."""
        self.is_complete = False
        click.echo(sentence, err=True)

    def end(self) -> None:
        """Exit with status 1 if something that was asked for is not known."""
        if not self.is_complete:
            sys.exit(1)
