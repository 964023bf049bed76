"""The task was changed, and Redis holds records that were made for the one before."""

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common.failures import Failure
from common.record import REPUBLISH_AFTER, AnalysisRecord
from common.states import Reason, Status, TransitionError
from common.store import Store, parse_record, record_key
from common.submission import NotOwner, OfOtherTask, OtherInput, Submissions
from page import unreadable
from page.entries import entry
from page.snapshot import poll_seconds
from page.state import fetch
from tests.conftest import WEBHOOK_URL, make_settings, make_store
from tests.fakes import ADA, ID, FakeAnalyst, FakeQueue, end_lease, pending, with_fields
from tests.page import configured, heading, labels, open_page, qstash, text
from tests.product import in_state
from tests.states import OTHER_INPUT, WORDS_OF_OTHER_TASK, of_other_task
from tests.tokens import CALLBACK, FAILURE_URL, MESSAGE, token
from webhook_service import create_app

__all__ = ["configured", "qstash"]
EVERY_STATE = ["any moment now", "processing", "done", "failed"]
DUE = timedelta(0)
OWNER = "owner-token"
OWNER_HASH = sha256(OWNER.encode()).hexdigest()


@pytest.fixture
def store(client: redis.Redis) -> Store:
    return make_store(client)


@pytest.fixture
def analyst() -> FakeAnalyst:
    return FakeAnalyst()


@pytest.fixture
def service(store: Store, queue: FakeQueue, analyst: FakeAnalyst) -> FlaskClient:
    settings = make_settings()
    app = create_app(settings, store=store, queue=queue, analyst=analyst, open_api=True)
    return app.test_client()


@pytest.fixture
def people(store: Store, queue: FakeQueue) -> Submissions:
    return Submissions(store, queue, make_settings())


Put = Callable[..., str]


@pytest.fixture
def put(client: redis.Redis, store: Store) -> Put:
    """Store a record of another task, in a state or as it is; return its text."""

    def put(record: str | AnalysisRecord, owner_hash: str | None = None) -> str:
        if isinstance(record, str):
            record = in_state(record, ID, owner_hash, store.now())
        text = of_other_task(record)
        client.set(record_key(record.request_id), text, px=3_600_000)
        return text

    return put


def deliver(service: FlaskClient) -> TestResponse:
    headers = {"Upstash-Signature": token(WEBHOOK_URL)}
    return service.post("/webhook", data=MESSAGE, headers=headers)


def report_given_up(service: FlaskClient) -> TestResponse:
    headers = {"Upstash-Signature": token(FAILURE_URL, CALLBACK)}
    return service.post("/webhook/failure", data=CALLBACK, headers=headers)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What a deployment's log says."""
    return [json.loads(line) for line in caplog.text.splitlines()]


def stored(client: redis.Redis) -> dict[str, object]:
    found: dict[str, object] = json.loads(str(client.get(record_key(ID))))
    return found


# ── Redis ──


@pytest.mark.parametrize("state", EVERY_STATE)
def test_a_change_leaves_input_and_result_as_they_are(
    store: Store, client: redis.Redis, put: Put, state: str
) -> None:
    before = json.loads(put(state))

    store.update(ID, lambda record, now: with_fields(record, message_id="msg_2"))

    assert stored(client) == before | {"messageId": "msg_2"}


def test_one_that_is_known_is_changed_by_the_first_swap(store: Store, put: Put) -> None:
    record = parse_record(put("any moment now"))
    decided = []

    def decide(record: AnalysisRecord, _: datetime) -> AnalysisRecord:
        decided.append(record)
        return with_fields(record, message_id="msg_2")

    store.update(ID, decide, known=(record, store.now()))

    assert decided == [record]
    assert store.read(ID).message_id == "msg_2"


def test_one_whose_deadline_has_passed_times_out(store: Store, put: Put) -> None:
    put("timed out")

    assert store.read(ID).failure is Failure.TIMED_OUT
    assert store.current(ID).is_of_other_task


# ── Deliveries ──


def test_a_due_one_ends_and_its_message_is_not_delivered_again(
    service: FlaskClient,
    client: redis.Redis,
    analyst: FakeAnalyst,
    put: Put,
    caplog: pytest.LogCaptureFixture,
) -> None:
    put("any moment now")

    first, second = deliver(service), deliver(service)

    assert (first.status_code, first.text) == (200, "settled")
    assert (second.status_code, second.text) == (200, "ignored")
    assert stored(client)["status"] == "failed"
    assert stored(client)["failure"] == "task_changed"
    assert stored(client)["input"] == OTHER_INPUT
    assert analyst.calls == []
    (settled,) = lines(caplog)
    assert (settled["event"], settled["code"]) == ("settled", "task_changed")
    assert settled["request_id"] == ID
    assert not [word for word in WORDS_OF_OTHER_TASK if word in caplog.text]


def test_one_that_is_not_due_is_delivered_again_then(service: FlaskClient, put: Put) -> None:
    put("waiting")

    answer = deliver(service)

    assert answer.status_code == 503
    assert 30 < int(answer.headers["Retry-After"]) <= 43


def test_a_running_attempt_ends_it_or_its_lease_does(
    service: FlaskClient, client: redis.Redis, analyst: FakeAnalyst, put: Put
) -> None:
    put("processing")

    during = deliver(service)
    end_lease(client)
    after = deliver(service)

    assert (during.status_code, after.status_code) == (503, 200)
    assert stored(client)["failure"] == "task_changed"
    assert analyst.calls == []


