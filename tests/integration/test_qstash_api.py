"""What the QStash stand-in answers, held against Upstash's own description and SDK, and what it
refuses; then the faults it makes on demand.

The field names, types and status codes here are those of https://upstash.com/docs/qstash/openapi.yaml
"""

import base64
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from qstash import QStash
from qstash.errors import DailyMessageLimitExceededError, QStashError, RateLimitExceededError
from qstash.message import PublishResponse

from common.settings import DEVELOPMENT_TOKEN
from local_stack import qstash_queue
from local_stack.qstash_server import QStashServer
from tests.http_server import HttpServer, answer, hang, serve, serve_app
from tests.integration.test_qstash_server import (
    body_of,
    deliveries,
    is_given_up,
    publish,
    stays_at,
)
from tests.processes import wait_for
from webhook_service.signature import verify

OK = answer(200, b"done")
FAILED = answer(404, b"404 Not Found")
NOWHERE = "http://127.0.0.1:1"
AUTHORIZATION = {"Authorization": f"Bearer {DEVELOPMENT_TOKEN}"}

MESSAGE = {
    "messageId": str,
    "url": str,
    "method": str,
    "header": dict,
    "body": str,
    "maxRetries": int,
    "notBefore": int,
    "createdAt": int,
    "failureCallback": str,
    "callerIP": str,
    "label": str,
    "labels": list,
    "flowControlKey": str,
    "parallelism": int,
    "retryDelayExpression": str,  # not in the description; both SDKs read it
}
DEAD_LETTER = MESSAGE | {
    "responseStatus": int,
    "responseHeader": dict,
    "responseBody": str,
    "dlqId": str,  # as above
}
EVERYTHING = {
    "Content-Type": "application/json",
    "Upstash-Method": "PUT",
    "Upstash-Delay": "0s",
    "Upstash-Retries": "0",
    "Upstash-Retry-Delay": "1000 * (1 + retried)",
    "Upstash-Timeout": "1m",
    "Upstash-Failure-Callback": NOWHERE,
    "Upstash-Flow-Control-Key": "k",
    "Upstash-Flow-Control-Value": "parallelism=2",
    "Upstash-Label": "one, two",
    "Upstash-Forward-X-Trace": "abc",
}


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with serve_app(QStashServer().app) as url:
        yield url


@pytest.fixture
def sdk(server_url: str) -> Iterator[QStash]:
    client = QStash(DEVELOPMENT_TOKEN, base_url=server_url, retry=False)
    yield client
    client.http._client.close()


@pytest.fixture
def http(server_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server_url, headers=AUTHORIZATION) as client:
        yield client


def publish_raw(http: httpx.Client, url: str, **headers: str) -> httpx.Response:
    return http.post(f"/v2/publish/{url}", headers=headers, content=b'{"a": 1}')


def types_of(shown: dict[str, object]) -> dict[str, type]:
    return {name: type(value) for name, value in shown.items()}


def give_up(sdk: QStash, server: HttpServer, path: str = "", **options: object) -> str:
    """Publish a message that fails, wait until it is in the DLQ, and return its id."""
    message_id = publish(sdk, server.url + path, retries=0, **options)
    wait_for(lambda: sdk.dlq.list(filter={"message_id": message_id}).messages)
    return message_id


# ── What is answered ──


def test_a_publish_is_answered_with_its_id(http: httpx.Client) -> None:
    first = publish_raw(http, NOWHERE, **{"Upstash-Deduplication-Id": "d-0"})
    again = publish_raw(http, NOWHERE, **{"Upstash-Deduplication-Id": "d-0"})

    message_id = first.json()["messageId"]
    assert (first.status_code, first.json()) == (200, {"messageId": message_id})
    assert (again.status_code, again.json()) == (
        202,
        {"messageId": message_id, "deduplicated": True},
    )
    assert message_id.startswith("msg_")


