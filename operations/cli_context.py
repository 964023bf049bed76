"""What the operator's commands work with: the records in Redis, the history, QStash."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
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
from operations.records import every_record
from operations.settings import OperationsSettings
from operations.statistics import connect_statistics

if TYPE_CHECKING:
    from operations.history.database import Database

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

    def failed(self, code: str | None, after: datetime, before: datetime) -> list[Failed]:
        """The oldest first. Holds only what is listed of each, and of the rest nothing."""
        archived = self.ask_database(lambda database: database.failed(code, after, before))
        found = {
            row.request_id: Failed(row.finished_at, row.request_id, row.round, row.code, "history")
            for row in archived
        }
        for record in self.every_record():
            found.pop(record.request_id, None)  # Redis decides
            if (
                record.failure
                and code in (None, record.failure)
                and record.finished_at
                and after <= record.finished_at <= before
            ):
                found[record.request_id] = Failed(
                    record.finished_at, record.request_id, record.round, record.failure, "Redis"
                )
        return sorted(found.values())

    def every_record(self) -> Iterator[AnalysisRecord]:
        """All in Redis that can be read; a warning if some can't."""
        unreadable: list[str] = []
        yield from every_record(self.store, unreadable)
        if unreadable:
            self.is_complete = False
            click.echo(f"{len(unreadable)} in Redis can't be read: see the log.", err=True)

    def ask_database(self, ask: Callable[[Database], Iterable[T]]) -> list[T]:
        """Ask the history, if there is one; a warning if it is away, as Redis knows the rest."""
        try:
            return list(ask(self.database)) if self.database else []
        except HistoryUnavailable as error:
            self.is_complete = False
            click.echo(f"The history does not answer: {error}", err=True)
            return []

    def dead_letters(self) -> dict[str, DeadLetter] | None:
        """What rests in QStash's dead-letter queue, by request id; None if it won't say."""
        try:
            return {letter.request_id: letter for letter in self.queue.dead_letters()}
        except (QStashRefused, QStashUnclear) as error:
            self.is_complete = False
            click.echo(f"QStash does not show its dead letters: {error}", err=True)
            return None

    def end(self) -> None:
        """Exit with status 1 if something that was asked for is not known."""
        if not self.is_complete:
            sys.exit(1)
