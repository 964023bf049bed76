"""The API for programs, through Flask."""

import hashlib
import json
from collections.abc import Callable
from hashlib import sha256

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common.failures import Failure
from common.qstash import QStashRefused, deduplication_id
from common.settings import ServiceSettings
from common.states import Status
from common.store import Store
from tests.conftest import make_settings
from tests.fakes import (
    ADA,
    ANALYSIS,
    BOB,
    CALL,
    ID,
    LEASE,
    OTHER_ID,
    FakeAnalyst,
    FakeQueue,
    pending,
)
from webhook_service import create_app

INPUT = ADA.model_dump()


def client_for(
    store: Store, queue: FakeQueue, *, api_keys: str = "", open_api: bool = False
) -> FlaskClient:
    settings = make_settings(api_keys=api_keys)
    app = create_app(settings, store=store, queue=queue, analyst=FakeAnalyst(), open_api=open_api)
    return app.test_client()


@pytest.fixture
def client(store: Store, queue: FakeQueue) -> FlaskClient:
    return client_for(store, queue, open_api=True)


def submit(client: FlaskClient, key: str | None = None, **changes: object) -> TestResponse:
    headers = {"Idempotency-Key": key} if key is not None else {}
    return client.post("/analyze", json=INPUT | changes, headers=headers)


def test_a_submission_is_accepted_and_says_where_and_when(
    client: FlaskClient, store: Store, queue: FakeQueue
) -> None:
    response = submit(client)

    body = response.get_json()
    assert response.status_code == 202
    assert list(body) == ["requestId", "status", "dueAt"]
    assert response.headers["Location"] == f"/analyze/{body['requestId']}"
    assert response.headers["Retry-After"] == "60"
    assert store.read(body["requestId"]).input == ADA
    assert queue.published == [(body["requestId"], 1)]


def test_below_a_prefix_the_location_has_it_too(client: FlaskClient) -> None:
    sent = client.post("/analyze", json=INPUT, base_url="http://localhost/prefix")

    location = sent.headers["Location"]
    assert location == f"/prefix/analyze/{sent.get_json()['requestId']}"


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        pytest.param(b"", "application/json", 400, id="empty body"),
        pytest.param(b"{", "application/json", 400, id="bad JSON"),
        pytest.param(b"\xff", "application/json", 400, id="not UTF-8"),
        pytest.param(b"[" * 50_000, "application/json", 400, id="nested without end"),
        pytest.param(b"name=Ada", "application/x-www-form-urlencoded", 415, id="a form"),
        pytest.param(json.dumps(INPUT).encode(), "text/plain", 415, id="text"),
        pytest.param(json.dumps(INPUT).encode(), None, 415, id="no content type"),
        pytest.param(b"null", "application/json", 422, id="null"),
        pytest.param(b"[]", "application/json", 422, id="a list"),
        pytest.param(b"{}", "application/json", 422, id="no fields"),
        pytest.param(b'{"name": "\\ud800"}', "application/json", 422, id="lone surrogate"),
        pytest.param(b'{"age": NaN}', "application/json", 422, id="NaN"),
        pytest.param(b'{"age": 1e999}', "application/json", 422, id="infinite"),
        pytest.param(
            b'{"age": ' + b"9" * 4999 + b"}", "application/json", 400, id="endless digits"
        ),
    ],
)
def test_bad_input_is_named_and_nothing_is_stored_or_published(
    client: FlaskClient,
    queue: FakeQueue,
    fake_redis: redis.Redis,
    data: bytes,
    content_type: str | None,
    status: int,
) -> None:
    response = client.post("/analyze", data=data, content_type=content_type)

    assert response.status_code == status
    assert response.mimetype == "application/problem+json"
    assert fake_redis.keys("*") == []
    assert queue.published == []


def test_every_wrong_field_is_named(client: FlaskClient) -> None:
    response = submit(client, name=" ", age="36", description="short", role="admin")

    assert response.status_code == 422
    errors = {error["field"]: error["problem"] for error in response.get_json()["errors"]}
    assert set(errors) == {"name", "age", "description", "role"}


@pytest.mark.parametrize(
    "nothing",
    [
        pytest.param("\u200b" * 20, id="zero width spaces"),
        pytest.param("\u3164" * 20, id="Hangul fillers"),
        pytest.param("\u2800" * 20, id="blank Braille"),
        pytest.param("\u00ad\ufe0f" * 10, id="soft hyphens and selectors"),
    ],
)
def test_a_text_that_draws_nothing_gets_the_sentence_of_an_empty_one(
    client: FlaskClient, queue: FakeQueue, nothing: str
) -> None:
    empty = submit(client, name="", description="")

    response = submit(client, name=nothing, description=nothing)

    assert response.status_code == 422
    assert response.get_json() == empty.get_json()
    assert queue.published == []


