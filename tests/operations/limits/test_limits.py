"""How much is admitted, on fakeredis and on the real server alike."""

from datetime import datetime, timedelta

import pytest
import redis

from common.connection import connect
from common.failures import Failure, Limit
from common.ports import LimitReached
from common.qstash import QStashRefused
from common.record import AnalysisRecord
from common.states import Status, TransitionError
from common.store import Store
from common.submission import NotOwner, Submissions
from common.times import TimeLadder
from operations.limits import RedisLimits, capacity
from operations.statistics import Statistics, connect_statistics, day_of
from tests.conftest import make_options, make_settings, make_store
from tests.fakes import (
    ANALYSIS,
    BOB,
    CALL,
    DEADLINE,
    DELAY,
    LEASE,
    OTHER_ID,
    TOKENS,
    FakeQueue,
    pending,
)
from tests.operations.plugged import (
    EVERY_LIMIT,
    OWNER,
    Setting,
    deliver,
    fail,
    limits_with,
    open_page,
    submissions_with,
    submit,
)
from webhook_service.answer import AnalysisFailed, Answer

LATE = datetime.fromisoformat("2026-11-23T23:50:00+00:00")


@pytest.fixture
def store(client: redis.Redis) -> Store:
    """A store whose events are counted."""
    store = make_store(client)
    connect_statistics(store)
    return store


@pytest.fixture
def statistics(store: Store) -> Statistics:
    return Statistics(store)


def refused(
    limits: RedisLimits, record: AnalysisRecord, visitor: str | None = None
) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        limits.admit(record, visitor=visitor)
    return caught.value


def refusal(submissions: Submissions, number: int, visitor: str | None = None) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        submit(submissions, number, visitor)
    return caught.value


def analyses_today(statistics: Statistics, store: Store) -> int:
    return statistics.spent(day_of(store.now())).analyses


# ── Submissions ──


@pytest.mark.parametrize(
    ("setting", "limit", "longest"),
    [
        ("visitor_submissions_per_hour", Limit.VISITOR, timedelta(hours=1)),
        ("submissions_per_hour", Limit.EVERYONE, timedelta(hours=1)),
        ("most_waiting", Limit.WAITING, timedelta(seconds=35)),
        ("daily_analyses", Limit.DAILY_ANALYSES, timedelta(days=1)),
    ],
)
def test_a_limit_lets_as_many_in_as_it_says_and_then_tells_when_to_come_back(
    store: Store, setting: str, limit: Limit, longest: timedelta
) -> None:
    submissions = submissions_with(store, **{setting: 3})

    accepted = [submit(submissions, number, "visitor") for number in range(3)]
    error = refusal(submissions, 3, "visitor")

    assert {record.status for record in accepted} == {Status.PENDING}
    assert error.limit is limit
    assert timedelta(0) < error.retry_after <= longest


def test_what_is_refused_leaves_nothing_behind(store: Store, client: redis.Redis) -> None:
    submissions = submissions_with(store, **EVERY_LIMIT | {"daily_analyses": 1})
    submit(submissions, 0, "visitor")
    before = {key: client.ttl(key) for key in client.scan_iter()}
    counts = {key: client.get(key) for key in before if key.startswith("count:")}

    refusal(submissions, 1, "visitor")

    assert set(client.scan_iter()) == set(before)
    assert {key: client.get(key) for key in counts} == counts
    assert Statistics(store).unfinished(store.now()).number == 1


def test_each_visitor_has_a_limit_of_their_own_and_programs_have_none_of_it(store: Store) -> None:
    submissions = submissions_with(store, visitor_submissions_per_hour=1)
    submit(submissions, 0, "one visitor")

    assert refusal(submissions, 1, "one visitor").limit is Limit.VISITOR
    assert submit(submissions, 2, "another").status is Status.PENDING
    assert submit(submissions, 3, None).status is Status.PENDING


