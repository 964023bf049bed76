"""Two versions of the program at once, and records that one of them can't read."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from hashlib import sha256

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common.events import Deleted, Event, RecordNotRead, StoreFailed
from common.failures import Failure
from common.record import AnalysisRecord
from common.states import Status
from common.store import Store, parse_record, record_key
from common.submission import NotOwner, Submissions
from common.versions import VERSION, Unreadable, Why
from page import unreadable
from page.entries import entry
from page.state import fetch
from page.texts import DELETED
from tests.conftest import WEBHOOK_URL, make_settings, make_store
from tests.fakes import (
    ADA,
    BOB,
    ID,
    OTHER_ID,
    FakeAnalyst,
    FakeQueue,
    end_lease,
    pending,
    with_fields,
)
from tests.page import button, configured, heading, labels, open_page, qstash, text
from tests.product import in_state
from tests.tokens import CALLBACK, FAILURE_URL, MESSAGE, token
from tests.versions import (
    MORE,
    OWNER,
    OWNER_HASH,
    Newer,
    NewerStore,
    of_newer,
    of_older,
    stored_as,
    with_more,
)
from webhook_service import create_app
from webhook_service.answer import AnalysisFailed

__all__ = ["configured", "qstash"]
KEY = record_key(ID)
DUE = timedelta(0)
HOUR_MS = 3_600_000
LIMITED = AnalysisFailed(Failure.RATE_LIMITED, "as planned")
API_KEYS = ",".join(f"{name}:{sha256(name.encode()).hexdigest()}" for name in ("app", "other"))
NOBODY_READS = {"older": of_older, "damaged": lambda record: stored_as(record, attempt="first")}
Write = Callable[[AnalysisRecord], str]


@pytest.fixture
def store(client: redis.Redis) -> Store:
    return make_store(client)


@pytest.fixture
def told(store: Store) -> list[Event]:
    """The events of what can't be read, or of a store that is away."""
    told: list[Event] = []
    store.events.subscribe(told.append)
    return told


@pytest.fixture
def people(store: Store, queue: FakeQueue) -> Submissions:
    return Submissions(store, queue, make_settings())


@pytest.fixture
def analyst() -> FakeAnalyst:
    return FakeAnalyst()


@pytest.fixture
def service(store: Store, queue: FakeQueue, analyst: FakeAnalyst) -> FlaskClient:
    settings = make_settings(api_keys=API_KEYS)
    return create_app(settings, store=store, queue=queue, analyst=analyst).test_client()


def put(client: redis.Redis, raw: str) -> str:
    client.set(KEY, raw, px=HOUR_MS)
    return raw


def stored(client: redis.Redis) -> dict[str, object]:
    found: dict[str, object] = json.loads(str(client.get(KEY)))
    return found


def deliver(service: FlaskClient) -> TestResponse:
    headers = {"Upstash-Signature": token(WEBHOOK_URL)}
    return service.post("/webhook", data=MESSAGE, headers=headers)


def report_given_up(service: FlaskClient) -> TestResponse:
    headers = {"Upstash-Signature": token(FAILURE_URL, CALLBACK)}
    return service.post("/webhook/failure", data=CALLBACK, headers=headers)


def get(service: FlaskClient, name: str = "app") -> TestResponse:
    return service.get(f"/analyze/{ID}", headers={"Authorization": f"Bearer {name}"})


def owned(store: Store) -> AnalysisRecord:
    record = with_fields(pending(store.now(), DUE), owner_hash=OWNER_HASH, created_by="app")
    return with_fields(record, message_id="msg_1")


# ── A newer version has a field more ──