def test_an_analysis_is_looked_up_without_its_input(client: FlaskClient, store: Store) -> None:
    location = submit(client).headers["Location"]

    response = client.get(location)

    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    assert response.get_json()["status"] == "pending"
    assert "nextAttemptAt" in response.get_json()
    for private in ("Ada", "sketch", "owner", "claim"):
        assert private not in response.text


def test_a_result_is_shown_with_its_model(client: FlaskClient, store: Store) -> None:
    now = store.now()
    completed = {"status": Status.COMPLETED, "result": ANALYSIS, "model": "m", "finished_at": now}
    store.create(pending(now).model_copy(update=completed))

    body = client.get(f"/analyze/{ID}").get_json()

    assert (body["status"], body["model"]) == ("completed", "m")
    assert body["result"] == ANALYSIS.model_dump()


def test_an_analysis_that_cannot_be_read_is_404_and_one_line(
    client: FlaskClient,
    store: Store,
    fake_redis: redis.Redis,
    broken_record: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake_redis.set(f"analysis:{{{ID}}}", broken_record)

    found, unknown = client.get(f"/analyze/{ID}"), client.get(f"/analyze/{OTHER_ID}")

    assert (found.status_code, found.data) == (404, unknown.data)
    (line,) = [json.loads(each) for each in caplog.text.splitlines() if '"error"' in each]
    assert (line["event"], line["request_id"]) == ("record not read", ID)


def test_a_failure_is_shown_in_words(client: FlaskClient, store: Store) -> None:
    store.create(pending(store.now()).give_up(of_round=1, now=store.now(), lease=LEASE))

    failure = client.get(f"/analyze/{ID}").get_json()["failure"]

    assert failure["code"] == Failure.DELIVERY_FAILED
    assert failure["message"].endswith(".")
    assert failure["nextStep"].endswith(".")


def test_the_same_idempotency_key_is_the_same_analysis(
    client: FlaskClient, queue: FakeQueue
) -> None:
    first, second = submit(client, "key"), submit(client, "key")

    assert first.get_json() == second.get_json()
    assert len(queue.published) == 1
    assert submit(client, "other").get_json() != first.get_json()


def test_an_idempotency_key_is_its_callers_own(store: Store, queue: FakeQueue) -> None:
    keys = ",".join(f"{name}:{sha256(name.encode()).hexdigest()}" for name in ("app", "appl"))
    client = client_for(store, queue, api_keys=keys)

    def post(name: str, key: str) -> str:
        headers = {"Authorization": f"Bearer {name}", "Idempotency-Key": key}
        answer = client.post("/analyze", json=INPUT, headers=headers)
        return str(answer.get_json()["requestId"])

    assert post("app", "key") == post("app", "key")
    assert len({post("app", "key"), post("appl", "key"), post("app", "lkey")}) == 3
    assert len(queue.published) == 3


def test_an_idempotency_key_with_another_input_is_422(
    client: FlaskClient, queue: FakeQueue
) -> None:
    submit(client, "key")

    response = submit(client, "key", **BOB.model_dump())

    assert response.status_code == 422
    assert len(queue.published) == 1


def complete(store: Store, request_id: str) -> None:
    store.update(
        request_id, lambda r, now: r.claim("a", of_round=1, now=r.due_at, call=CALL, lease=LEASE)
    )
    store.update(request_id, lambda r, now: r.complete("a", ANALYSIS, model="m", now=now))


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(complete, id="completed"),
        pytest.param(
            lambda store, each: store.update(each, lambda r, now: r.cancel(now=now)), id="cancelled"
        ),
    ],
)
def test_an_idempotency_key_tells_inputs_apart_when_the_input_is_no_longer_kept(
    client: FlaskClient, store: Store, queue: FakeQueue, end: Callable[[Store, str], object]
) -> None:
    request_id = submit(client, "key").get_json()["requestId"]
    end(store, request_id)
    assert store.read(request_id).input is None

    other, same = submit(client, "key", **BOB.model_dump()), submit(client, "key")

    assert other.status_code == 422
    assert (same.status_code, same.get_json()["requestId"]) == (202, request_id)
    assert same.get_json()["status"] == store.read(request_id).status
    assert len(queue.published) == 1


def test_an_idempotency_key_whose_record_is_gone_makes_another_analysis_once(
    client: FlaskClient, store: Store, queue: FakeQueue
) -> None:
    gone = submit(client, "key").get_json()["requestId"]
    before = store.read(gone)
    store.delete(gone)
    queue.published.clear()

    new = [submit(client, "key", **BOB.model_dump()).get_json()["requestId"] for _ in range(2)]

    assert new[0] == new[1]
    assert queue.published == [(new[0], 1)]
    assert store.read(new[0]).input == BOB
    assert deduplication_id(store.read(new[0])) != deduplication_id(before)  # QStash remembers it