def test_a_message_is_shown_as_described(http: httpx.Client) -> None:
    message_id = publish_raw(http, NOWHERE, **EVERYTHING | {"Upstash-Delay": "1h30m3s"}).json()[
        "messageId"
    ]

    answered = http.get(f"/v2/messages/{message_id}")

    message = answered.json()
    assert answered.status_code == 200
    assert types_of(message) == MESSAGE
    assert message["header"] == {"content-type": ["application/json"], "x-trace": ["abc"]}
    assert (message["label"], message["labels"]) == ("one", ["one", "two"])
    assert (message["flowControlKey"], message["parallelism"]) == ("k", 2)
    assert (message["method"], message["maxRetries"], message["body"]) == ("PUT", 0, '{"a": 1}')
    assert message["notBefore"] - message["createdAt"] == 5403 * 1000
    assert abs(message["createdAt"] / 1000 - time.time()) < 60


def test_a_cancelled_message_is_counted_once(http: httpx.Client) -> None:
    options = {"Upstash-Delay": "60s"}
    message_id = publish_raw(http, NOWHERE, **options).json()["messageId"]

    first, again = (http.delete(f"/v2/messages/{message_id}") for _ in range(2))

    assert (first.status_code, first.json()) == (200, {"cancelled": 1})
    assert again.status_code == 404
    assert types_of(again.json()) == {"error": str}


def test_a_dead_letter_is_shown_as_described(http: httpx.Client, sdk: QStash) -> None:
    with serve(answer(404, b"404 Not Found", X_Why="a\r\nX-Why: b")) as server:
        publish_raw(http, server.url, **EVERYTHING)
        wait_for(lambda: is_given_up(sdk, server.url))

    page = http.get("/v2/dlq", params={"url": server.url})
    (letter,) = page.json()["messages"]
    got = http.get(f"/v2/dlq/{letter['dlqId']}")

    assert (page.status_code, got.status_code, got.json()) == (200, 200, letter)
    assert types_of(letter) == DEAD_LETTER
    assert letter["responseHeader"]["x-why"] == ["a", "b"]
    assert (letter["responseStatus"], letter["responseBody"]) == (404, "404 Not Found")


def test_content_that_is_not_text_is_shown_in_base64(sdk: QStash) -> None:
    with serve(answer(500, b"\xff")) as server:
        sdk.message.publish(url=server.url, body=b"\xfe", retries=0)
        wait_for(lambda: is_given_up(sdk, server.url))

    (letter,) = sdk.dlq.list(filter={"url": server.url}).messages
    assert letter.body_base64 == base64.b64encode(b"\xfe").decode()
    assert letter.response_body_base64 == base64.b64encode(b"\xff").decode()
    assert (letter.body, letter.response_body) == (None, None)


def test_the_dlq_is_filtered_and_paged(http: httpx.Client, sdk: QStash) -> None:
    with serve(FAILED) as server:
        ids = [give_up(sdk, server, path) for path in ("/a", "/b", "/b")]
    here = [f"{server.url}/a", f"{server.url}/b"]

    def found(**query: object) -> list[str]:
        page = http.get("/v2/dlq", params=query).json()  # type: ignore[arg-type]
        return [letter["messageId"] for letter in page["messages"]]

    first = sdk.dlq.list(count=2, filter={"url": here[1] + "," + here[0]})
    rest = sdk.dlq.list(cursor=first.cursor, filter={"url": here[1] + "," + here[0]})
    assert [letter.message_id for letter in first.messages + rest.messages] == ids
    assert (len(first.messages), rest.cursor) == (2, None)
    assert found(url=here[1]) == ids[1:]
    assert found(url=here) == ids
    assert found(url="http://other") == found(url="") == []
    assert found(url=here[0], messageId=ids[1]) == []
    assert found(messageId=ids[1]) == ids[1:2]


@pytest.mark.parametrize("query", ["count=0", "count=101", "count=x", "cursor=x", "cursor=-1"])
def test_a_page_that_can_not_be_meant_is_400(http: httpx.Client, query: str) -> None:
    answered = http.get(f"/v2/dlq?{query}")

    assert answered.status_code == 400
    assert types_of(answered.json()) == {"error": str}


def test_what_is_not_there_is_404(http: httpx.Client) -> None:
    for path in ("/v2/messages/msg_none", "/v2/dlq/1-0"):
        answered = http.get(path)
        assert answered.status_code == 404
        assert answered.json() == {"error": f"{path.rpartition('/')[2]} not found"}