def test_the_same_submission_again_is_answered_although_the_limit_is_reached(
    store: Store, statistics: Statistics
) -> None:
    submissions = submissions_with(store, daily_analyses=1)

    first = submit(submissions, 0)

    assert submit(submissions, 0) == first
    assert refusal(submissions, 1).limit is Limit.DAILY_ANALYSES
    assert analyses_today(statistics, store) == 1


def test_a_submission_that_was_not_queued_is_published_again_without_counting(
    store: Store, statistics: Statistics
) -> None:
    queue = FakeQueue()
    submissions = open_page(store, queue, {"daily_analyses": 1, "submissions_per_hour": 1})
    queue.trouble = QStashRefused("429")
    submit(submissions, 0)
    nothing_waits = statistics.unfinished(store.now()).number
    queue.trouble = None

    assert submit(submissions, 0).status is Status.PENDING
    assert analyses_today(statistics, store) == 1
    assert (nothing_waits, statistics.unfinished(store.now()).number) == (0, 1)


def test_a_second_try_counts_for_the_day(store: Store) -> None:
    submissions = submissions_with(store, daily_analyses=2)
    submit(submissions, 0)
    fail(store, 0)
    submissions.retry(f"{0:032x}", OWNER)
    fail(store, 0)

    with pytest.raises(LimitReached):
        submissions.retry(f"{0:032x}", OWNER)

    assert store.read(f"{0:032x}").status is Status.FAILED
    assert refusal(submissions, 1).limit is Limit.DAILY_ANALYSES


def test_a_second_try_that_is_not_possible_counts_nothing(
    store: Store, statistics: Statistics
) -> None:
    submissions = submissions_with(store, daily_analyses=9)
    submit(submissions, 0)

    with pytest.raises(NotOwner):
        submissions.retry(f"{0:032x}", "somebody else")
    with pytest.raises(TransitionError):
        submissions.retry(f"{0:032x}", OWNER)

    assert analyses_today(statistics, store) == 1


def test_every_count_ends_by_itself(store: Store, client: redis.Redis) -> None:
    submissions = submissions_with(store, **EVERY_LIMIT)
    submit(submissions, 0, "visitor")
    submit(submissions, 1, "visitor")
    deliver(store, 0, Answer(ANALYSIS, "m", TOKENS))
    deliver(store, 1, AnalysisFailed(Failure.KEY_REFUSED, "HTTP 401"))

    names = sorted(key.split(":20")[0] for key in client.scan_iter())
    assert names == [
        f"analysis:{{{0:032x}}}",
        f"analysis:{{{1:032x}}}",
        "count:daily_analyses",
        "count:daily_tokens",
        "count:everyone",
        "count:input_tokens",
        "count:output_tokens",
        "count:visitor",
        "durations",
        "paused",
    ]
    assert all(client.ttl(key) > 0 for key in client.scan_iter())


def test_no_address_of_a_visitor_is_stored(store: Store, client: redis.Redis) -> None:
    submit(submissions_with(store, **EVERY_LIMIT), 0, "192.0.2.77")

    assert not [key for key in client.scan_iter() if "192.0.2.77" in key]


# ── Periods ──


@pytest.mark.parametrize("setting", ["submissions_per_hour", "daily_analyses"])
def test_hours_and_days_end_where_the_clocks_do(store: Store, setting: str) -> None:
    limits = limits_with(store, **{setting: 1})
    limits.admit(pending(LATE))

    error = refused(limits, pending(LATE, request_id=OTHER_ID))

    assert error.retry_after == timedelta(minutes=10)


def test_a_new_period_begins_at_nothing(store: Store) -> None:
    limits = limits_with(store, submissions_per_hour=1, daily_analyses=1)
    after = LATE + timedelta(minutes=10)

    limits.admit(pending(LATE))
    limits.admit(pending(after, request_id=OTHER_ID))

    assert refused(limits, pending(after, request_id="a" * 32)).limit is Limit.DAILY_ANALYSES


def test_without_limits_nothing_is_counted_but_what_is_unfinished(
    store: Store, client: redis.Redis
) -> None:
    limits_with(store).admit(pending(LATE), visitor="visitor")

    assert client.keys("*") == ["unfinished"]