@pytest.mark.parametrize("state", ["done", "failed", "cancelled"])
def test_one_that_is_over_stays_as_it_is(
    service: FlaskClient, client: redis.Redis, put: Put, state: str
) -> None:
    text = put(state)

    answers = [deliver(service), report_given_up(service)]

    assert [(each.status_code, each.text) for each in answers] == [(200, "ignored")] * 2
    assert client.get(record_key(ID)) == text


def test_one_whose_message_was_given_up_ends(
    service: FlaskClient, client: redis.Redis, put: Put
) -> None:
    put("any moment now")

    assert report_given_up(service).status_code == 200
    assert stored(client)["failure"] == "delivery_failed"


def test_a_damaged_one_of_our_own_task_is_the_operators(
    service: FlaskClient, client: redis.Redis, put: Put, store: Store
) -> None:
    damaged = json.loads(pending(store.now(), DUE).model_dump_json(by_alias=True))
    client.set(record_key(ID), json.dumps(damaged | {"input": OTHER_INPUT}), px=3_600_000)

    assert deliver(service).status_code == 489


# ── People and programs ──


@pytest.mark.parametrize("state", EVERY_STATE)
def test_for_a_program_there_is_none(
    service: FlaskClient, put: Put, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    unknown = service.get(f"/analyze/{ID}")
    put(state)

    answer = service.get(f"/analyze/{ID}")

    assert (answer.status_code, answer.data) == (404, unknown.data)
    (line,) = lines(caplog)
    assert (line["event"], line["request_id"]) == ("made for another task", ID)
    assert not [word for word in WORDS_OF_OTHER_TASK if word in caplog.text]


@pytest.mark.parametrize("state", EVERY_STATE)
def test_an_idempotency_key_from_before_asks_for_another(
    service: FlaskClient, client: redis.Redis, queue: FakeQueue, state: str
) -> None:
    def submit() -> TestResponse:
        headers = {"Idempotency-Key": "same"}
        return service.post("/analyze", json=ADA.model_dump(), headers=headers)

    request_id = submit().get_json()["requestId"]
    key, now = record_key(request_id), make_store(client).now()
    kept = {"request_id": request_id, **_who(client, key), "message_id": None}
    text = of_other_task(in_state(state, request_id, None, now).model_copy(update=kept))
    client.set(key, text, px=3_600_000)

    again = submit()

    assert again.status_code == 422
    assert "before the form changed" in again.get_json()["detail"]
    assert client.get(key) == text
    assert len(queue.published) == 1


def _who(client: redis.Redis, key: str) -> dict[str, object]:
    record = parse_record(client.get(key))
    return {"created_by": record.created_by, "fingerprint": record.fingerprint}


def test_one_that_was_never_queued_is_not_queued_by_submitting_again(
    people: Submissions, store: Store, queue: FakeQueue, put: Put
) -> None:
    record = pending(store.now()).not_queued(of_round=1, is_first=True, now=store.now())
    text = put(record)

    with pytest.raises(OtherInput):
        people.submit(ADA, request_id=ID)

    assert queue.published == []
    assert store.read(ID) == parse_record(text)


def test_one_that_was_never_published_is_left_until_its_deadline(
    store: Store, client: redis.Redis, queue: FakeQueue, put: Put
) -> None:
    text = put(pending(store.now() - REPUBLISH_AFTER))

    with pytest.raises(OfOtherTask):
        Submissions(store, queue, make_settings()).look_up(ID)

    assert queue.published == []
    assert client.get(record_key(ID)) == text


def test_its_owner_can_neither_try_it_again_nor_read_its_input(
    people: Submissions, client: redis.Redis, put: Put
) -> None:
    text = put("failed", owner_hash=OWNER_HASH)

    with pytest.raises(TransitionError) as caught:
        people.retry(ID, OWNER)

    assert caught.value.reason is Reason.OTHER_TASK
    assert people.input_of(ID, OWNER) is None
    assert client.get(record_key(ID)) == text


def test_its_owner_can_cancel_and_delete_it_and_nobody_else(
    people: Submissions, store: Store, client: redis.Redis, queue: FakeQueue, put: Put
) -> None:
    put("any moment now", owner_hash=OWNER_HASH)

    for action in (people.cancel, people.delete):
        with pytest.raises(NotOwner):
            action(ID, "another")
    cancelled = people.cancel(ID, OWNER)
    people.delete(ID, OWNER)

    assert cancelled.status is Status.CANCELLED
    assert queue.cancelled == ["msg_test"]
    assert not client.exists(record_key(ID))


# ── The page ──


@pytest.mark.parametrize("state", EVERY_STATE)
@pytest.mark.usefixtures("configured")
def test_the_page_says_calmly_that_it_cannot_be_read(
    real_redis: redis.Redis, caplog: pytest.LogCaptureFixture, state: str
) -> None:
    store = make_store(real_redis)
    record = in_state(state, ID, OWNER_HASH, store.now())
    real_redis.set(record_key(ID), of_other_task(record), ex=3600)

    page = open_page(ID, requestId=ID, ownerToken=OWNER)
    snapshot = fetch(ID)

    assert heading(page) == unreadable.TITLE
    assert f"{unreadable.TEXT} {unreadable.DELETABLE}" in text(page)
    assert labels(page) == ["New request", "Yes, delete it"]
    assert not page.error
    assert poll_seconds(snapshot, store.now()) is None
    listed = entry(snapshot, timedelta(hours=1))
    assert listed
    assert (listed.state, listed.is_over) == (unreadable.TITLE, True)
    ours = [line for line in lines(caplog) if "request_id" in line]
    assert {line["event"] for line in ours} == {"made for another task"}
    assert not [word for word in WORDS_OF_OTHER_TASK if word in text(page) + caplog.text]
