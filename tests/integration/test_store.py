"""The store, on fakeredis and on the real server alike."""

import json
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import redis

from common.connection import StoreUnavailable, connect
from common.qstash import deduplication_id
from common.record import AnalysisRecord
from common.states import Reason, Status, TransitionError
from common.store import NotFound, Store
from common.submission import Submissions
from common.versions import Unreadable
from tests.conftest import make_settings, make_store
from tests.fakes import (
    ADA,
    ANALYSIS,
    CALL,
    DEADLINE,
    ID,
    LEASE,
    FakeAnalyst,
    FakeQueue,
    end_lease,
    pending,
    with_fields,
)
from tests.http_server import hang, serve
from tests.log_lines import logged
from tests.monitor import monitored
from tests.processes import wait_for
from tests.versions import released
from webhook_service.worker import Delivery, Worker

NO_DELAY = timedelta(0)
KEY = f"analysis:{{{ID}}}"
TTL_MS = 3_600_000


@pytest.fixture
def store(client: redis.Redis) -> Store:
    return make_store(client)


@pytest.fixture
def record(store: Store) -> AnalysisRecord:
    """A stored record that is due."""
    record = pending(store.now(), NO_DELAY)
    assert store.create(record)
    return record


def claim(store: Store, token: str) -> AnalysisRecord:
    return store.update(
        ID, lambda r, now: r.claim(token, of_round=1, now=now, call=CALL, lease=LEASE)
    )


def complete(store: Store, token: str) -> AnalysisRecord:
    return store.update(ID, lambda r, now: r.complete(token, ANALYSIS, model="m", now=now))


def test_a_created_record_is_read_back(store: Store, record: AnalysisRecord) -> None:
    assert store.read(ID) == record


def test_an_id_is_created_once(store: Store, record: AnalysisRecord) -> None:
    assert not store.create(record.cancel(now=record.created_at))
    assert store.read(ID) == record


@pytest.mark.parametrize(
    "request_id", ["", "x", "0" * 31, "0" * 33, "A" * 32, "0" * 32 + "\n", "*", "../"]
)
def test_a_malformed_id_never_reaches_redis(request_id: str) -> None:
    store = make_store(connect(make_settings(redis_url="redis://127.0.0.1:1/0")))

    for use in (
        store.read,
        store.delete,
        lambda request_id: store.update(request_id, lambda r, _: r),
    ):
        with pytest.raises(NotFound):
            use(request_id)


def test_an_unknown_record_is_not_found_and_not_made(store: Store, client: redis.Redis) -> None:
    with pytest.raises(NotFound):
        store.read(ID)
    with pytest.raises(NotFound):
        claim(store, "a")

    assert client.keys("*") == []


def test_a_claim_under_a_live_lease_is_told_how_long(store: Store, record: AnalysisRecord) -> None:
    claim(store, "a")

    with pytest.raises(TransitionError) as caught:
        claim(store, "b")

    assert caught.value.reason is Reason.CLAIMED
    assert caught.value.retry_after
    assert LEASE - timedelta(seconds=20) < caught.value.retry_after <= LEASE
    assert store.read(ID).claim_token == "a"


def test_a_claim_whose_lease_has_ended_is_taken_over(
    store: Store, record: AnalysisRecord, client: redis.Redis
) -> None:
    claim(store, "a")
    end_lease(client)

    assert claim(store, "b").attempt == 2
    with pytest.raises(TransitionError):
        complete(store, "a")
    assert complete(store, "b").status is Status.COMPLETED


def test_an_ended_lease_does_not_stop_its_worker_from_settling(
    store: Store, record: AnalysisRecord, client: redis.Redis
) -> None:
    claim(store, "a")
    end_lease(client)

    assert complete(store, "a").status is Status.COMPLETED


def test_who_settles_anothers_record_waits_until_its_lease_has_ended(
    store: Store, record: AnalysisRecord, client: redis.Redis
) -> None:
    def give_up(record: AnalysisRecord, now: datetime) -> AnalysisRecord:
        return record.give_up(of_round=1, now=now, lease=LEASE)

    claim(store, "a")
    with pytest.raises(TransitionError):
        store.update(ID, give_up)
    end_lease(client)

    assert store.update(ID, give_up).status is Status.FAILED


def test_a_cancellation_overrides_a_running_attempt(store: Store, record: AnalysisRecord) -> None:
    claim(store, "a")

    store.update(ID, lambda r, now: r.cancel(now=now))

    with pytest.raises(TransitionError):
        complete(store, "a")
    assert store.read(ID).status is Status.CANCELLED