def test_what_it_has_written_outlives_a_whole_life_under_this_one(
    service: FlaskClient,
    client: redis.Redis,
    store: Store,
    people: Submissions,
    analyst: FakeAnalyst,
) -> None:
    """Edited, claimed, failed, taken over, given up, tried again, completed."""
    put(client, with_more(owned(store)))
    seen = []

    def note() -> None:
        seen.append({name: stored(client).get(name) for name in MORE})

    analyst.answers = [LIMITED]
    analyst.during_call = note
    people.edit(ID, OWNER, BOB)
    note()
    assert deliver(service).status_code == 503
    note()
    store.update(ID, lambda r, now: with_fields(r, next_attempt_at=now))
    analyst.during_call = lambda: end_lease(client)
    assert deliver(service).status_code == 503
    assert report_given_up(service).status_code == 200
    note()
    people.retry(ID, OWNER)
    note()
    analyst.answers, analyst.during_call = FakeAnalyst().answers, note
    store.update(ID, lambda r, now: with_fields(r, next_attempt_at=now, round=1))
    assert deliver(service).status_code == 200

    assert stored(client)["status"] == "completed"
    note()
    assert len(seen) == 7
    assert all(each == MORE for each in seen)


def test_what_it_has_written_outlives_a_cancellation(
    client: redis.Redis, store: Store, people: Submissions
) -> None:
    put(client, with_more(owned(store), is_first=True))

    people.cancel(ID, OWNER)

    assert stored(client) == stored(client) | MORE | {"status": "cancelled", "input": None}


@pytest.mark.parametrize(("is_first", "reads"), [(False, 1), (True, 2)], ids=["end", "beginning"])
def test_a_known_record_is_swapped_whatever_the_order_of_its_fields(
    client: redis.Redis, store: Store, is_first: bool, reads: int
) -> None:
    put(client, with_more(owned(store), is_first=is_first))
    record, decided = store.read(ID), []

    def decide(record: AnalysisRecord, _: datetime) -> AnalysisRecord:
        decided.append(record)
        return with_fields(record, message_id="msg_2")

    store.update(ID, decide, known=(record, store.now()))

    assert stored(client) == stored(client) | MORE | {"messageId": "msg_2"}
    assert len(decided) == reads


def test_an_idempotency_key_finds_what_a_newer_version_has_stored(
    service: FlaskClient, client: redis.Redis, queue: FakeQueue
) -> None:
    def submit() -> TestResponse:
        headers = {"Authorization": "Bearer app", "Idempotency-Key": "same"}
        return service.post("/analyze", json=ADA.model_dump(), headers=headers)

    first = submit()
    key = record_key(first.get_json()["requestId"])
    newer = with_more(parse_record(client.get(key)), is_first=True)
    client.set(key, newer, px=HOUR_MS)
    again = submit()
    unreadable = []
    for write in (of_newer, of_older):
        client.set(key, write(parse_record(newer)), px=HOUR_MS)
        unreadable.append(submit())

    assert (again.status_code, again.get_json()) == (202, first.get_json())
    assert [each.status_code for each in unreadable] == [503, 410]
    assert len(queue.published) == 1


def test_two_versions_change_one_record_and_neither_loses_what_the_other_wrote(
    real_redis: redis.Redis,
) -> None:
    before, after = make_store(real_redis), NewerStore(real_redis, ttl=timedelta(hours=1))
    before.create(pending(before.now()))

    def change_before() -> None:
        before.update(ID, lambda r, _: with_fields(r, attempt=r.attempt + 1))

    def change_after() -> None:
        def more_urgent(record: AnalysisRecord, _: datetime) -> AnalysisRecord:
            assert isinstance(record, Newer)
            return with_fields(record, urgency=record.urgency + 1)

        after.update(ID, more_urgent)

    def make_all(change: Callable[[], None]) -> None:
        for _ in range(40):
            change()

    with ThreadPoolExecutor(2) as both:
        list(both.map(make_all, [change_before, change_after]))

    assert (stored(real_redis)["attempt"], stored(real_redis)["urgency"]) == (40, 40)


# ── Deliveries ──


