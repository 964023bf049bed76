"""What is counted over all analyses, on fakeredis and on the real server alike."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
import redis

from common.connection import StoreUnavailable
from common.events import AttemptFailed
from common.failures import Failure
from common.qstash import QStashRefused
from common.record import AnalysisRecord
from common.states import Status
from common.store import Store, Transition, record_key
from common.submission import Submissions
from operations.statistics import MAX_OVERDUE, Statistics, connect_statistics, day_of
from tests.conftest import make_settings, make_store
from tests.fakes import (
    ADA,
    ANALYSIS,
    CALL,
    DEADLINE,
    DELAY,
    ID,
    LEASE,
    OTHER_ID,
    TOKENS,
    FakeAnalyst,
    FakeQueue,
    pending,
)
from tests.versions import of_newer, of_older
from webhook_service.answer import AnalysisFailed, Answer
from webhook_service.worker import Delivery, Outcome, OutcomeKind, Worker

OWNER = "owner-token"
NO_DELAY = timedelta(0)
DELIVERY = Delivery(request_id=ID, round=1)
Write = Callable[[AnalysisRecord], str]


@pytest.fixture
def store(client: redis.Redis) -> Store:
    return make_store(client)


@pytest.fixture
def statistics(store: Store) -> Statistics:
    return connect_statistics(store)


@pytest.fixture
def submissions(store: Store, statistics: Statistics, queue: FakeQueue) -> Submissions:
    """What a person can do while there are no limits."""
    return Submissions(store, queue, make_settings())


def submit(submissions: Submissions, request_id: str = ID) -> AnalysisRecord:
    return submissions.submit(ADA, request_id=request_id, owner_token=OWNER)


def make(store: Store, age: timedelta, request_id: str = ID) -> AnalysisRecord:
    """Submit, as if it had been so long ago."""
    record = pending(store.now() - age, request_id=request_id)
    store.create(record)
    Statistics(store)._add(record)
    return record


def fail(store: Store) -> None:
    store.update(ID, lambda r, now: r.give_up(of_round=r.round, now=now, lease=LEASE))


def settle_overdue(statistics: Statistics, now: datetime | None = None) -> None:
    statistics.settle_overdue(statistics.unfinished(now).overdue)


def seen_at(statistics: Statistics, now: datetime) -> tuple[int, list[datetime]]:
    """How many are unfinished, and when the first of them were due."""
    seen = statistics.unfinished(now)
    return seen.number, seen.due_at


def names(client: redis.Redis) -> list[str]:
    return [str(each) for each in client.zrange("unfinished", 0, -1)]


# ── The unfinished ──


def test_an_analysis_is_unfinished_from_its_submission_to_its_end(
    store: Store, statistics: Statistics, submissions: Submissions
) -> None:
    seen = [seen_at(statistics, store.now())]

    record = submit(submissions)
    seen.append(seen_at(statistics, store.now()))
    store.update(ID, lambda r, now: r.claim("a", of_round=1, now=r.due_at, call=CALL, lease=LEASE))
    seen.append(seen_at(statistics, store.now()))
    store.update(ID, lambda r, now: r.complete("a", ANALYSIS, model="m", now=now, tokens=TOKENS))
    seen.append(seen_at(statistics, store.now()))

    waiting = (1, [record.due_at])
    assert seen == [(0, []), waiting, waiting, (0, [])]


def test_a_reopened_analysis_is_unfinished_again_and_a_deleted_one_is_not(
    store: Store, statistics: Statistics, submissions: Submissions
) -> None:
    submit(submissions)
    fail(store)
    assert statistics.unfinished(store.now()).number == 0

    submissions.retry(ID, OWNER)
    assert statistics.unfinished(store.now()).number == 1
    submissions.delete(ID, OWNER)

    assert statistics.unfinished(store.now()).number == 0


def test_a_submission_that_is_published_again_is_unfinished_again(
    store: Store, statistics: Statistics, submissions: Submissions, queue: FakeQueue
) -> None:
    queue.trouble = QStashRefused("429")
    submit(submissions)
    assert statistics.unfinished(store.now()).number == 0
    queue.trouble = None

    submit(submissions)

    assert statistics.unfinished(store.now()).number == 1


def test_the_oldest_come_first(store: Store, statistics: Statistics) -> None:
    now = store.now()
    for number, age in enumerate([3, 9, 6]):
        make(store, timedelta(minutes=age), f"{number:032x}")

    number, due_at = seen_at(statistics, now)

    assert number == 3
    assert due_at == sorted(due_at)
    assert abs(due_at[0] - (now - timedelta(minutes=9) + DELAY)) < timedelta(seconds=5)


def test_one_that_can_not_be_read_hides_no_other(
    store: Store, client: redis.Redis, statistics: Statistics
) -> None:
    make(store, timedelta(minutes=9))
    other = make(store, timedelta(minutes=3), OTHER_ID)
    for raw in (b"\xff", of_older(other), of_newer(other)):
        client.set(record_key(ID), raw)

        assert seen_at(statistics, store.now()) == (2, [other.due_at])


@pytest.mark.parametrize(
    ("write", "left"),
    [(of_older, []), (of_newer, [f"{ID}:1"])],
    ids=["which nobody reads", "which a newer version settles"],
)
def test_an_overdue_one_that_can_not_be_read_is_forgotten_by_who_can_settle_it(
    store: Store, client: redis.Redis, statistics: Statistics, write: Write, left: list[str]
) -> None:
    overdue, _ = make(store, timedelta(hours=1)), make(store, timedelta(hours=1), OTHER_ID)
    client.set(record_key(ID), write(overdue))

    settle_overdue(statistics)

    assert names(client) == left
    assert store.read(OTHER_ID).failure is Failure.TIMED_OUT


@pytest.mark.parametrize("raw", [of_older, lambda _: "not JSON"], ids=["older", "damaged"])
def test_one_that_can_not_be_read_is_unfinished_no_longer_once_it_is_deleted(
    store: Store, client: redis.Redis, statistics: Statistics, queue: FakeQueue, raw: Write
) -> None:
    record = make(store, timedelta(0)).model_copy(update={"round": 3})
    statistics._add(record)
    client.zrem("unfinished", f"{ID}:1")
    client.set(record_key(ID), raw(record))

    Submissions(store, queue, make_settings(), is_operator=True).delete(ID, "")

    assert names(client) == []


@pytest.mark.parametrize(
    "leave_behind",
    [
        pytest.param(lambda client, key, _: client.delete(key), id="never stored"),
        pytest.param(lambda client, key, _: client.set(key, "{}"), id="unreadable"),
        pytest.param(
            lambda client, key, record: client.set(
                key, record.cancel(now=record.due_at).model_dump_json(by_alias=True)
            ),
            id="over",
        ),
    ],
)
def test_what_a_crash_has_left_behind_is_not_the_oldest(
    store: Store,
    statistics: Statistics,
    client: redis.Redis,
    leave_behind: Callable[[redis.Redis, str, AnalysisRecord], object],
) -> None:
    left = make(store, timedelta(minutes=9), OTHER_ID)
    leave_behind(client, f"analysis:{{{OTHER_ID}}}", left)
    record = make(store, NO_DELAY)

    assert seen_at(statistics, store.now()) == (2, [record.due_at])
    assert seen_at(statistics, left.deadline_at) == (1, [record.due_at])  # at most until then


def test_the_unfinished_are_forgotten_with_their_records(
    store: Store, statistics: Statistics, client: redis.Redis
) -> None:
    make(store, DELAY + DEADLINE + timedelta(hours=1), OTHER_ID)
    make(store, DELAY + DEADLINE + timedelta(minutes=59))

    make(store, NO_DELAY, "a" * 32)

    assert names(client) == [f"{ID}:1", f"{'a' * 32}:1"]
    assert 0 < client.ttl("unfinished") <= 8 * 86_400


def test_what_is_unfinished_is_told_by_redis_s_own_clock(
    store: Store, statistics: Statistics
) -> None:
    make(store, NO_DELAY)

    before, seen, after = store.now(), statistics.unfinished(), store.now()

    millisecond = timedelta(milliseconds=1)
    assert before - millisecond <= seen.now <= after + millisecond
    assert (seen.number, seen.overdue) == (1, [])


# ── The overdue ──


def status(client: redis.Redis, request_id: str) -> Status:
    """What is stored, without settling it by reading it."""
    stored = client.get(f"analysis:{{{request_id}}}")
    return AnalysisRecord.model_validate_json(str(stored)).status


def test_what_nobody_reads_is_settled_after_its_deadline(
    store: Store, statistics: Statistics, client: redis.Redis
) -> None:
    make(store, DELAY + DEADLINE)
    make(store, DELAY + DEADLINE - timedelta(minutes=1), OTHER_ID)

    settle_overdue(statistics)

    assert (status(client, ID), status(client, OTHER_ID)) == (Status.FAILED, Status.PENDING)
    assert names(client) == [f"{OTHER_ID}:1"]


def test_what_one_record_is_like_stops_no_other_from_being_settled(
    store: Store, statistics: Statistics, client: redis.Redis
) -> None:
    for number in range(3):
        make(store, timedelta(hours=1) - timedelta(minutes=number), f"{number:032x}")
    client.set(f"analysis:{{{0:032x}}}", "{}")
    client.delete(f"analysis:{{{1:032x}}}")
    client.zadd("unfinished", {"nonsense": 0, f"{OTHER_ID}": 0})  # of an earlier version, too

    settle_overdue(statistics)

    assert status(client, f"{2:032x}") is Status.FAILED
    assert names(client) == []


def test_more_than_are_settled_at_a_time_are_settled_the_next_time(
    store: Store, statistics: Statistics, client: redis.Redis
) -> None:
    for number in range(MAX_OVERDUE + 1):
        make(store, timedelta(minutes=30) - timedelta(seconds=number), f"{number:032x}")

    settle_overdue(statistics)
    assert names(client) == [f"{MAX_OVERDUE:032x}:1"]
    settle_overdue(statistics)

    assert names(client) == []
    assert status(client, f"{MAX_OVERDUE:032x}") is Status.FAILED


def test_redis_decides_whether_a_deadline_has_passed(
    store: Store, statistics: Statistics, client: redis.Redis
) -> None:
    record = make(store, NO_DELAY)

    settle_overdue(statistics, record.deadline_at)  # somebody's clock is ahead

    assert status(client, ID) is Status.PENDING
    assert names(client) == [f"{ID}:1"]


def test_an_earlier_round_is_forgotten_and_the_current_one_goes_on(
    store: Store, statistics: Statistics, submissions: Submissions, client: redis.Redis
) -> None:
    submit(submissions)
    fail(store)
    submissions.retry(ID, OWNER)
    client.zadd("unfinished", {f"{ID}:1": 0})  # left behind

    settle_overdue(statistics)

    assert status(client, ID) is Status.PENDING
    assert names(client) == [f"{ID}:2"]


def test_redis_away_in_the_middle_loses_nothing(
    store: Store, statistics: Statistics, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        make(store, timedelta(minutes=30) - timedelta(seconds=number), f"{number:032x}")
    update, calls = store.update, iter(range(10))

    def goes_away(request_id: str, transition: Transition, **options: object) -> AnalysisRecord:
        if next(calls) == 1:
            raise StoreUnavailable("away")
        return update(request_id, transition)

    monkeypatch.setattr(store, "update", goes_away)
    with pytest.raises(StoreUnavailable):
        settle_overdue(statistics)

    settle_overdue(statistics)

    assert {status(client, f"{number:032x}") for number in range(3)} == {Status.FAILED}
    assert names(client) == []


# ── Tokens ──


@pytest.fixture
def analyst() -> FakeAnalyst:
    return FakeAnalyst(Answer(ANALYSIS, "fake", TOKENS))


@pytest.fixture
def deliver(store: Store, statistics: Statistics, analyst: FakeAnalyst) -> Callable[[], Outcome]:
    store.create(pending(store.now(), NO_DELAY))
    worker = Worker(store, analyst, make_settings().times)
    return lambda: worker.process(DELIVERY)


def spent_today(store: Store) -> tuple[int, int]:
    spent = Statistics(store).spent(day_of(store.now()))
    return spent.input_tokens, spent.output_tokens


def test_what_a_call_took_is_added_to_the_day_once(
    deliver: Callable[[], Outcome], store: Store, client: redis.Redis
) -> None:
    deliver()
    deliver()  # once more

    assert spent_today(store) == (300, 200)
    assert client.get(f"count:daily_tokens:{day_of(store.now())}") == "500"
    assert Statistics(store).spent("2020-01-01") == (0, 0, 0)


def test_a_call_that_was_of_no_use_is_spent_too(
    deliver: Callable[[], Outcome], store: Store, analyst: FakeAnalyst
) -> None:
    failed = AnalysisFailed(Failure.ANSWER_TRUNCATED, "incomplete")
    failed.tokens = TOKENS
    analyst.answers = [failed]

    deliver()

    assert store.read(ID).tokens is None
    assert spent_today(store) == (300, 200)


@pytest.mark.parametrize("meanwhile", ["cancelled", "deleted"])
def test_a_call_whose_analysis_is_no_longer_wanted_is_spent_too(
    deliver: Callable[[], Outcome], store: Store, analyst: FakeAnalyst, meanwhile: str
) -> None:
    analyst.during_call = {
        "cancelled": lambda: store.update(ID, lambda r, now: r.cancel(now=now)),
        "deleted": lambda: store.delete(ID),
    }[meanwhile]

    assert deliver() == Outcome(OutcomeKind.IGNORED)

    assert spent_today(store) == (300, 200)


def test_a_call_that_ends_after_midnight_is_spent_on_the_new_day(
    store: Store, statistics: Statistics
) -> None:
    before = datetime.fromisoformat("2026-11-23T23:59:50+00:00")
    after = before + timedelta(seconds=20)
    claimed = pending(before, NO_DELAY).claim("a", of_round=1, now=before, call=CALL, lease=LEASE)
    store.create(claimed)

    store.events.emit(AttemptFailed(claimed, 20.0, TOKENS, Failure.ANSWER_TRUNCATED, "incomplete"))
    store.update(
        ID,
        lambda r, now: r.complete("a", ANALYSIS, model="m", now=now, tokens=TOKENS),
        known=(claimed, after),
    )

    assert statistics.spent("2026-11-23") == (0, 0, 0)
    assert statistics.spent("2026-11-24") == (0, 600, 400)


def test_a_count_that_fails_stops_no_delivery_and_is_told(
    deliver: Callable[[], Outcome],
    store: Store,
    client: redis.Redis,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client.set(f"count:input_tokens:{day_of(store.now())}", "no number")
    client.set("unfinished", "no set")

    assert deliver() == Outcome(OutcomeKind.SETTLED)

    assert store.read(ID).status is Status.COMPLETED
    assert caplog.text.count('"event": "not counted"') == 1


def test_nothing_is_unfinished_where_there_was_nothing(
    store: Store, statistics: Statistics
) -> None:
    settle_overdue(statistics)

    assert seen_at(statistics, store.now()) == (0, [])
