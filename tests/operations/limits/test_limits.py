"""How much is let in: the decisions, and the counts on fakeredis and on the real server alike."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
import redis

from common.failures import Limit
from common.ports import LimitReached
from common.qstash import QStashRefused
from common.record import AnalysisRecord, Status, TransitionError
from common.settings import ServiceSettings
from common.store import Store
from common.submission import NotOwner, Submissions
from common.times import TimeLadder
from common.visitors import network, visitor_of
from operations.limits import PAUSE, UNLIMITED, admission, capacity
from tests.conftest import make_settings, make_store
from tests.fakes import ADA, ANALYSIS, CALL, DEADLINE, DELAY, ID, LEASE, TOKENS, FakeQueue, pending

OWNER = "owner-token"
LATE = datetime.fromisoformat("2026-11-23T23:50:00+00:00")
EVERY_LIMIT = {
    "visitor_submissions_per_hour": 1000,
    "submissions_per_hour": 1000,
    "most_waiting": 1000,
    "qstash_parallelism": 1000,
    "daily_analyses": 1000,
    "daily_tokens": 1000,
}


@pytest.fixture(params=["fakeredis", "valkey"])
def client(request: pytest.FixtureRequest) -> redis.Redis:
    name = {"fakeredis": "fake_redis", "valkey": "real_redis"}[request.param]
    client: redis.Redis = request.getfixturevalue(name)
    return client


@pytest.fixture
def store(client: redis.Redis) -> Store:
    return make_store(client)


def submissions_with(store: Store, **limits: int) -> Submissions:
    return Submissions(store, FakeQueue(), make_settings(**limits))


def submit(submissions: Submissions, number: int, visitor: str | None = None) -> AnalysisRecord:
    return submissions.submit(ADA, request_id=f"{number:032x}", owner_token=OWNER, visitor=visitor)


def refusal(submissions: Submissions, number: int, visitor: str | None = None) -> LimitReached:
    with pytest.raises(LimitReached) as caught:
        submit(submissions, number, visitor)
    return caught.value


def fail(store: Store, number: int) -> None:
    store.update(f"{number:032x}", lambda r, now: r.give_up(round=r.round, now=now, lease=LEASE))


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
    assert store.unfinished(store.now())[0] == 1


def test_each_visitor_has_a_limit_of_their_own_and_programs_have_none_of_it(store: Store) -> None:
    submissions = submissions_with(store, visitor_submissions_per_hour=1)
    submit(submissions, 0, "one visitor")

    assert refusal(submissions, 1, "one visitor").limit is Limit.VISITOR
    assert submit(submissions, 2, "another").status is Status.PENDING
    assert submit(submissions, 3, None).status is Status.PENDING


def test_the_same_submission_again_is_answered_although_the_limit_is_reached(store: Store) -> None:
    submissions = submissions_with(store, daily_analyses=1)

    first = submit(submissions, 0)

    assert submit(submissions, 0) == first
    assert refusal(submissions, 1).limit is Limit.DAILY_ANALYSES
    assert store.spent(f"{store.now():%Y-%m-%d}").analyses == 1


def test_a_submission_that_was_not_queued_is_published_again_without_counting(
    store: Store,
) -> None:
    queue = FakeQueue()
    submissions = Submissions(store, queue, make_settings(daily_analyses=1))
    queue.trouble = QStashRefused("429")
    submit(submissions, 0)
    queue.trouble = None

    assert submit(submissions, 0).status is Status.PENDING


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


def test_a_second_try_that_is_not_possible_counts_nothing(store: Store) -> None:
    submissions = submissions_with(store, daily_analyses=9)
    submit(submissions, 0)

    with pytest.raises(NotOwner):
        submissions.retry(f"{0:032x}", "somebody else")
    with pytest.raises(TransitionError):
        submissions.retry(f"{0:032x}", OWNER)

    assert store.spent(f"{store.now():%Y-%m-%d}").analyses == 1


def test_many_at_once_do_not_get_past_a_limit(real_redis: redis.Redis) -> None:
    submissions = submissions_with(make_store(real_redis), submissions_per_hour=5)

    def try_one(number: int) -> bool:
        try:
            submit(submissions, number)
        except LimitReached:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        accepted = list(pool.map(try_one, range(40)))

    assert sum(accepted) == 5


def test_every_count_ends_by_itself(store: Store, client: redis.Redis) -> None:
    submit(submissions_with(store, **EVERY_LIMIT), 0, "visitor")
    store.note_attempt(store.now(), took=CALL, tokens=TOKENS)
    store.note_attempt(store.now(), pause=PAUSE)

    names = sorted(key.split(":20")[0] for key in client.scan_iter())
    assert names == [
        f"analysis:{{{0:032x}}}",
        "count:daily_analyses",
        "count:daily_tokens",
        "count:everyone",
        "count:input_tokens",
        "count:output_tokens",
        "count:visitor",
        "durations",
        "paused",
        "unfinished",
    ]
    assert all(client.ttl(key) > 0 for key in client.scan_iter())


def test_no_address_of_a_visitor_is_stored(store: Store, client: redis.Redis) -> None:
    submit(submissions_with(store, **EVERY_LIMIT), 0, "192.0.2.77")

    assert not [key for key in client.scan_iter() if "192.0.2.77" in key]


# ── Periods ──


def test_hours_and_days_end_where_the_clocks_do() -> None:
    settings = make_settings(submissions_per_hour=1, daily_analyses=1)

    quotas = admission(settings, LATE).quotas

    assert [(quota.limit, quota.period, quota.ends_in) for quota in quotas] == [
        (Limit.DAILY_ANALYSES, "2026-11-23", timedelta(minutes=10)),
        (Limit.EVERYONE, "2026-11-23T23", timedelta(minutes=10)),
    ]


def test_a_new_period_begins_at_nothing(store: Store) -> None:
    settings = make_settings(submissions_per_hour=1, daily_analyses=1)
    after = LATE + timedelta(minutes=10)

    store.admit(pending(LATE), LATE, admission(settings, LATE))
    store.admit(pending(after), after, admission(settings, after))

    with pytest.raises(LimitReached):
        store.admit(pending(after), after, admission(settings, after))


def test_without_limits_nothing_is_counted(settings: ServiceSettings) -> None:
    wanted = admission(settings, LATE, "visitor")

    assert (wanted.quotas, wanted.most_waiting, wanted.most_ahead) == ([], 0, 0)


# ── Who waits ──


def test_an_analysis_is_unfinished_from_its_creation_to_its_end(store: Store) -> None:
    record = pending(store.now(), timedelta(0))
    seen = [store.unfinished(store.now())]

    store.create(record)
    seen.append(store.unfinished(store.now()))
    store.update(ID, lambda r, now: r.claim("a", round=1, now=now, call=CALL, lease=LEASE))
    seen.append(store.unfinished(store.now()))
    store.update(ID, lambda r, now: r.complete("a", ANALYSIS, model="m", now=now, tokens=TOKENS))
    seen.append(store.unfinished(store.now()))

    waiting = (1, record.due_at)
    assert seen == [(0, None), waiting, waiting, (0, None)]


def test_a_reopened_analysis_is_unfinished_again_and_a_deleted_one_is_not(store: Store) -> None:
    submissions = submissions_with(store)
    submit(submissions, 0)
    fail(store, 0)
    assert store.unfinished(store.now())[0] == 0

    submissions.retry(f"{0:032x}", OWNER)
    assert store.unfinished(store.now())[0] == 1
    submissions.delete(f"{0:032x}", OWNER)

    assert store.unfinished(store.now())[0] == 0


def test_the_oldest_is_the_one_that_ends_first(store: Store) -> None:
    now = store.now()
    for number, age in enumerate([3, 9, 6]):
        store.create(pending(now - timedelta(minutes=age), request_id=f"{number:032x}"))

    assert store.unfinished(now) == (3, now - timedelta(minutes=9) + DELAY)


def test_what_is_past_its_deadline_waits_no_more(store: Store) -> None:
    settings = make_settings(most_waiting=1)
    now = store.now()
    store.create(pending(now))
    over = now + DELAY + DEADLINE

    with pytest.raises(LimitReached):
        store.admit(pending(now), now, admission(settings, now))
    store.admit(pending(over), over, admission(settings, over))

    assert store.unfinished(over)[0] == 0
    assert store.overdue(over) == [ID]


def test_what_is_past_its_deadline_is_told_until_redis_forgets_it(store: Store) -> None:
    now = store.now()
    store.create(pending(now))
    over, forgotten = now + DELAY + DEADLINE, now + DELAY + DEADLINE + timedelta(hours=1)

    assert store.overdue(now) == []
    assert store.overdue(over) == [ID]
    store.admit(pending(over), over, admission(make_settings(most_waiting=1), over))
    assert store.overdue(over) == [ID]
    store.admit(pending(over), forgotten, UNLIMITED)
    assert store.overdue(over) == []


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
    settings = make_settings(qstash_parallelism=1, qstash_delay="1h")
    now, hour = store.now(), timedelta(hours=1)
    for number in range(17):
        store.create(pending(now, hour, request_id=f"{number:032x}"))
    before, after = now + DEADLINE - timedelta(seconds=1), now + DEADLINE

    with pytest.raises(LimitReached):
        store.admit(pending(before, hour), before, admission(settings, before))
    store.admit(pending(after, hour), after, admission(settings, after))


# ── Spend and the pause ──


def test_when_the_days_tokens_are_spent_nothing_new_is_taken_and_what_waits_runs(
    store: Store, client: redis.Redis
) -> None:
    submissions = submissions_with(store, daily_tokens=500)
    submit(submissions, 0)
    submit(submissions, 1)
    spent_by_submitting = list(client.scan_iter("count:daily_tokens:*"))
    store.note_attempt(store.now(), tokens=TOKENS)

    error = refusal(submissions, 2)
    store.update(
        f"{1:032x}", lambda r, now: r.claim("a", round=1, now=r.due_at, call=CALL, lease=LEASE)
    )

    assert spent_by_submitting == []
    assert error.limit is Limit.DAILY_TOKENS
    assert store.read(f"{1:032x}").status is Status.PROCESSING


def test_a_days_spend_is_told(store: Store) -> None:
    submit(submissions_with(store, daily_analyses=9), 0)
    now = store.now()
    store.note_attempt(now, tokens=TOKENS)
    store.note_attempt(now, tokens=TOKENS)

    assert store.spent(f"{now:%Y-%m-%d}") == (1, 600, 400)
    assert store.spent("2020-01-01") == (0, 0, 0)


def test_while_paused_nothing_is_taken_and_then_it_is_again(
    store: Store, client: redis.Redis
) -> None:
    submissions = submissions_with(store)
    known = submit(submissions, 0)
    store.note_attempt(store.now(), pause=PAUSE)

    error = refusal(submissions, 1)

    assert error.limit is Limit.PAUSED
    assert timedelta(minutes=4) < error.retry_after <= timedelta(minutes=5)
    assert submit(submissions, 0) == known
    fail(store, 0)
    with pytest.raises(LimitReached):
        submissions.retry(known.request_id, OWNER)
    operator = Submissions(store, FakeQueue(), make_settings(), is_operator=True)
    assert operator.retry(known.request_id, "").round == 2
    client.delete("paused")
    assert submit(submissions, 1).status is Status.PENDING


# ── Addresses ──


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.9:51234", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001:82a::/64"),
        ("[2a00:1450:4001:82a::1]:443", "2a00:1450:4001:82a::/64"),
        ("unix:", "unix:"),
        ("", ""),
        ("x" * 500, "x" * 64),
    ],
)
def test_a_caller_is_its_address_or_its_network(address: str, same: str) -> None:
    assert network(address) == same


@pytest.mark.parametrize(
    ("address", "known_as"),
    [
        ("8.8.8.8", "8.8.8.8"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001:82a::/64"),
        ("10.0.0.7", "session"),
        ("127.0.0.1", "session"),
        ("nonsense", "session"),
        (None, "session"),
    ],
)
def test_a_visitor_is_a_public_address_or_a_session(address: str | None, known_as: str) -> None:
    assert visitor_of(address, "session") == known_as


def test_every_sentence_is_one_and_says_nothing_of_the_inside() -> None:
    for limit in Limit:
        assert limit.sentence[0].isupper()
        assert limit.sentence.endswith(".")
        assert "Redis" not in limit.sentence