def test_every_endpoint_asks_for_the_token(server_url: str) -> None:
    for method, path in (
        ("POST", f"/v2/publish/{NOWHERE}"),
        ("GET", "/v2/messages/x"),
        ("DELETE", "/v2/messages/x"),
        ("GET", "/v2/dlq"),
        ("GET", "/v2/dlq/x"),
        ("GET", "/v2/keys"),
        ("POST", "/v2/keys/rotate"),
    ):
        answered = httpx.request(method, server_url + path)
        assert answered.status_code == 401, path
        assert answered.json() == {"error": "unauthorized"}


def test_keys_rotate_and_both_are_accepted_in_between() -> None:
    with serve_app(QStashServer().app) as url:
        sdk = QStash(DEVELOPMENT_TOKEN, base_url=url, retry=False)
        before = sdk.signing_key.get()
        after = sdk.signing_key.rotate()
        shown = httpx.get(f"{url}/v2/keys", headers=AUTHORIZATION).json()
        with serve(OK) as server:
            publish(sdk, server.url)
            (headers,) = deliveries(server, 1)
        sdk.http._client.close()

    assert (before.current, before.next) == (
        qstash_queue.CURRENT_SIGNING_KEY,
        qstash_queue.NEXT_SIGNING_KEY,
    )
    assert after.current == before.next
    assert after.next not in (before.current, before.next)
    assert shown == {"current": after.current, "next": after.next}
    body, token = body_of(server.requests[0]), headers["Upstash-Signature"]
    verify(token, body, url=server.url, keys=(before.current, before.next))
    verify(token, body, url=server.url, keys=(after.current, after.next))


# ── Flow control ──


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


@pytest.mark.parametrize(("name", "value"), [("Key", "k"), ("Value", "parallelism=1")])
def test_half_of_a_flow_control_is_400(http: httpx.Client, name: str, value: str) -> None:
    answered = publish_raw(http, NOWHERE, **{f"Upstash-Flow-Control-{name}": value})

    assert answered.status_code == 400
    assert answered.json() == {"error": "flow control needs a key and a value"}


def test_another_key_is_not_held_back(sdk: QStash) -> None:
    with serve(hang) as slow, serve(OK) as quick:
        publish(sdk, slow.url, flow_control={"key": "c", "parallelism": 1})
        deliveries(slow, 1)
        publish(sdk, quick.url, flow_control={"key": "d", "parallelism": 1})
        deliveries(quick, 1)


# ── What is refused, by name ──


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("POST", "/v2/batch"),
        ("POST", "/v2/enqueue/queue/http://127.0.0.1:1"),
        ("GET", "/v2/messages"),
        ("GET", "/v2/messages/"),
        ("DELETE", "/v2/messages"),
        ("DELETE", "/v2/messages/"),
        ("PUT", "/v2/messages/msg_1"),
        ("GET", "/v2/events"),
        ("GET", "/v2/logs"),
        ("GET", "/v2/dlq/"),
        ("DELETE", "/v2/dlq"),
        ("DELETE", "/v2/dlq/1-0"),
        ("POST", "/v2/dlq/retry"),
        ("POST", "/v2/dlq/retry/1-0"),
        ("GET", "/v2/queues"),
        ("GET", "/v2/schedules"),
        ("GET", "/v2/topics"),
        ("GET", "/v2/flowControl/k"),
        ("GET", "/v2/keys/rotate"),
        ("GET", "/faults"),
    ],
)
def test_another_endpoint_or_method_is_refused(http: httpx.Client, method: str, path: str) -> None:
    answered = http.request(method, path)

    assert answered.status_code == 501
    assert answered.json() == {"error": f"not in this stand-in: {method} {path}"}


TO_PUBLISH = f"POST /v2/publish/{NOWHERE}"