@pytest.mark.parametrize("receive", [deliver, report_given_up], ids=["message", "failure callback"])
def test_one_of_a_newer_version_is_left_to_that_one(
    service: FlaskClient,
    client: redis.Redis,
    store: Store,
    analyst: FakeAnalyst,
    told: list[Event],
    receive: Callable[[FlaskClient], TestResponse],
) -> None:
    raw = put(client, of_newer(owned(store)))

    answer = receive(service)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "60")
    assert client.get(KEY) == raw
    assert analyst.calls == []
    (event,) = told
    assert isinstance(event, RecordNotRead)
    assert (event.error.why, event.error.request_id) == (Why.NEWER, ID)


@pytest.mark.parametrize("write", NOBODY_READS.values(), ids=NOBODY_READS.keys())
def test_one_that_nobody_reads_rests_in_the_dead_letter_queue(
    service: FlaskClient, client: redis.Redis, store: Store, told: list[Event], write: Write
) -> None:
    raw = put(client, write(owned(store)))

    message, callback = deliver(service), report_given_up(service)

    assert (message.status_code, message.headers["Upstash-NonRetryable-Error"]) == (489, "true")
    assert (callback.status_code, callback.text) == (200, "ignored")
    assert client.get(KEY) == raw
    assert [type(event) for event in told] == [RecordNotRead] * 2


def test_an_answer_that_meets_a_newer_version_is_counted_and_the_record_left(
    service: FlaskClient, client: redis.Redis, store: Store, analyst: FakeAnalyst
) -> None:
    lines: list[str] = []
    store.events.subscribe(lambda event: lines.append(event.line))
    put(client, stored_as(owned(store)))
    analyst.during_call = lambda: put(client, of_newer(store.read(ID)))

    assert deliver(service).status_code == 503
    assert stored(client)["schemaVersion"] == VERSION + 1
    assert lines[-2:] == ["answer discarded", "record not read"]


def test_a_message_that_is_on_its_way_is_no_failure_where_a_newer_version_has_the_record(
    client: redis.Redis, store: Store, people: Submissions, queue: FakeQueue
) -> None:
    queue.before_answer = lambda: put(client, of_newer(store.read(ID)))

    record = people.submit(ADA, request_id=ID, owner_token=OWNER)

    assert record.status is Status.PENDING
    assert stored(client)["schemaVersion"] == VERSION + 1


# ── Programs ──


def test_a_program_is_told_that_its_own_is_of_an_earlier_version(
    service: FlaskClient, client: redis.Redis, store: Store, told: list[Event]
) -> None:
    put(client, of_older(owned(store)))

    answer = get(service)

    assert (answer.status_code, answer.mimetype) == (410, "application/problem+json")
    assert "earlier version" in answer.get_json()["detail"]
    assert [type(event) for event in told] == [RecordNotRead]


def test_a_program_comes_again_while_a_newer_version_is_being_deployed(
    service: FlaskClient, client: redis.Redis, store: Store, told: list[Event]
) -> None:
    put(client, of_newer(owned(store)))

    answer = get(service)

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "newer version" in answer.get_json()["detail"]
    assert not [event for event in told if isinstance(event, StoreFailed)]


@pytest.mark.parametrize("write", [of_newer, of_older], ids=["newer", "older"])
def test_anybody_elses_is_not_there(
    service: FlaskClient, client: redis.Redis, store: Store, write: Write
) -> None:
    unknown = get(service, "other")
    put(client, write(owned(store)))

    answer = get(service, "other")

    assert (answer.status_code, answer.data) == (404, unknown.data)


# ── Deleting ──

EACH_UNREADABLE = {"newer": of_newer, **NOBODY_READS}


