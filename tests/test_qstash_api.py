"""The rest of the QStash stand-in, through the real SDK: one test for each row of its table."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from qstash import QStash
from qstash.errors import DailyMessageLimitExceededError, QStashError, RateLimitExceededError
from qstash.log import LogState
from qstash.message import BatchResponse, PublishResponse

from common.settings import DEVELOPMENT_TOKEN
from local_stack import qstash_courier
from local_stack.qstash_server import QStashServer
from tests.http_server import HttpServer, answer, hang, serve, serve_app
from tests.processes import wait_for
from tests.test_qstash_server import body_of, claims_of, deliveries, publish, stays_at
from webhook_service.signature import verify

OK = answer(200, b"done")
FAILED = answer(404, b"404 Not Found")
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def server_url() -> Iterator[str]:
    """A server of its own for each test: keys, faults, and "all messages" are shared state."""
    with serve_app(QStashServer().app) as url:
        yield url


@pytest.fixture
def sdk(server_url: str) -> Iterator[QStash]:
    client = QStash(DEVELOPMENT_TOKEN, base_url=server_url, retry=False)
    yield client
    client.http._client.close()


def post(server_url: str, path: str, **options: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {DEVELOPMENT_TOKEN}"}
    return httpx.post(server_url + path, headers=headers, **options)  # type: ignore[arg-type]


def plan_fault(server_url: str, **fault: object) -> None:
    assert httpx.post(f"{server_url}/faults", json=fault).status_code == 200


def give_up(sdk: QStash, server: HttpServer, **options: object) -> str:
    """Publish a message that fails, wait until it is in the DLQ, and return its id there."""
    message_id = publish(sdk, server.url, retries=0, **options)
    wait_for(lambda: sdk.dlq.list(filter={"message_id": message_id}).messages)
    return sdk.dlq.list(filter={"message_id": message_id}).messages[0].dlq_id


def test_it_answers_to_loopback_names_alone(server_url: str) -> None:
    headers = {"Authorization": f"Bearer {DEVELOPMENT_TOKEN}"}

    here = httpx.get(f"{server_url}/v2/keys", headers=headers)
    rebound = httpx.get(f"{server_url}/v2/keys", headers=headers | {"Host": "rebound.example"})

    assert (here.status_code, rebound.status_code) == (200, 421)


def test_a_delay_may_have_several_units(sdk: QStash) -> None:
    message = sdk.message.get(publish(sdk, NOWHERE, delay="1h30m3s"))

    assert message.not_before - message.created_at == 5403 * 1000


def test_not_before_is_waited_for(sdk: QStash) -> None:
    with serve(OK) as server:
        due = int(time.time()) + 2
        publish(sdk, server.url, not_before=due)
        deliveries(server, 1)

    assert time.time() >= due


def test_equal_content_makes_one_message_and_another_body_another(sdk: QStash) -> None:
    with serve(OK) as server:
        answers = [
            sdk.message.publish_json(url=server.url, body=body, content_based_deduplication=True)
            for body in ({"a": 1}, {"a": 1}, {"a": 2})
        ]
        deliveries(server, 2)
        assert stays_at(server, 2, 0.3)

    assert [answer.deduplicated for answer in answers] == [False, True, False]  # type: ignore[union-attr]


def test_a_callback_gets_the_answer_of_each_try(sdk: QStash) -> None:
    with serve(answer(500, b"not yet"), OK) as server, serve(OK) as callback:
        message_id = publish(
            sdk, server.url, retries=1, retry_delay="50", callback=f"{callback.url}/called"
        )
        headers = deliveries(callback, 2)

    reports = [json.loads(body_of(request)) for request in callback.requests]
    assert sorted(report["status"] for report in reports) == [200, 500]
    assert {report["sourceMessageId"] for report in reports} == {message_id}
    assert claims_of(headers[0])["sub"] == f"{callback.url}/called"


def test_callbacks_have_options_of_their_own(sdk: QStash) -> None:
    with serve(FAILED) as server, serve(FAILED) as callback:
        publish(
            sdk,
            server.url,
            retries=0,
            failure_callback=callback.url,
            failure_callback_headers={"Forward-X-Trace": "abc", "Retries": "0"},
        )
        (headers,) = deliveries(callback, 1)
        assert headers["X-Trace"] == "abc"
        assert stays_at(callback, 1, 0.5)


def test_parallelism_holds_back_and_refuses_nothing(sdk: QStash) -> None:
    may_answer = threading.Event()

    def answer_later(connection: socket.socket) -> None:
        may_answer.wait(60)
        OK(connection)

    with serve(answer_later) as server:
        for _ in range(4):
            publish(sdk, server.url, flow_control={"key": "a", "parallelism": 2})
        deliveries(server, 2)
        assert stays_at(server, 2, 0.4)
        may_answer.set()
        deliveries(server, 4)


def test_rate_holds_back_until_the_next_period(sdk: QStash) -> None:
    with serve(OK) as server:
        began = time.monotonic()
        for _ in range(5):
            publish(sdk, server.url, flow_control={"key": "b", "rate": 2, "period": "1s"})
        deliveries(server, 5)

    assert time.monotonic() - began >= 2


def test_another_key_is_not_held_back(sdk: QStash) -> None:
    with serve(hang) as slow, serve(OK) as quick:
        publish(sdk, slow.url, flow_control={"key": "c", "parallelism": 1})
        deliveries(slow, 1)
        publish(sdk, quick.url, flow_control={"key": "d", "parallelism": 1})
        deliveries(quick, 1)


@pytest.mark.parametrize("value", ["", "parallelism=x", "speed=2", "period=1s", "rate=1,period=x"])
def test_a_flow_control_that_can_not_be_meant_is_400(server_url: str, value: str) -> None:
    headers = {
        "Authorization": f"Bearer {DEVELOPMENT_TOKEN}",
        "Upstash-Flow-Control-Key": "k",
        "Upstash-Flow-Control-Value": value,
    }

    assert httpx.post(f"{server_url}/v2/publish/{NOWHERE}", headers=headers).status_code == 400


def test_redacted_fields_are_delivered_and_not_shown(sdk: QStash) -> None:
    with serve(FAILED) as server:
        dlq_id = give_up(
            sdk,
            server,
            headers={"X-Secret": "s3cret", "X-Open": "open"},
            redact={"body": True, "header": ["X-Secret"]},
        )
        (headers,) = deliveries(server, 1)

    letter = sdk.dlq.get(dlq_id)
    events = sdk.log.list(filter={"message_id": letter.message_id}).logs
    assert headers["X-Secret"] == "s3cret"
    assert json.loads(body_of(server.requests[0])) == {"a": 1}
    assert letter.body is not None
    assert letter.body.startswith("REDACTED:")
    assert letter.headers is not None
    assert letter.headers["x-open"] == ["open"]
    assert "s3cret" not in str(letter) + str(events)


def test_a_batch_is_many_messages(sdk: QStash) -> None:
    with serve(OK) as server:
        answers = sdk.message.batch_json(
            [
                {"url": f"{server.url}/{number}", "body": number, "label": f"n{number}"}
                for number in range(3)
            ]
        )
        deliveries(server, 3)

    ids = [one.message_id for one in answers if isinstance(one, BatchResponse)]
    assert len(set(ids)) == 3
    assert [sdk.message.get(id).label for id in ids] == ["n0", "n1", "n2"]


@pytest.mark.parametrize("body", [b"", b"{}", b'[{"body": "x"}]', b'[{"destination": "x"}]'])
def test_a_batch_out_of_shape_is_400(server_url: str, body: bytes) -> None:
    assert post(server_url, "/v2/batch", content=body).status_code == 400


def test_cancelling_many_counts_those_that_still_waited(sdk: QStash) -> None:
    with serve(FAILED) as server:
        waiting = publish(sdk, server.url, delay="60s")
        retrying = publish(sdk, server.url, retry_delay="60000")
        deliveries(server, 1)

        assert sdk.message.cancel_many([waiting, retrying, "msg_unknown"]) == 2
        assert sdk.message.cancel_many([waiting]) == 0


def test_cancelling_all(sdk: QStash) -> None:
    for _ in range(3):
        publish(sdk, NOWHERE, delay="60s")

    assert sdk.message.cancel_all() == 3
    assert sdk.message.cancel_all() == 0


def test_a_message_given_up_rests_in_the_dlq_with_its_last_answer(sdk: QStash) -> None:
    with serve(FAILED) as server:
        dlq_id = give_up(sdk, server, label="mine")

    letter = sdk.dlq.get(dlq_id)
    assert (letter.response_status, letter.response_body) == (404, "404 Not Found")
    assert (letter.body, letter.label, letter.url) == ('{"a": 1}', "mine", server.url)


def test_the_dlq_is_filtered_and_paged(sdk: QStash) -> None:
    with serve(FAILED) as server:
        for number in range(3):
            give_up(sdk, server, label=f"n{number}")

    first = sdk.dlq.list(count=2)
    rest = sdk.dlq.list(cursor=first.cursor)
    assert [len(first.messages), len(rest.messages), rest.cursor] == [2, 1, None]
    assert len(sdk.dlq.list(filter={"label": "n1"}).messages) == 1
    assert len(sdk.dlq.list(filter={"response_status": 404}).messages) == 3
    assert sdk.dlq.list(filter={"url": "http://other"}).messages == []
    assert sdk.dlq.list(filter={"to_time": 1}).messages == []


def test_dead_letters_are_deleted(sdk: QStash) -> None:
    with serve(FAILED) as server:
        ids = [give_up(sdk, server) for _ in range(3)]

    sdk.dlq.delete(ids[0])
    assert sdk.dlq.delete_many([*ids, "unknown"]) == 2
    with pytest.raises(QStashError, match="404"):
        sdk.dlq.get(ids[1])
    with pytest.raises(QStashError, match="404"):
        sdk.dlq.delete(ids[1])


def test_a_dead_letter_retried_is_a_new_message(sdk: QStash, server_url: str) -> None:
    with serve(FAILED, OK) as server:
        dlq_id = give_up(sdk, server, deduplication_id="d-1", headers={"X-Trace": "abc"})
        old = sdk.dlq.get(dlq_id).message_id

        new = post(server_url, f"/v2/dlq/retry/{dlq_id}").json()["messageId"]
        headers = deliveries(server, 2)[1]

    assert new != old
    assert headers["Upstash-Message-Id"] == new
    assert headers["X-Trace"] == "abc"
    assert json.loads(body_of(server.requests[1])) == {"a": 1}
    assert sdk.dlq.list().messages == []
    assert post(server_url, f"/v2/dlq/retry/{dlq_id}").status_code == 404


def test_headers_sent_with_a_retry_replace_those_of_the_dead_letter(
    sdk: QStash, server_url: str
) -> None:
    with serve(FAILED, OK) as server:
        dlq_id = give_up(sdk, server, label="first")
        headers = {
            "Authorization": f"Bearer {DEVELOPMENT_TOKEN}",
            "Upstash-Label": "second",
            "Upstash-Retries": "5",
        }

        answered = httpx.post(f"{server_url}/v2/dlq/retry/{dlq_id}", headers=headers)
        deliveries(server, 2)

    message = sdk.message.get(answered.json()["messageId"])
    assert (message.label, message.max_retries) == ("second", 5)


def test_many_dead_letters_are_retried_at_once(sdk: QStash, server_url: str) -> None:
    with serve(FAILED, FAILED, OK) as server:
        ids = [give_up(sdk, server) for _ in range(2)]

        retried = post(server_url, "/v2/dlq/retry", params={"dlqIds": ids}).json()["responses"]
        deliveries(server, 4)

    assert len(retried) == 2


def test_events_tell_the_course_of_a_message(sdk: QStash) -> None:
    with serve(answer(500), OK) as server:
        message_id = publish(sdk, server.url, retries=1, retry_delay="50", label="mine")
        wait_for(
            lambda: (
                sdk.log.list(filter={"message_id": message_id, "state": LogState.DELIVERED}).logs
            )
        )

    logs = sdk.log.list(filter={"message_ids": [message_id]}).logs
    assert [log.state.value for log in reversed(logs)] == [
        "CREATED",
        "ACTIVE",
        "ERROR",
        "RETRY",
        "ACTIVE",
        "DELIVERED",
    ]
    assert logs[0].retry_delay_expression == "50"
    assert logs == sdk.log.list(filter={"label": "mine"}).logs
    assert logs == sdk.log.list(filter={"url": logs[0].url, "from_time": 1}).logs
    for other in ({"label": "other"}, {"url": "http://other"}, {"to_time": 1}):
        assert sdk.log.list(filter=other).logs == []  # type: ignore[arg-type]


def test_the_end_of_a_message_is_told(sdk: QStash) -> None:
    with serve(FAILED) as server:
        give_up(sdk, server)
    sdk.message.cancel(publish(sdk, NOWHERE, delay="60s"))

    for state in (LogState.FAILED, LogState.CANCELED):
        assert len(sdk.log.list(filter={"state": state}).logs) == 1


def test_keys_rotate_and_both_are_accepted_in_between(sdk: QStash) -> None:
    before = sdk.signing_key.get()
    assert (before.current, before.next) == (
        qstash_courier.CURRENT_SIGNING_KEY,
        qstash_courier.NEXT_SIGNING_KEY,
    )

    after = sdk.signing_key.rotate()
    with serve(OK) as server:
        publish(sdk, server.url)
        (headers,) = deliveries(server, 1)

    assert (after.current, sdk.signing_key.get()) == (before.next, after)
    assert after.next not in (before.current, before.next)
    body, token = body_of(server.requests[0]), headers["Upstash-Signature"]
    verify(token, body, url=server.url, keys=(before.current, before.next))
    verify(token, body, url=server.url, keys=(after.current, after.next))


def test_every_endpoint_asks_for_the_token(server_url: str) -> None:
    for method, path in (
        ("POST", f"/v2/publish/{NOWHERE}"),
        ("POST", "/v2/batch"),
        ("GET", "/v2/messages/x"),
        ("DELETE", "/v2/messages/x"),
        ("DELETE", "/v2/messages"),
        ("GET", "/v2/events"),
        ("GET", "/v2/dlq"),
        ("DELETE", "/v2/dlq"),
        ("GET", "/v2/dlq/x"),
        ("DELETE", "/v2/dlq/x"),
        ("POST", "/v2/dlq/retry"),
        ("POST", "/v2/dlq/retry/x"),
        ("GET", "/v2/keys"),
        ("POST", "/v2/keys/rotate"),
    ):
        assert httpx.request(method, server_url + path).status_code == 401, path


# ── Faults on demand ──


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("RateLimit-Limit", DailyMessageLimitExceededError),
        ("Burst-RateLimit-Limit", RateLimitExceededError),
    ],
)
def test_a_publish_is_refused_as_often_as_planned(
    sdk: QStash, server_url: str, header: str, error: type[Exception]
) -> None:
    plan_fault(server_url, status=429, headers={header: "1"}, times=2)

    for _ in range(2):
        with pytest.raises(error):
            publish(sdk, NOWHERE, delay="60s")
    assert publish(sdk, NOWHERE, delay="60s")


def test_an_answer_comes_late_as_planned(sdk: QStash, server_url: str) -> None:
    plan_fault(server_url, seconds=0.5)
    began = time.monotonic()

    publish(sdk, NOWHERE, delay="60s")

    assert time.monotonic() - began >= 0.5


def test_a_message_is_delivered_twice_as_planned(sdk: QStash, server_url: str) -> None:
    plan_fault(server_url, is_duplicated=True)
    with serve(OK) as server:
        message_id = publish(sdk, server.url)
        headers = deliveries(server, 2)

    assert [row["Upstash-Message-Id"] for row in headers] == [message_id] * 2


def test_a_reply_is_lost_after_accepting_as_planned(sdk: QStash, server_url: str) -> None:
    plan_fault(server_url, is_reply_dropped=True)
    with serve(OK) as server:
        with pytest.raises(httpx.RemoteProtocolError):
            publish(sdk, server.url, deduplication_id="d-1")
        again = sdk.message.publish_json(url=server.url, body=1, deduplication_id="d-1")
        deliveries(server, 1)
        assert stays_at(server, 1, 0.3)

    assert isinstance(again, PublishResponse)
    assert again.deduplicated


def test_a_fault_out_of_shape_is_400(server_url: str) -> None:
    for fault in ("{}x", '{"times": 0}', '{"status": "bad"}'):
        assert httpx.post(f"{server_url}/faults", content=fault).status_code == 400


def test_content_that_is_not_text_is_shown_in_base64(sdk: QStash) -> None:
    with serve(answer(500, b"\xff")) as server:
        response = sdk.message.publish(url=server.url, body=b"\xfe", retries=0)
        assert isinstance(response, PublishResponse)
        wait_for(lambda: sdk.dlq.list().messages)

    (letter,) = sdk.dlq.list().messages
    assert letter.body_base64 == base64.b64encode(b"\xfe").decode()
    assert letter.response_body_base64 == base64.b64encode(b"\xff").decode()