# ── Who waits ──


def test_what_is_past_its_deadline_waits_no_more(store: Store) -> None:
    limits = limits_with(store, most_waiting=1)
    now = store.now()
    limits.admit(pending(now))
    over = now + DELAY + DEADLINE

    assert refused(limits, pending(now, request_id=OTHER_ID)).limit is Limit.WAITING
    limits.admit(pending(over, request_id=OTHER_ID))


@pytest.mark.parametrize("parallelism", [1, 2, 7])
@pytest.mark.parametrize("call_seconds", [1, 25, 600])
def test_whoever_is_let_in_begins_in_time_and_the_next_would_not(
    parallelism: int, call_seconds: int
) -> None:
    times = TimeLadder(call_seconds)
    last_start = times.deadline - times.call

    def start_behind(ahead: int) -> timedelta:
        """All due at once, each holding its place as long as a delivery may."""
        return ahead // parallelism * times.delivery_timeout

    most = capacity(parallelism, times)

    assert start_behind(most - 1) <= last_start < start_behind(most)


def test_with_parallelism_nobody_is_let_in_whose_turn_comes_too_late(store: Store) -> None:
    submissions = submissions_with(store, qstash_parallelism=2)

    for number in range(34):
        submit(submissions, number)

    assert refusal(submissions, 34).limit is Limit.WAITING


def test_those_that_are_over_when_the_new_one_is_due_take_no_turn_from_it(store: Store) -> None:
    limits = limits_with(store, qstash_parallelism=1, qstash_delay="1h")
    now, hour = store.now(), timedelta(hours=1)
    for number in range(17):
        limits.admit(pending(now, hour, request_id=f"{number:032x}"))
    before, after = now + DEADLINE - timedelta(seconds=1), now + DEADLINE

    assert refused(limits, pending(before, hour)).limit is Limit.WAITING
    limits.admit(pending(after, hour))


# ── The place in the queue ──

ONE_BY_ONE: dict[str, Setting] = {"qstash_parallelism": 1}


def due_in(seconds: float, number: int, now: datetime) -> AnalysisRecord:
    return pending(now, timedelta(seconds=seconds), request_id=f"{number:032x}")


def test_those_that_were_due_before_and_are_not_over_come_first(store: Store) -> None:
    limits, now = limits_with(store, **ONE_BY_ONE), store.now()
    queue = [due_in(60 + number, number, now) for number in (2, 0, 3, 1)]
    for record in queue:
        limits.admit(record)

    assert [limits.ahead(record) for record in queue] == [2, 0, 3, 1]


def test_the_queue_gets_shorter_as_others_end_and_a_retry_keeps_its_place(store: Store) -> None:
    page = submissions_with(store, **ONE_BY_ONE)
    first, second, last = (submit(page, number) for number in range(3))
    assert [page.ahead(record) for record in (first, second, last)] == [0, 1, 2]

    deliver(store, 1, Answer(ANALYSIS, "m", TOKENS))
    deliver(store, 0, AnalysisFailed(Failure.RATE_LIMITED, "HTTP 429"))
    after_an_attempt = page.ahead(last), page.ahead(store.read(first.request_id))
    page.delete(first.request_id, OWNER)

    assert after_an_attempt == (1, 0)
    assert page.ahead(last) == 0


def test_whoever_is_changed_keeps_the_place(store: Store) -> None:
    page = submissions_with(store, **ONE_BY_ONE)
    submit(page, 0)
    record = submit(page, 1)

    assert page.ahead(page.edit(record.request_id, OWNER, BOB)) == 1


def test_what_is_past_its_deadline_comes_before_nobody(store: Store) -> None:
    now = store.now()
    limits = limits_with(store, **ONE_BY_ONE)
    limits.admit(due_in(60, 0, now))
    record = due_in(61, 1, now)
    over = now + DELAY + DEADLINE

    def ahead(at: datetime) -> int | None:
        settings = make_settings(**ONE_BY_ONE)
        return RedisLimits(settings, make_options(), store, clock=lambda: at).ahead(record)

    assert (ahead(over - timedelta(seconds=1)), ahead(over)) == (1, 0)