@pytest.mark.parametrize("write", EACH_UNREADABLE.values(), ids=EACH_UNREADABLE.keys())
def test_its_owner_deletes_what_can_not_be_read_and_nobody_else(
    client: redis.Redis,
    store: Store,
    people: Submissions,
    queue: FakeQueue,
    told: list[Event],
    write: Write,
) -> None:
    put(client, write(owned(store)))

    for stranger in ("", "another", OWNER_HASH):
        with pytest.raises(NotOwner):
            people.delete(ID, stranger)
    assert client.exists(KEY)
    people.delete(ID, OWNER)

    assert not client.exists(KEY)
    assert queue.cancelled == ["msg_1"]
    assert told == [Deleted(ID, None, 1)]


@pytest.mark.parametrize("raw", ["not JSON", "{}", b"\xff", "of another"], ids=str)
def test_what_is_nobodys_is_the_operators_alone(
    client: redis.Redis, store: Store, people: Submissions, queue: FakeQueue, raw: str | bytes
) -> None:
    another = with_fields(owned(store), request_id=OTHER_ID)
    client.set(KEY, of_older(another) if raw == "of another" else raw)

    with pytest.raises(NotOwner):
        people.delete(ID, OWNER)
    Submissions(store, queue, make_settings(), is_operator=True).delete(ID, "")

    assert not client.exists(KEY)


def test_what_is_no_text_at_all_is_the_operators_alone(
    client: redis.Redis, store: Store, people: Submissions, queue: FakeQueue
) -> None:
    client.rpush(KEY, "one")

    with pytest.raises(Unreadable, match="of another type"):
        people.look_up(ID)
    with pytest.raises(NotOwner):
        people.delete(ID, OWNER)
    Submissions(store, queue, make_settings(), is_operator=True).delete(ID, "")

    assert not client.exists(KEY)


# ── The page ──


@pytest.mark.parametrize(
    ("write", "title", "said"),
    [
        (of_older, unreadable.TITLE, unreadable.TEXTS[Why.OLDER]),
        (of_newer, unreadable.TITLE_OF_NEWER, unreadable.TEXTS[Why.NEWER]),
        (NOBODY_READS["damaged"], unreadable.TITLE, unreadable.TEXT),
    ],
    ids=["older", "newer", "damaged"],
)
@pytest.mark.usefixtures("configured")
def test_the_page_says_why_and_its_owner_can_delete_it(
    real_redis: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    write: Write,
    title: str,
    said: str,
) -> None:
    put(real_redis, write(owned(make_store(real_redis))))

    stranger = open_page(ID)
    owner = open_page(ID, requestId=ID, ownerToken=OWNER)
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    shown = [heading(owner), text(owner), labels(owner)]
    button(owner, "Yes, delete it").click().run()

    assert shown[0] == title
    assert f"{said} {unreadable.DELETABLE}" in shown[1]
    assert shown[2] == ["New request", "Yes, delete it"]
    assert labels(stranger) == ["New request"]
    assert said in text(stranger)
    assert unreadable.DELETABLE not in text(stranger)
    assert {line["event"] for line in lines if "request_id" in line} == {"record not read"}
    assert not real_redis.exists(KEY)
    assert DELETED in text(owner)


@pytest.mark.usefixtures("configured")
def test_the_browser_forgets_nothing_of_what_a_newer_version_has(real_redis: redis.Redis) -> None:
    put(real_redis, of_newer(in_state("done", ID, OWNER_HASH, make_store(real_redis).now())))

    assert entry(fetch(ID), timedelta(hours=1)) is None


@pytest.mark.usefixtures("configured")
def test_a_press_that_comes_after_a_newer_version_shows_what_that_left(
    real_redis: redis.Redis,
) -> None:
    store = make_store(real_redis)
    store.create(in_state("failed", ID, OWNER_HASH, store.now()))
    page = open_page(ID, requestId=ID, ownerToken=OWNER)
    put(real_redis, of_newer(store.read(ID)))

    button(page, "Try again").click().run()

    assert heading(page) == unreadable.TITLE_OF_NEWER
    assert not page.exception