def test_an_idempotency_key_stores_nothing_one_could_guess_it_or_the_input_from(
    client: FlaskClient, store: Store, fake_redis: redis.Redis
) -> None:
    request_id = submit(client, "the-key").get_json()["requestId"]
    complete(store, request_id)

    stored = "".join(
        f"{key!r}{fake_redis.get(key)!r}" for key in fake_redis.scan_iter("analysis:*")
    )
    assert "sketch" not in stored
    for guess in ("the-key", ADA.model_dump_json(), "open\0the-key"):
        assert guess not in stored
        for hashed in (sha256(guess.encode()), hashlib.md5(guess.encode())):
            assert hashed.hexdigest()[:32] not in stored


def test_one_input_under_two_idempotency_keys_has_two_fingerprints(
    client: FlaskClient, store: Store
) -> None:
    """So none can be found by trying inputs, without the key, which is not stored."""
    ids = [submit(client, key).get_json()["requestId"] for key in ("key", "other")]

    one, other = (store.read(each).fingerprint for each in ids)

    assert one != other


def test_the_id_of_an_idempotency_key_can_not_be_computed_without_our_secret(
    store: Store, queue: FakeQueue
) -> None:
    def request_id(secret: str) -> str:
        settings = make_settings(qstash_token=secret, qstash_url="https://qstash.example")
        app = create_app(settings, store=store, queue=queue, analyst=FakeAnalyst(), open_api=True)
        return str(submit(app.test_client(), "key").get_json()["requestId"])

    assert request_id("one") == request_id("one") != request_id("another")


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_idempotency_key_out_of_shape_is_400(client: FlaskClient, key: str) -> None:
    assert submit(client, key).status_code == 400


def test_a_refused_publish_is_503_with_location_and_the_key_publishes_again(
    client: FlaskClient, queue: FakeQueue
) -> None:
    queue.trouble = QStashRefused("429")
    refused = submit(client, "key")

    queue.trouble = None
    accepted = submit(client, "key")

    assert refused.status_code == 503
    assert refused.headers["Location"] == accepted.headers["Location"]
    assert int(refused.headers["Retry-After"]) > 0
    assert accepted.status_code == 202


def test_redis_away_is_503(settings: ServiceSettings, queue: FakeQueue) -> None:
    client = create_app(settings, queue=queue, analyst=FakeAnalyst(), open_api=True).test_client()

    for response in (submit(client), submit(client, "key"), client.get(f"/analyze/{ID}")):
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "10"
    assert queue.published == []


def test_without_api_keys_the_api_is_off(store: Store, queue: FakeQueue) -> None:
    client = client_for(store, queue)

    assert submit(client).status_code == 403
    assert client.get(f"/analyze/{ID}").status_code == 403


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer right", 202),
        ("bearer right", 202),
        ("Bearer old", 202),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        ("Basic right", 401),
        ("right", 401),
        ("Bearer r\u00eeght", 401),
        (None, 401),
    ],
)
def test_with_api_keys_a_known_key_is_needed(
    store: Store, queue: FakeQueue, authorization: str | None, status: int
) -> None:
    keys = ",".join(f"{key}:{sha256(key.encode()).hexdigest()}" for key in ("right", "old"))
    client = client_for(store, queue, api_keys=keys)
    headers = {"Authorization": authorization} if authorization is not None else {}

    response = client.post("/analyze", json=INPUT, headers=headers)

    assert response.status_code == status
    assert ("WWW-Authenticate" in response.headers) == (status == 401)


def test_the_location_is_under_the_prefix_the_service_is_mounted_at(client: FlaskClient) -> None:
    response = client.post("/analyze", json=INPUT, environ_overrides={"SCRIPT_NAME": "/service"})

    assert response.headers["Location"] == f"/service/analyze/{response.get_json()['requestId']}"


@pytest.mark.parametrize("host", ["localhost:3001", "127.0.0.1", "[::1]:3001"])
def test_the_open_api_answers_to_loopback_names(client: FlaskClient, host: str) -> None:
    assert client.post("/analyze", json=INPUT, headers={"Host": host}).status_code == 202


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.evil.example:3001"}, 421),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_the_open_api_is_out_of_a_web_pages_reach(
    client: FlaskClient, queue: FakeQueue, headers: dict[str, str], status: int
) -> None:
    assert client.post("/analyze", json=INPUT, headers=headers).status_code == status
    assert queue.published == []