@pytest.mark.parametrize(
    ("request_line", "headers", "named"),
    [
        *(
            (TO_PUBLISH, {name: "true"}, f"header {name.lower()}")
            for name in (
                "Upstash-Callback",
                "Upstash-Callback-Retries",
                "Upstash-Callback-Forward-X",
                "Upstash-Failure-Callback-Retries",
                "Upstash-Failure-Callback-Method",
                "Upstash-Not-Before",
                "Upstash-Content-Based-Deduplication",
                "Upstash-Redact-Fields",
                "Upstash-Header-Forward",
                "Upstash-Cron",
                "Upstash-Forward-",
                "Upstash-Retry",
            )
        ),
        (
            TO_PUBLISH,
            {"Upstash-Flow-Control-Key": "k", "Upstash-Flow-Control-Value": "rate=1, period=1s"},
            "flow control by rate and period",
        ),
        (f"{TO_PUBLISH}?upstash-delay=1s", {}, "parameter upstash-delay"),
        (f"{TO_PUBLISH}?a=1&Upstash%2DRetries=1", {}, "parameter Upstash-Retries"),
        (f"{TO_PUBLISH}?qstash_token=x", {}, "parameter qstash_token"),
        ("GET /v2/dlq?queueName=a", {}, "parameter queueName"),
        ("GET /v2/dlq?dlqIds=1", {}, "parameter dlqIds"),
        ("GET /v2/dlq?urls=1", {}, "parameter urls"),
        ("GET /v2/dlq?=1", {}, "parameter "),
        ("GET /v2/dlq/1-0?url=a", {}, "parameter url"),
        ("GET /v2/keys?x=1", {}, "parameter x"),
        ("POST /v2/keys/rotate?x=1", {}, "parameter x"),
        ("GET /v2/messages/msg_1", {"Upstash-Label": "a"}, "header upstash-label"),
        ("DELETE /v2/messages/msg_1?label=a", {}, "parameter label"),
    ],
)
def test_an_unknown_header_or_parameter_is_refused(
    http: httpx.Client, request_line: str, headers: dict[str, str], named: str
) -> None:
    method, _, path = request_line.partition(" ")

    answered = http.request(method, path, headers=headers)

    assert answered.status_code == 501
    assert named in answered.json()["error"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "/v2/messages/msg_1"), ("POST", "/v2/keys/rotate"), ("GET", "/v2/dlq")],
)
def test_a_body_where_none_is_taken_is_refused(http: httpx.Client, method: str, path: str) -> None:
    answered = http.request(method, path, json={"messageIds": ["msg_1"]})

    assert answered.status_code == 501
    assert "body" in answered.json()["error"]


def test_a_header_that_is_given_twice_is_400(http: httpx.Client) -> None:
    headers = [("Upstash-Delay", "1s"), ("Upstash-Delay", "60s")]

    answered = http.post(f"/v2/publish/{NOWHERE}", headers=headers)

    assert answered.status_code == 400
    assert answered.json() == {"error": "header upstash-delay is given twice"}


def test_what_is_refused_has_changed_nothing(http: httpx.Client, sdk: QStash) -> None:
    kept = publish(sdk, NOWHERE, delay="60s", label="mine")
    keys = sdk.signing_key.get()

    with pytest.raises(QStashError, match="501"):
        sdk.message.cancel_many([kept])
    with pytest.raises(QStashError, match="501"):
        sdk.message.cancel_all()
    refused = http.delete("/v2/messages?label=other"), http.post("/v2/keys/rotate?x=1")
    with serve(OK) as server:
        with pytest.raises(QStashError, match="501"):
            publish(sdk, server.url, callback=NOWHERE)
        assert stays_at(server, 0, 0.3)

    assert [answered.status_code for answered in refused] == [501, 501]
    assert sdk.signing_key.get() == keys
    sdk.message.cancel(kept)  # it still waited


def test_what_an_sdk_tells_of_itself_is_no_matter(http: httpx.Client) -> None:
    headers = {"Upstash-Telemetry-Sdk": "upstash-qstash-js@2", "Upstash-Delay": "60s"}

    assert publish_raw(http, NOWHERE, **headers).status_code == 200


# ── Faults on demand ──


def plan_fault(server_url: str, **fault: object) -> None:
    assert httpx.post(f"{server_url}/faults", json=fault).status_code == 200


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
    for fault in ("{}x", '{"times": 0}', '{"status": "bad"}', '{"tims": 2}'):
        assert httpx.post(f"{server_url}/faults", content=fault).status_code == 400