def test_what_does_not_wait_has_no_place(store: Store) -> None:
    page = submissions_with(store, **ONE_BY_ONE)
    submit(page, 0)
    record = submit(page, 1)
    running = record.claim("a", of_round=1, now=record.due_at, call=CALL, lease=LEASE)
    cancelled = page.cancel(record.request_id, OWNER)

    assert (page.ahead(running), page.ahead(cancelled)) == (None, None)


def test_while_redis_is_away_nobody_knows_the_place(store: Store) -> None:
    away = open_page(make_store(connect(make_settings())), FakeQueue(), ONE_BY_ONE)

    assert away.ahead(submit(submissions_with(store, **ONE_BY_ONE), 0)) is None


# ── Spend and the pause ──


def test_when_the_days_tokens_are_spent_nothing_new_is_taken_and_what_waits_runs(
    store: Store, client: redis.Redis
) -> None:
    submissions = submissions_with(store, daily_tokens=500)
    submit(submissions, 0)
    submit(submissions, 1)
    spent_by_submitting = list(client.scan_iter("count:daily_tokens:*"))
    deliver(store, 0, Answer(ANALYSIS, "m", TOKENS))

    error = refusal(submissions, 2)
    deliver(store, 1, Answer(ANALYSIS, "m", TOKENS))

    assert spent_by_submitting == []
    assert error.limit is Limit.DAILY_TOKENS
    assert store.read(f"{1:032x}").status is Status.COMPLETED


@pytest.mark.parametrize("failure", Failure)
def test_nothing_new_is_admitted_while_our_access_to_the_model_is_refused(
    store: Store, client: redis.Redis, failure: Failure
) -> None:
    submit(submissions_with(store), 0)

    deliver(store, 0, AnalysisFailed(failure, "HTTP 4xx"))

    is_paused = failure in (Failure.KEY_REFUSED, Failure.QUOTA_EXCEEDED)
    assert client.ttl("paused") == (300 if is_paused else -2)


def test_while_paused_nothing_is_taken_and_then_it_is_again(
    store: Store, client: redis.Redis
) -> None:
    submissions = submissions_with(store)
    known = submit(submissions, 0)
    submit(submissions, 1)
    deliver(store, 1, AnalysisFailed(Failure.QUOTA_EXCEEDED, "HTTP 429"))

    error = refusal(submissions, 2)

    assert error.limit is Limit.PAUSED
    assert timedelta(minutes=4) < error.retry_after <= timedelta(minutes=5)
    assert submit(submissions, 0) == known
    fail(store, 0)
    with pytest.raises(LimitReached):
        submissions.retry(known.request_id, OWNER)
    operator = Submissions(store, FakeQueue(), make_settings(), is_operator=True)
    assert operator.retry(known.request_id, "").round == 2
    client.delete("paused")
    assert submit(submissions, 2).status is Status.PENDING


def test_what_was_admitted_before_a_pause_runs_on(store: Store) -> None:
    submissions = submissions_with(store)
    submit(submissions, 0)
    submit(submissions, 1)
    deliver(store, 0, AnalysisFailed(Failure.KEY_REFUSED, "HTTP 401"))

    deliver(store, 1, Answer(ANALYSIS, "m", TOKENS))

    assert store.read(f"{1:032x}").status is Status.COMPLETED


def test_a_pause_that_the_operator_has_set_without_an_end_holds(
    store: Store, client: redis.Redis
) -> None:
    client.set("paused", "1")

    assert refusal(submissions_with(store), 0).limit is Limit.PAUSED


def test_every_sentence_is_one_and_says_nothing_of_the_inside() -> None:
    for limit in Limit:
        assert limit.sentence[0].isupper()
        assert limit.sentence.endswith(".")
        assert "Redis" not in limit.sentence
