"""What QStash is told: the whole table, through Flask, with real signatures."""

import base64
import json
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common import tracing
from common.connection import connect
from common.failures import Failure
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.states import Status
from common.store import Store
from local_stack import qstash_queue
from tests.conftest import WEBHOOK_URL, make_settings
from tests.fakes import CALL, DELAY, ID, LEASE, FakeAnalyst, FakeQueue, pending
from webhook_service import MAX_BODY_BYTES, create_app
from webhook_service.answer import AnalysisFailed

FAILURE_URL = f"{WEBHOOK_URL}/failure"
NO_DELAY = timedelta(0)
MESSAGE = json.dumps({"requestId": ID, "round": 1}).encode()
MALFORMED = [
    pytest.param(b"", id="empty"),
    pytest.param(b"not JSON", id="not JSON"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b"{}", id="no id"),
    pytest.param(b'{"requestId": "x", "round": 1}', id="malformed id"),
    pytest.param(MESSAGE.replace(b"1}", b"0}"), id="round 0"),
    pytest.param(MESSAGE.replace(b"1}", b'"1"}'), id="round as text"),
    pytest.param(b"\xff\xfe", id="not UTF-8"),
    pytest.param(b"[" * 50_000, id="nested without end"),
]


@pytest.fixture
def analyst() -> FakeAnalyst:
    return FakeAnalyst()


@pytest.fixture
def client(
    settings: ServiceSettings, store: Store, queue: FakeQueue, analyst: FakeAnalyst
) -> FlaskClient:
    return create_app(settings, store=store, queue=queue, analyst=analyst).test_client()


@pytest.fixture
def due(store: Store) -> AnalysisRecord:
    record = pending(store.now(), NO_DELAY)
    store.create(record)
    return record


def deliver(client: FlaskClient, body: bytes = MESSAGE, **headers: str) -> TestResponse:
    token = qstash_queue.sign(WEBHOOK_URL, body, qstash_queue.CURRENT_SIGNING_KEY)
    return client.post("/webhook", data=body, headers={"Upstash-Signature": token, **headers})


def call_back(client: FlaskClient, source_body: bytes = MESSAGE) -> TestResponse:
    body = json.dumps(
        {"status": "503", "retried": 3, "sourceBody": base64.b64encode(source_body).decode()}
    ).encode()
    token = qstash_queue.sign(FAILURE_URL, body, qstash_queue.CURRENT_SIGNING_KEY)
    return client.post("/webhook/failure", data=body, headers={"Upstash-Signature": token})


def test_a_settled_delivery_is_200(client: FlaskClient, store: Store, due: AnalysisRecord) -> None:
    assert deliver(client).status_code == 200
    assert store.read(ID).status is Status.COMPLETED


def test_a_delivery_with_nothing_to_do_is_200(client: FlaskClient) -> None:
    assert deliver(client).status_code == 200


def test_a_delivery_before_its_time_is_503_with_the_rest(client: FlaskClient, store: Store) -> None:
    store.create(pending(store.now(), DELAY))

    response = deliver(client)

    assert response.status_code == 503
    assert 55 < int(response.headers["Retry-After"]) <= 60


def test_qstash_is_asked_to_wait_a_day_at_most_as_it_ignores_more(
    client: FlaskClient, store: Store
) -> None:
    store.create(pending(store.now(), timedelta(days=7)))

    assert deliver(client).headers["Retry-After"] == "86400"