def test_a_change_in_between_is_decided_again(store: Store, record: AnalysisRecord) -> None:
    seen: list[Status] = []

    def slow_cancel(record: AnalysisRecord, now: datetime) -> AnalysisRecord:
        seen.append(record.status)
        if len(seen) == 1:
            claim(store, "rival")
        return record.cancel(now=now)

    store.update(ID, slow_cancel)

    assert seen == [Status.PENDING, Status.PROCESSING]


def test_a_known_record_that_has_changed_is_read_again(
    store: Store, record: AnalysisRecord
) -> None:
    claim(store, "a")

    updated = store.update(
        ID, lambda r, _: r.published("msg", of_round=1), known=(record, record.created_at)
    )

    assert (updated.status, updated.message_id) == (Status.PROCESSING, "msg")


def test_a_swap_repeated_after_a_lost_reply_is_done(
    store: Store, record: AnalysisRecord, client: redis.Redis
) -> None:
    now = store.now()
    new = record.claim("a", of_round=1, now=now, call=CALL, lease=LEASE)
    raw = record.model_dump_json(by_alias=True)

    store.count_with_changes(lambda old, new: [["INCR", f"from-{old.status}-to-{new.status}"]])

    assert store._swap(raw, record, new, now)
    assert store._swap(raw, record, new, now)

    assert store.read(ID) == new
    assert client.get("from-pending-to-processing") == "1"


def test_what_cannot_be_counted_undoes_no_change(
    store: Store, record: AnalysisRecord, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.set("text", "no number")
    store.count_with_changes(lambda *_: [["INCR", "text"], ["INCR", "counted"]])

    store.update(ID, lambda r, now: r.cancel(now=now))

    assert store.read(ID).status is Status.CANCELLED
    assert client.get("counted") == "1"
    assert logged(caplog.text, "not counted")


def test_what_does_not_happen_is_not_counted(store: Store, record: AnalysisRecord) -> None:
    counted: list[Status] = []
    store.count_with_changes(lambda _, new: counted.append(new.status) or [])  # type: ignore[func-returns-value]

    store.update(ID, lambda r, _: r)
    with pytest.raises(TransitionError):
        store.update(ID, lambda r, _: r.published("msg", of_round=2))

    assert not counted


def test_a_record_that_always_changes_is_given_up(store: Store, record: AnalysisRecord) -> None:
    def outrun(record: AnalysisRecord, now: datetime) -> AnalysisRecord:
        store.update(ID, lambda r, _: with_fields(r, message_id=(r.message_id or "") + "x"))
        return record.cancel(now=now)

    with pytest.raises(StoreUnavailable):
        store.update(ID, outrun)


def test_an_unfinished_record_outlives_its_deadline_and_a_terminal_one_lives_the_ttl(
    store: Store, record: AnalysisRecord, client: redis.Redis
) -> None:
    unfinished_ms = TTL_MS + DEADLINE.total_seconds() * 1000
    assert unfinished_ms - 5000 < client.pttl(KEY) <= unfinished_ms

    claim(store, "a")
    assert unfinished_ms - 5000 < client.pttl(KEY) <= unfinished_ms

    complete(store, "a")
    assert TTL_MS - 5000 < client.pttl(KEY) <= TTL_MS


def test_whoever_reads_a_record_past_its_deadline_settles_it(
    store: Store, client: redis.Redis
) -> None:
    store.create(pending(store.now() - DEADLINE - timedelta(seconds=1), NO_DELAY))

    assert store.read(ID).status is Status.FAILED
    stored = AnalysisRecord.model_validate_json(str(client.get(KEY)))
    assert stored.status is Status.FAILED


def test_a_reader_whose_clock_is_ahead_times_nothing_out(client: redis.Redis) -> None:
    store = Store(
        client,
        ttl=timedelta(hours=1),
        clock=lambda: datetime.fromisoformat("2099-01-01T00:00:00+00:00"),
    )
    store.create(pending(store.now(), NO_DELAY))

    assert store.read(ID).status is Status.PENDING


def test_a_claim_past_the_deadline_is_refused(store: Store) -> None:
    store.create(pending(store.now() - DEADLINE, NO_DELAY))

    with pytest.raises(TransitionError):
        claim(store, "a")


def test_deleting_removes_every_key(
    store: Store, record: AnalysisRecord, client: redis.Redis
) -> None:
    claim(store, "a")

    store.delete(ID)

    assert client.keys("*") == []
    with pytest.raises(NotFound):
        complete(store, "a")
    assert client.keys("*") == []


def test_fields_of_a_newer_version_are_ignored_wherever_they_are(
    store: Store, record: AnalysisRecord, client: redis.Redis
) -> None:
    claim(store, "a")
    complete(store, "a")
    stored = str(client.get(KEY))
    client.set(KEY, stored.replace("{", '{"addedLater": 1, ').replace('"tone"', '"new":1,"tone"'))

    assert store.read(ID).result == ANALYSIS


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("not JSON", id="not JSON"),
        pytest.param("{}", id="no fields"),
        pytest.param('{"name": "PERSONAL"}', id="other fields"),
        pytest.param(b"PERSONAL \xff", id="not UTF-8"),
    ],
)
def test_a_stored_value_that_is_no_record_is_an_error_without_its_content(
    store: Store, client: redis.Redis, value: str | bytes
) -> None:
    client.set(KEY, value)

    with pytest.raises(Unreadable, match="can't be read: damaged: ") as caught:
        store.read(ID)

    assert "PERSONAL" not in str(caught.value)
    assert (caught.value.request_id, caught.value.owner_hash) == (ID, None)


