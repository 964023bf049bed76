"""One delivery, with the real store on fakeredis and a fake analyst."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import redis

from common.connection import StoreUnavailable, connect
from common.failures import Failure, Kind
from common.record import AnalysisRecord
from common.states import Status
from common.store import Store, Transition
from tests.conftest import make_settings, make_store
from tests.fakes import (
    ADA,
    ANALYSIS,
    DEADLINE,
    DELAY,
    ID,
    LEASE,
    TOKENS,
    FakeAnalyst,
    end_lease,
    pending,
    with_fields,
)
from webhook_service.answer import AnalysisFailed, Answer
from webhook_service.worker import Delivery, Outcome, OutcomeKind, Worker

NO_DELAY = timedelta(0)
DELIVERY = Delivery(request_id=ID, round=1)
TRANSIENT = AnalysisFailed(Failure.MODEL_UNAVAILABLE, "HTTP 503")
SETTLED, IGNORED = Outcome(OutcomeKind.SETTLED), Outcome(OutcomeKind.IGNORED)


@pytest.fixture
def analyst() -> FakeAnalyst:
    return FakeAnalyst()


@pytest.fixture
def worker(store: Store, analyst: FakeAnalyst) -> Worker:
    return Worker(store, analyst, make_settings().times)


@pytest.fixture
def due(store: Store) -> AnalysisRecord:
    record = pending(store.now(), NO_DELAY)
    store.create(record)
    return record


def make_due(store: Store) -> None:
    """Let the time until the next attempt pass."""
    store.update(ID, lambda r, now: with_fields(r, next_attempt_at=now))


def test_a_due_record_is_analysed_and_completed(
    worker: Worker, store: Store, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    outcome = worker.process(DELIVERY)

    record = store.read(ID)
    assert outcome == SETTLED
    assert analyst.calls == [ADA]
    assert (record.status, record.result, record.model) == (Status.COMPLETED, ANALYSIS, "fake")


def test_only_a_completed_attempt_counts_for_the_usual_duration(
    worker: Worker, store: Store, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    analyst.answers = [TRANSIENT, Answer(ANALYSIS, model="fake")]

    worker.process(DELIVERY)
    assert store.usual_duration() is None
    make_due(store)
    worker.process(DELIVERY)

    assert store.usual_duration() is not None


def test_the_usual_duration_is_the_median_of_all_workers_latest(
    store: Store, analyst: FakeAnalyst
) -> None:
    seconds = iter(x for took in [100] * 5 + [8] * 10 + [9] * 10 for x in (0.0, took, took))
    one, other = (
        Worker(store, analyst, make_settings().times, monotonic=lambda: next(seconds))
        for _ in range(2)
    )

    for number in range(25):
        store.create(pending(store.now(), NO_DELAY, request_id=f"{number:032x}"))
        (one if number % 2 else other).process(Delivery(request_id=f"{number:032x}", round=1))

    assert store.usual_duration() == timedelta(seconds=8.5)


def test_the_tokens_of_a_call_are_stored_with_its_result(
    worker: Worker, store: Store, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    analyst.answers = [Answer(ANALYSIS, "fake", TOKENS)]

    worker.process(DELIVERY)

    assert store.read(ID).tokens == TOKENS


def test_a_second_delivery_of_a_settled_analysis_makes_no_call(
    worker: Worker, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    worker.process(DELIVERY)

    assert worker.process(DELIVERY) == IGNORED
    assert len(analyst.calls) == 1


def test_a_delivery_during_an_attempt_is_told_to_come_back(
    worker: Worker, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    meanwhile: list[Outcome] = []
    analyst.during_call = lambda: meanwhile.append(worker.process(DELIVERY))

    assert worker.process(DELIVERY) == SETTLED

    assert [outcome.kind for outcome in meanwhile] == [OutcomeKind.RETRY]
    assert timedelta(seconds=30) < meanwhile[0].retry_after <= timedelta(seconds=41)
    assert len(analyst.calls) == 1


def test_a_delivery_before_its_time_is_told_to_come_back(
    worker: Worker, store: Store, analyst: FakeAnalyst
) -> None:
    store.create(pending(store.now(), DELAY))

    outcome = worker.process(DELIVERY)

    assert outcome.kind is OutcomeKind.RETRY
    assert timedelta(seconds=55) < outcome.retry_after <= DELAY
    assert analyst.calls == []


@pytest.mark.parametrize(
    "prepare",
    [
        pytest.param(lambda store: None, id="unknown or deleted"),
        pytest.param(lambda store: store.create(pending(store.now() - 2 * DEADLINE)), id="overdue"),
        pytest.param(
            lambda store: (
                store.create(pending(store.now(), NO_DELAY)),
                store.update(ID, lambda r, now: r.cancel(now=now)),
            ),
            id="cancelled",
        ),
        pytest.param(
            lambda store: (
                store.create(pending(store.now(), NO_DELAY)),
                store.update(ID, lambda r, now: r.give_up(of_round=1, now=now, lease=LEASE)),
                store.update(
                    ID, lambda r, now: r.reopen(now=now, delay=NO_DELAY, deadline=DEADLINE)
                ),
            ),
            id="older round",
        ),
        pytest.param(
            lambda store: store.create(
                pending(store.now() - DEADLINE + timedelta(seconds=20), NO_DELAY)
            ),
            id="too late",
        ),
    ],
)
def test_a_delivery_with_nothing_to_do_is_done(
    worker: Worker, store: Store, analyst: FakeAnalyst, prepare: Callable[[Store], object]
) -> None:
    prepare(store)

    assert worker.process(DELIVERY) == IGNORED
    assert analyst.calls == []


def test_a_transient_failure_releases_the_record_for_a_retry(
    store: Store, due: AnalysisRecord, fake_redis: redis.Redis
) -> None:
    analyst = FakeAnalyst(TRANSIENT, Answer(ANALYSIS, "fake"))
    worker = Worker(store, analyst, make_settings().times)

    outcome = worker.process(DELIVERY)

    record = store.read(ID)
    assert outcome.kind is OutcomeKind.RETRY
    assert outcome.retry_after == timedelta(seconds=10)
    assert (record.status, record.last_failure) == (Status.PENDING, Failure.MODEL_UNAVAILABLE)

    make_due(store)
    assert worker.process(DELIVERY) == SETTLED
    assert store.read(ID).attempt == 2


def test_after_the_last_attempt_the_analysis_has_failed(store: Store, due: AnalysisRecord) -> None:
    analyst = FakeAnalyst(TRANSIENT)
    worker = Worker(store, analyst, make_settings().times)

    outcomes = []
    for _ in range(3):
        outcomes.append(worker.process(DELIVERY).kind)
        make_due(store)

    assert outcomes == [OutcomeKind.RETRY, OutcomeKind.RETRY, OutcomeKind.SETTLED]
    assert store.read(ID).failure is Failure.ATTEMPTS_EXHAUSTED
    assert len(analyst.calls) == 3


@pytest.mark.parametrize(
    "code", [code for code in Failure if code.kind in (Kind.INPUT, Kind.OPERATOR)]
)
def test_a_permanent_failure_fails_at_once_and_rests_in_the_dlq_if_the_operator_must_act(
    store: Store, due: AnalysisRecord, code: Failure
) -> None:
    worker = Worker(store, FakeAnalyst(AnalysisFailed(code, "x")), make_settings().times)

    outcome = worker.process(DELIVERY)

    is_operators = code.kind is Kind.OPERATOR
    assert outcome.kind is (OutcomeKind.OPERATOR_MUST_ACT if is_operators else OutcomeKind.SETTLED)
    assert store.read(ID).failure is code


def test_a_fault_of_ours_is_an_attempt_that_failed_and_its_text_is_not_logged(
    store: Store, due: AnalysisRecord, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(store, FakeAnalyst(KeyError("PERSONAL")), make_settings().times)

    assert worker.process(DELIVERY).kind is OutcomeKind.RETRY

    assert store.read(ID).last_failure is Failure.INTERNAL_ERROR
    assert "KeyError" in caplog.text
    assert "PERSONAL" not in caplog.text


def test_a_worker_that_died_on_every_attempt_leaves_a_failed_analysis(
    worker: Worker, store: Store, due: AnalysisRecord, fake_redis: redis.Redis
) -> None:
    def claim(token: str) -> Transition:
        return lambda r, now: r.claim(token, of_round=1, now=now, call=NO_DELAY, lease=LEASE)

    for token in "abc":
        store.update(ID, claim(token))
        end_lease(fake_redis)

    assert worker.process(DELIVERY) == SETTLED
    assert store.read(ID).failure is Failure.ATTEMPTS_EXHAUSTED


def test_a_cancellation_during_the_call_stands(
    worker: Worker, store: Store, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    analyst.during_call = lambda: store.update(ID, lambda r, now: r.cancel(now=now))

    assert worker.process(DELIVERY) == IGNORED
    assert store.read(ID).status is Status.CANCELLED


def test_a_deletion_during_the_call_stands(
    worker: Worker, store: Store, analyst: FakeAnalyst, due: AnalysisRecord, fake_redis: redis.Redis
) -> None:
    analyst.during_call = lambda: store.delete(ID)

    assert worker.process(DELIVERY) == IGNORED
    assert fake_redis.keys("*") == []


def test_a_message_id_stored_during_the_call_stays_beside_the_result(
    worker: Worker, store: Store, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    analyst.during_call = lambda: store.update(ID, lambda r, _: r.published("msg", of_round=1))

    assert worker.process(DELIVERY) == SETTLED
    assert (store.read(ID).status, store.read(ID).message_id) == (Status.COMPLETED, "msg")


# ── The failure callback ──


def test_a_message_given_up_fails_the_analysis(
    worker: Worker, store: Store, due: AnalysisRecord
) -> None:
    assert worker.give_up(DELIVERY) == SETTLED
    assert store.read(ID).failure is Failure.DELIVERY_FAILED


def test_a_message_given_up_does_not_touch_a_running_attempt(
    worker: Worker, store: Store, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    meanwhile: list[Outcome] = []
    analyst.during_call = lambda: meanwhile.append(worker.give_up(DELIVERY))

    worker.process(DELIVERY)

    assert meanwhile[0].kind is OutcomeKind.RETRY
    assert store.read(ID).status is Status.COMPLETED


def test_a_late_callback_changes_nothing(worker: Worker, store: Store, due: AnalysisRecord) -> None:
    worker.process(DELIVERY)

    assert worker.give_up(DELIVERY) == IGNORED
    assert store.read(ID).status is Status.COMPLETED


# ── Redis away ──


class FailingStore(Store):
    """A store whose updates fail as often as told, after the first."""

    failures = 0
    updates = 0

    def update(
        self,
        request_id: str,
        transition: Transition,
        *,
        known: tuple[AnalysisRecord, datetime] | None = None,
        cause: str | None = None,
    ) -> AnalysisRecord:
        self.updates += 1
        if 1 < self.updates <= 1 + self.failures:
            raise StoreUnavailable("away")
        return super().update(request_id, transition, known=known, cause=cause)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def worker_with_failing_store(client: redis.Redis, failures: int) -> tuple[Worker, Clock]:
    times = make_settings().times
    store = FailingStore(client, ttl=timedelta(hours=1))
    store.failures = failures
    clock = Clock()
    return Worker(store, FakeAnalyst(), times, clock.monotonic, clock.sleep), clock


def test_a_paid_answer_is_stored_as_soon_as_redis_is_back(
    fake_redis: redis.Redis, store: Store, due: AnalysisRecord
) -> None:
    worker, _ = worker_with_failing_store(fake_redis, failures=5)

    assert worker.process(DELIVERY) == SETTLED
    assert store.read(ID).status is Status.COMPLETED


def test_a_paid_answer_is_given_up_when_the_lease_ends(
    fake_redis: redis.Redis, store: Store, due: AnalysisRecord
) -> None:
    worker, clock = worker_with_failing_store(fake_redis, failures=1000)

    outcome = worker.process(DELIVERY)

    assert outcome == Outcome(OutcomeKind.RETRY, timedelta(seconds=10))
    assert 39 <= clock.now <= 40
    assert store.read(ID).status is Status.PROCESSING


def test_redis_away_at_the_claim_makes_no_call(analyst: FakeAnalyst) -> None:
    worker = Worker(make_store(connect(make_settings())), analyst, make_settings().times)

    assert worker.process(DELIVERY) == Outcome(OutcomeKind.RETRY, timedelta(seconds=10))
    assert worker.give_up(DELIVERY) == Outcome(OutcomeKind.RETRY, timedelta(seconds=10))
    assert analyst.calls == []


@pytest.mark.parametrize(
    ("act", "kind"),
    [("process", OutcomeKind.OPERATOR_MUST_ACT), ("give_up", OutcomeKind.IGNORED)],
)
def test_a_record_that_cannot_be_read_is_left_to_the_operator_with_one_line(
    store: Store,
    fake_redis: redis.Redis,
    broken_record: str,
    act: str,
    kind: OutcomeKind,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake_redis.set(f"analysis:{{{ID}}}", broken_record)
    worker = Worker(store, FakeAnalyst(), make_settings().times)

    outcome = getattr(worker, act)(Delivery(request_id=ID, round=1))

    assert outcome.kind is kind  # its message rests in the DLQ, and is not asked for again
    assert fake_redis.get(f"analysis:{{{ID}}}") == broken_record
    (line,) = [json.loads(each) for each in caplog.text.splitlines()]
    assert (line["event"], line["request_id"]) == ("record not read", ID)