def test_a_transient_failure_is_503_with_retry_after(
    client: FlaskClient, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    analyst.answers = [AnalysisFailed(Failure.RATE_LIMITED, "429", timedelta(seconds=30))]

    response = deliver(client)

    assert (response.status_code, response.headers["Retry-After"]) == (503, "30")


def test_what_the_operator_must_mend_is_489(
    client: FlaskClient, analyst: FakeAnalyst, due: AnalysisRecord
) -> None:
    analyst.answers = [AnalysisFailed(Failure.QUOTA_EXCEEDED, "429")]

    response = deliver(client)

    assert response.status_code == 489
    assert response.headers["Upstash-NonRetryable-Error"] == "true"


@pytest.mark.parametrize("body", MALFORMED)
def test_a_signed_body_that_is_not_ours_is_489(client: FlaskClient, body: bytes) -> None:
    response = deliver(client, body)

    assert response.status_code == 489
    assert response.headers["Upstash-NonRetryable-Error"] == "true"


def test_of_an_unsigned_message_id_only_what_looks_like_one_is_logged(
    client: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    for message_id in ("msg_genuine-1", "msg_and more", "anything", f"msg_{'x' * 81}"):
        client.post("/webhook", data=MESSAGE, headers={"Upstash-Message-Id": message_id})

    lines = [json.loads(line) for line in caplog.text.splitlines()]
    assert [line.get("message_id") for line in lines] == ["msg_genuine-1", None, None, None]


def test_without_tracing_a_trace_that_comes_with_a_delivery_goes_nowhere(
    client: FlaskClient,
    analyst: FakeAnalyst,
    due: AnalysisRecord,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    sent_on: list[dict[str, str]] = []
    analyst.during_call = lambda: sent_on.append(tracing.headers())

    assert deliver(client, traceparent=traceparent).status_code == 200

    assert sent_on == [{}]
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    assert "settled" in [line["event"] for line in lines]
    assert not any("trace_id" in line for line in lines)


@pytest.mark.parametrize("path", ["/webhook", "/webhook/failure", "/analyze"])
def test_a_body_over_the_limit_is_413(
    settings: ServiceSettings, store: Store, queue: FakeQueue, path: str
) -> None:
    app = create_app(settings, store=store, queue=queue, analyst=FakeAnalyst(), open_api=True)

    response = app.test_client().post(
        path, data=b"x" * (MAX_BODY_BYTES + 1), content_type="application/json"
    )

    assert response.status_code == 413


def test_a_failure_callback_fails_the_analysis(
    client: FlaskClient, store: Store, due: AnalysisRecord
) -> None:
    assert call_back(client).status_code == 200
    assert store.read(ID).failure is Failure.DELIVERY_FAILED


def test_a_failure_callback_during_an_attempt_is_503_with_the_leases_rest(
    client: FlaskClient, store: Store, due: AnalysisRecord
) -> None:
    store.update(ID, lambda r, now: r.claim("a", of_round=1, now=now, call=CALL, lease=LEASE))

    response = call_back(client)

    assert response.status_code == 503
    assert 30 < int(response.headers["Retry-After"]) <= 40


@pytest.mark.parametrize("source_body", MALFORMED)
def test_a_failure_callback_that_is_not_about_ours_is_489(
    client: FlaskClient, source_body: bytes
) -> None:
    assert call_back(client, source_body[:1000]).status_code == 489


@pytest.fixture
def client_without_redis(settings: ServiceSettings, queue: FakeQueue) -> FlaskClient:
    return create_app(settings, queue=queue, analyst=FakeAnalyst()).test_client()


def test_redis_away_is_503_with_retry_after(client_without_redis: FlaskClient) -> None:
    for response in (deliver(client_without_redis), call_back(client_without_redis)):
        assert (response.status_code, response.headers["Retry-After"]) == (503, "10")


def test_health_answers_while_redis_is_away_and_ready_does_not(
    client: FlaskClient, client_without_redis: FlaskClient
) -> None:
    assert client.get("/health").status_code == 200
    assert client.get("/ready").status_code == 200
    assert client_without_redis.get("/health").status_code == 200
    assert client_without_redis.get("/ready").status_code == 503


def test_unknown_routes_and_methods_are_problems(client: FlaskClient) -> None:
    for response, status in ((client.get("/"), 404), (client.get("/webhook"), 405)):
        assert response.status_code == status
        assert response.mimetype == "application/problem+json"


def test_a_fault_of_ours_is_500_and_shows_nothing(
    settings: ServiceSettings, queue: FakeQueue, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenStore(Store):
        def check(self) -> None:
            raise RuntimeError("PERSONAL")

    store = BrokenStore(connect(make_settings()), ttl=DELAY)
    client = create_app(settings, store=store, queue=queue, analyst=FakeAnalyst()).test_client()

    response = client.get("/ready")

    assert response.status_code == 500
    assert b"PERSONAL" not in response.data
    assert b"RuntimeError" not in response.data
    assert "RuntimeError" in caplog.text
    assert "PERSONAL" not in caplog.text


def test_an_app_needs_nothing_but_settings_and_connects_to_nothing(
    settings: ServiceSettings,
) -> None:
    assert create_app(settings).test_client().get("/health").status_code == 200