@pytest.fixture
def away() -> Iterator[Store]:
    client = connect(make_settings(redis_url="redis://127.0.0.1:1/0"))
    yield make_store(client)
    client.connection_pool.disconnect()


def test_redis_away_is_told_as_one_error(away: Store) -> None:
    for use in (away.now, away.check, lambda: away.read(ID), lambda: away.delete(ID)):
        with pytest.raises(StoreUnavailable, match="ConnectionError"):
            use()
    with pytest.raises(StoreUnavailable):
        away.create(pending())
    with pytest.raises(StoreUnavailable):
        claim(away, "a")


def test_a_redis_that_does_not_answer_is_told_within_seconds() -> None:
    with serve(hang) as server:
        client = connect(make_settings(redis_url=server.url.replace("http", "redis")))
        store = make_store(client)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            claim(store, "a")
        assert time.monotonic() - began < 10
        client.connection_pool.disconnect()
        wait_for(lambda: not server.open_connections)


def test_one_analysis_costs_seven_commands_and_a_poll_one(real_redis: redis.Redis) -> None:
    store = make_store(real_redis)
    settings = make_settings(qstash_delay="0s")
    submissions = Submissions(store, FakeQueue(), settings)
    worker = Worker(store, FakeAnalyst(), settings.times)

    with monitored(real_redis) as sent:
        for _ in range(2):  # the first loads the scripts
            store.delete(ID)
            sent()
            submissions.submit(ADA, request_id=ID)
            submitted = sent()
            worker.process(Delivery(request_id=ID, round=1))
            delivered = sent()
        submissions.look_up(ID)
        poll = sent()

    assert submitted == ["TIME", "SET", "EVALSHA"]  # stored, and the message's id
    assert delivered == ["GET", "TIME", "EVALSHA", "EVALSHA"]
    assert poll == ["GET"]


# What an earlier version has stored, and may have in flight when this one takes its place.
OLD_RECORD = released("1-made-by")[0]


def test_a_record_of_the_earlier_version_goes_on_and_keeps_its_maker(
    store: Store, client: redis.Redis
) -> None:
    client.set(KEY, OLD_RECORD)
    before = store.read(ID)

    claim(store, "a")
    complete(store, "a")

    assert (before.status, before.created_by) == (Status.PENDING, "app")
    assert deduplication_id(before) == f"{ID}-1-c92a9eb8cda27cd7"
    assert (store.read(ID).status, store.read(ID).created_by) == (Status.COMPLETED, "app")
    assert not {"madeBy", "idempotencyKey"} & json.loads(str(client.get(KEY))).keys()


def test_the_usual_duration_is_forgotten_after_a_week(real_redis: redis.Redis) -> None:
    store = make_store(real_redis)
    assert store.usual_duration() is None

    store.create(pending(now := store.now(), NO_DELAY))
    store.update(ID, lambda r, _: r.claim("a", of_round=1, now=now, call=CALL, lease=LEASE))
    finished = now + timedelta(seconds=8.5)
    store.update(ID, lambda r, _: r.complete("a", ANALYSIS, model="m", now=finished))

    assert store.usual_duration() == timedelta(seconds=8.5)
    assert 0 < real_redis.ttl("durations") <= 7 * 86_400
