"""What the tests of the history share: histories of a store, and what ends up in them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from common.failures import Failure
from common.record import AnalysisRecord
from common.states import Status
from common.store import Store
from common.submission import Submissions
from operations.history import connect_history
from operations.history.archive import DatabaseHistory
from operations.history.unarchived import UNARCHIVED
from operations.settings import OperationsSettings
from operations.statistics import connect_statistics
from tests.conftest import make_options, make_settings
from tests.fakes import (
    ADA,
    ANALYSIS,
    CALL,
    ID,
    LEASE,
    FakeAnalyst,
    FakeQueue,
    pending,
)
from webhook_service.answer import AnalysisFailed
from webhook_service.worker import Delivery, Outcome, OutcomeKind, Worker

NOW = datetime.now(UTC)
QUOTA = AnalysisFailed(Failure.QUOTA_EXCEEDED, "as planned")
LATER = timedelta(seconds=450)  # an eighth of the time that Redis keeps an analysis
OWNER = "owner-token"
CORE = make_settings(qstash_delay="0s")
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
EVER = (None, NOW - 40 * 24 * HOUR, NOW + HOUR)  # with any code, of any time: for `failed`
TTL = timedelta(milliseconds=400)  # of a Redis that forgets while a test waits


def settings_for(url: str, **changes: object) -> OperationsSettings:
    options: OperationsSettings = make_options(database_url=url, **changes)
    return options


def make_worker(store: Store, settings: OperationsSettings, *answers: Exception) -> Worker:
    history = DatabaseHistory(settings, store)
    return Worker(store, FakeAnalyst(*answers), CORE.times, history=history)


def make_people(store: Store, settings: OperationsSettings) -> Submissions:
    return Submissions(store, FakeQueue(), CORE, history=DatabaseHistory(settings, store))


def completed(
    number: int = 1,
    at: datetime = NOW,
    request_id: str = ID,
    *,
    created_at: datetime | None = None,
) -> AnalysisRecord:
    """As it is once it was completed, in its round, at that time; created then, if not before."""
    claimed = pending(at, timedelta(0), request_id).claim(
        "token", of_round=1, now=at, call=CALL, lease=LEASE
    )
    done = claimed.complete("token", ANALYSIS, model=f"model-{number}", now=at)
    return done.model_copy(update={"round": number, "created_at": created_at or at})


def failed(at: datetime = NOW, **changes: object) -> AnalysisRecord:
    return completed(at=at).model_copy(
        update={
            "status": Status.FAILED,
            "failure": Failure.QUOTA_EXCEEDED,
            "result": None,
            "input": ADA,
            **changes,
        }
    )


def deliver(worker: Worker) -> Outcome:
    return worker.process(Delivery(request_id=ID, round=1))


def made(store: Store, number: int, **changes: Any) -> str:
    """Store an analysis that is due."""
    record = pending(store.now() - HOUR, timedelta(0), f"{number:032x}")
    later = {"deadline_at": store.now() + HOUR}
    store.create(record.model_copy(update=later | changes))
    return record.request_id


class Site:
    """One process with a history, as it begins: nothing is known of the one before."""

    def __init__(self, client: redis.Redis, settings: OperationsSettings, **options: Any) -> None:
        self.store = Store(client, ttl=options.pop("ttl", TTL))
        self.statistics = connect_statistics(self.store)
        history = connect_history(settings, self.store, self.statistics, **options)
        assert isinstance(history, DatabaseHistory)
        self.history, self.client = history, client
        self.people = Submissions(
            self.store, FakeQueue(), CORE, history=self.history, is_operator=True
        )

    def deliver(self, request_id: str, *answers: AnalysisFailed, number: int = 1) -> OutcomeKind:
        worker = Worker(self.store, FakeAnalyst(*answers), CORE.times, history=self.history)
        return worker.process(Delivery(request_id=request_id, round=number)).kind

    def sweep(self) -> bool:
        """As if it were this process's turn."""
        self.client.delete("unarchived:turn")
        return self.history.sweep()

    def waiting(self) -> set[str]:
        return {str(each) for each in self.client.zrange(UNARCHIVED, 0, -1)}

    def gauges(self) -> dict[str, float]:
        told = self.statistics.gauges(self.store.now())
        return {each.name.removeprefix("analysis_"): each.value for each in told}
