"""What the tests of the history share: histories of a store, and what ends up in them."""

from datetime import UTC, datetime, timedelta

from common.failures import Failure
from common.record import AnalysisRecord
from common.states import Status
from common.store import Store
from common.submission import Submissions
from operations.history.archive import DatabaseHistory
from operations.settings import OperationsSettings
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
from webhook_service.worker import Delivery, Outcome, Worker

NOW = datetime.now(UTC)
QUOTA = AnalysisFailed(Failure.QUOTA_EXCEEDED, "as planned")
LATER = timedelta(seconds=450)  # an eighth of the time that Redis keeps an analysis
OWNER = "owner-token"
CORE = make_settings(qstash_delay="0s")
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
EVER = (None, NOW - 40 * 24 * HOUR, NOW + HOUR)  # with any code, of any time: for `failed`


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
