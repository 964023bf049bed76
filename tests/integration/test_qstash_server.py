"""The QStash stand-in through the real SDK: one test for each header and rule it honours."""

import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import httpx
import jwt
import pytest
from qstash import QStash
from qstash.errors import QStashError
from qstash.message import PublishResponse

from common.settings import DEVELOPMENT_TOKEN
from local_stack import qstash_message, qstash_queue, qstash_server
from tests.http_server import Behaviour, HttpServer, answer, hang, serve
from tests.processes import free_port, start_stand_in, wait_for

OK = answer(200)
FAILED = answer(500)


@pytest.fixture(scope="module")
def server_url() -> Iterator[str]:
    with start_stand_in("qstash_server") as url:
        yield url


@pytest.fixture
def sdk(server_url: str) -> Iterator[QStash]:
    client = QStash(DEVELOPMENT_TOKEN, base_url=server_url, retry=False)
    yield client
    client.http._client.close()


def publish(sdk: QStash, url: str, **options: object) -> str:
    response = sdk.message.publish_json(url=url, body={"a": 1}, **options)  # type: ignore[arg-type]
    assert isinstance(response, PublishResponse)
    return response.message_id


def deliveries(server: HttpServer, number: int) -> list[httpx.Headers]:
    """Wait for so many deliveries, and return their headers."""
    wait_for(lambda: len(server.requests) >= number)
    return [headers_of(request) for request in server.requests]


def headers_of(request: bytes) -> httpx.Headers:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    pairs = (line.partition(": ") for line in lines)
    return httpx.Headers([(name, value) for name, _, value in pairs])


def body_of(request: bytes) -> bytes:
    return request.partition(b"\r\n\r\n")[2]


def stays_at(server: HttpServer, number: int, seconds: float) -> bool:
    """Whether no further delivery comes for a while."""
    time.sleep(seconds)
    return len(server.requests) == number


def is_given_up(sdk: QStash, url: str) -> bool:
    """Whether the messages for this address, or one of them, are in the DLQ."""
    return bool(sdk.dlq.list(filter={"url": url}).messages)


def claims_of(headers: httpx.Headers) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(
        headers["Upstash-Signature"], qstash_queue.CURRENT_SIGNING_KEY, algorithms=["HS256"]
    )
    return claims


def test_a_message_is_delivered_with_its_body_and_headers(sdk: QStash) -> None:
    with serve(OK) as server:
        message_id = publish(sdk, server.url + "/hook")
        (headers,) = deliveries(server, 1)

    assert server.requests[0].startswith(b"POST /hook HTTP/1.1")
    assert json.loads(body_of(server.requests[0])) == {"a": 1}
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == "Upstash-QStash"
    assert headers["Upstash-Message-Id"] == message_id
    assert headers["Upstash-Retried"] == "0"
    assert headers["Upstash-Caller-Ip"] == "127.0.0.1"


def test_method_and_forwarded_headers_reach_the_destination(sdk: QStash) -> None:
    with serve(OK) as server:
        publish(sdk, server.url, method="PUT", headers={"X-Trace": "abc"})
        (headers,) = deliveries(server, 1)

    assert server.requests[0].startswith(b"PUT ")
    assert headers["X-Trace"] == "abc"


@pytest.mark.parametrize("path", ["/hook?a=1&b=2", "/a%20b", "/a//b?x=%2F", "/"])
def test_the_destination_is_taken_and_signed_as_it_was_sent(sdk: QStash, path: str) -> None:
    with serve(OK) as server:
        publish(sdk, server.url + path)
        (headers,) = deliveries(server, 1)

    assert server.requests[0].startswith(f"POST {path} HTTP/1.1".encode())
    assert claims_of(headers)["sub"] == server.url + path


def test_the_signature_has_the_documented_claims(sdk: QStash) -> None:
    with serve(OK) as server:
        publish(sdk, server.url)
        (headers,) = deliveries(server, 1)

    claims = claims_of(headers)
    digest = hashlib.sha256(body_of(server.requests[0])).digest()
    assert claims["iss"] == "Upstash"
    assert claims["body"] == base64.urlsafe_b64encode(digest).decode()
    assert claims["exp"] == int(str(claims["iat"])) + 300
    assert claims["nbf"] == 0
    assert isinstance(claims["jti"], str)
    assert "aud" not in claims


def test_a_delay_is_waited_for(sdk: QStash) -> None:
    with serve(OK) as server:
        began = time.monotonic()
        publish(sdk, server.url, delay="1s")
        deliveries(server, 1)

    assert time.monotonic() - began >= 1


def test_retries_follow_the_expression_with_a_fresh_token_each(sdk: QStash) -> None:
    with serve(FAILED, FAILED, OK) as server:
        began = time.monotonic()
        publish(sdk, server.url, retries=3, retry_delay="max(100, 200 * (1 + retried))")
        headers = deliveries(server, 3)
        assert time.monotonic() - began >= 0.2 + 0.4
        assert stays_at(server, 3, 0.7)

    assert [row["Upstash-Retried"] for row in headers] == ["0", "1", "2"]
    assert len({row["Upstash-Message-Id"] for row in headers}) == 1
    assert len({claims_of(row)["jti"] for row in headers}) == 3
    assert len({body_of(request) for request in server.requests}) == 1


def test_retries_end_after_their_number(sdk: QStash) -> None:
    with serve(FAILED) as server:
        publish(sdk, server.url, retries=1, retry_delay="50")
        deliveries(server, 2)

        assert stays_at(server, 2, 0.5)


@pytest.mark.parametrize("header", ["Retry_After", "X_RateLimit_Reset"])
def test_an_answer_says_when_to_come_again(sdk: QStash, header: str) -> None:
    with serve(answer(503, **{header: "1"}), OK) as server:
        publish(sdk, server.url, retries=1, retry_delay="3600000")
        deliveries(server, 2)

    with serve(answer(503, **{header: "1"}), OK) as server:
        began = time.monotonic()
        publish(sdk, server.url, retries=1, retry_delay="1")
        deliveries(server, 2)

    assert time.monotonic() - began >= 1


NOW = datetime(2024, 6, 27, 12, 0, tzinfo=UTC)
BACKOFF = 7.0
DAY = 86_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("10", 10),
        ("6m5s", 365),
        ("1h", 3600),
        ("1.5s", 1.5),
        ("2s250ms", 2.25),
        ("3us", 3e-6),
        ("3µs", 3e-6),
        ("5ns", 5e-9),
        ("Sun, 27 Jun 2024 12:16:24 GMT", 984),
        ("Thu, 27 Jun 2024 11:00:00 GMT", 0),
        ("86400", DAY),
        ("24h", DAY),
        ("Fri, 28 Jun 2024 12:00:00 GMT", DAY),
        # Beyond a day, or not to be read: as if nothing had been asked for.
        ("86401", BACKOFF),
        ("24h1s", BACKOFF),
        ("Fri, 28 Jun 2024 12:00:01 GMT", BACKOFF),
        ("9" * 400, BACKOFF),
        ("", BACKOFF),
        ("soon", BACKOFF),
        ("-1", BACKOFF),
        ("1.5", BACKOFF),
        ("1d", BACKOFF),
        ("5 s", BACKOFF),
        ("٣", BACKOFF),
        ("2024-06-27T12:16:24Z", BACKOFF),
        ("Thu, 27 Jun 2024 12:16:24 +0200", BACKOFF),
        ("Thu, 99 Jun 2024 12:16:24 GMT", BACKOFF),
    ],
)
def test_what_an_answer_asks_for_is_read_as_documented(text: str, seconds: float) -> None:
    message = qstash_message.Message("http://127.0.0.1:1", b"", retry_delay="7000")

    waits = qstash_queue.seconds_until_retry(message, {"Retry-After": text}, NOW)

    assert waits == pytest.approx(seconds)


def test_of_several_headers_the_first_that_can_be_read_counts() -> None:
    message = qstash_message.Message("http://127.0.0.1:1", b"", retry_delay="7000")
    headers = {
        "Retry-After": "soon",
        "X-RateLimit-Reset-Tokens": "4",
        "X-RateLimit-Reset-Requests": "3",
    }

    assert qstash_queue.seconds_until_retry(message, headers, NOW) == 3
    assert qstash_queue.seconds_until_retry(message, {}, NOW) == BACKOFF


@pytest.mark.parametrize(
    ("behaviour", "number"),
    [
        pytest.param(answer(489, Upstash_NonRetryable_Error="true"), 1, id="489 with its header"),
        pytest.param(answer(489), 2, id="489 alone"),
        pytest.param(answer(500, Upstash_NonRetryable_Error="true"), 2, id="the header alone"),
        pytest.param(answer(400), 2, id="400"),
        pytest.param(answer(302, Location="/"), 2, id="302"),
        pytest.param(answer(204), 1, id="204"),
    ],
)
def test_only_success_and_489_with_its_header_end_the_retries(
    sdk: QStash, behaviour: Behaviour, number: int
) -> None:
    with serve(behaviour) as server:
        publish(sdk, server.url, retries=1, retry_delay="50")
        deliveries(server, number)

        assert stays_at(server, number, 0.4)


def test_a_delivery_over_its_timeout_is_retried(sdk: QStash) -> None:
    with serve(hang, OK) as server:
        began = time.monotonic()
        publish(sdk, server.url, timeout="1s", retries=1, retry_delay="50")
        deliveries(server, 2)

    assert time.monotonic() - began >= 1


def test_a_destination_that_is_down_is_retried(sdk: QStash) -> None:
    port = free_port()
    with serve(OK) as server:
        publish(
            sdk,
            f"http://127.0.0.1:{port}",
            retries=1,
            retry_delay="50",
            failure_callback=server.url,
        )
        deliveries(server, 1)

    assert json.loads(body_of(server.requests[0]))["retried"] == 1


def test_a_hanging_destination_blocks_nobody(sdk: QStash) -> None:
    with serve(hang) as slow, serve(OK) as quick:
        for _ in range(200):
            publish(sdk, slow.url)
        deliveries(slow, 200)
        publish(sdk, quick.url)
        deliveries(quick, 1)


def test_a_deduplication_id_makes_one_message(sdk: QStash) -> None:
    with serve(OK) as server:
        first = sdk.message.publish_json(url=server.url, body=1, deduplication_id="one-1")
        second = sdk.message.publish_json(url=server.url, body=2, deduplication_id="one-1")
        deliveries(server, 1)
        assert stays_at(server, 1, 0.3)

    assert isinstance(first, PublishResponse)
    assert isinstance(second, PublishResponse)
    assert first.message_id == second.message_id
    assert (first.deduplicated, second.deduplicated) == (False, True)


def test_a_message_given_up_is_reported_to_the_failure_callback(sdk: QStash) -> None:
    with serve(answer(500, b"broken", X_Why="a")) as server, serve(OK) as callback:
        message_id = publish(
            sdk,
            server.url,
            retries=1,
            retry_delay="50",
            headers={"X-Trace": "abc"},
            failure_callback=callback.url + "/failure",
        )
        (headers,) = deliveries(callback, 1)

    report = json.loads(body_of(callback.requests[0]))
    assert claims_of(headers)["sub"] == callback.url + "/failure"
    assert headers["Content-Type"] == "application/json"
    assert headers["Upstash-Message-Id"] != message_id
    assert (report["status"], report["retried"], report["maxRetries"]) == (500, 1, 1)
    assert report["header"]["x-why"] == ["a"]
    assert base64.b64decode(report["body"]) == b"broken"
    assert json.loads(base64.b64decode(report["sourceBody"])) == {"a": 1}
    assert report["sourceHeader"]["x-trace"] == ["abc"]
    assert (report["sourceMessageId"], report["url"]) == (message_id, server.url)
    assert (report["method"], report["callerIP"]) == ("POST", "127.0.0.1")
    assert sdk.dlq.get(report["dlqId"]).message_id == message_id
    for time_in_ms in (report["notBefore"], report["createdAt"]):
        assert isinstance(time_in_ms, str)
        assert abs(int(time_in_ms) / 1000 - time.time()) < 60


def test_the_failure_callback_has_the_retries_of_its_message_and_headers_of_its_own(
    sdk: QStash,
) -> None:
    with serve(FAILED) as server, serve(FAILED) as callback:
        publish(
            sdk,
            server.url,
            retries=0,
            headers={"X-Trace": "of the message"},
            failure_callback=callback.url,
            failure_callback_headers={"Forward-X-Trace": "of the callback"},
        )
        (headers,) = deliveries(callback, 1)
        wait_for(lambda: is_given_up(sdk, callback.url))

    (letter,) = sdk.dlq.list(filter={"url": callback.url}).messages
    assert headers["X-Trace"] == "of the callback"
    assert letter.max_retries == 0


def test_a_delivered_message_calls_no_failure_callback(sdk: QStash) -> None:
    with serve(OK) as server, serve(OK) as callback:
        publish(sdk, server.url, failure_callback=callback.url)
        deliveries(server, 1)

        assert stays_at(callback, 0, 0.3)


def test_a_message_can_be_looked_at(sdk: QStash) -> None:
    with serve(OK) as server:
        message_id = publish(sdk, server.url, delay="60s", retries=2, label="mine")
        message = sdk.message.get(message_id)
        sdk.message.cancel(message_id)

    assert (message.message_id, message.url, message.label) == (message_id, server.url, "mine")
    assert (message.max_retries, message.method, message.body) == (2, "POST", '{"a": 1}')
    assert message.not_before - message.created_at == 60_000


def test_a_delivered_message_stays_readable_for_a_while(sdk: QStash) -> None:
    with serve(OK) as server:
        message_id = publish(sdk, server.url)
        deliveries(server, 1)

    assert sdk.message.get(message_id).url == server.url


def test_a_cancelled_message_is_not_delivered_whatever_it_waits_for(sdk: QStash) -> None:
    with serve(FAILED) as server:
        retried = publish(sdk, server.url, retry_delay="3000")
        delayed = publish(sdk, server.url, delay="3s")
        deliveries(server, 1)

        sdk.message.cancel(retried)
        sdk.message.cancel(delayed)

        assert stays_at(server, 1, 3.5)


def test_unknown_and_ended_messages_are_not_found(sdk: QStash) -> None:
    with serve(FAILED) as server:
        message_id = publish(sdk, server.url, retries=0)
        wait_for(lambda: is_given_up(sdk, server.url))

    with pytest.raises(QStashError, match="404"):
        sdk.message.cancel(message_id)
    for act in (sdk.message.get, sdk.message.cancel):
        with pytest.raises(QStashError, match="404"):
            act("msg_unknown")


def test_a_wrong_token_is_401(server_url: str) -> None:
    sdk = QStash("wrong", base_url=server_url, retry=False)
    acts: list[Callable[[], object]] = [
        lambda: publish(sdk, "http://127.0.0.1:1"),
        lambda: sdk.message.get("msg_1"),
        lambda: sdk.message.cancel("msg_1"),
    ]

    for act in acts:
        with pytest.raises(QStashError, match="401"):
            act()
    sdk.http._client.close()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("no-scheme", {}),
        ("ftp://host/x", {}),
        ("http://", {}),
        ("http://127.0.0.1:1", {"delay": "soon"}),
        ("http://127.0.0.1:1", {"timeout": "1"}),
        ("http://127.0.0.1:1", {"retries": -1}),
        ("http://127.0.0.1:1", {"retry_delay": "unknown_name + 1"}),
        ("http://127.0.0.1:1", {"retry_delay": "__import__('os')"}),
        ("http://127.0.0.1:1", {"failure_callback": "nowhere"}),
        ("http://127.0.0.1:1", {"method": "BREW"}),
        ("http://127.0.0.1:1", {"deduplication_id": "a:b"}),
        ("http://127.0.0.1:1", {"deduplication_id": "a b"}),
        ("http://127.0.0.1:1", {"flow_control": {"key": "a"}}),
        ("http://127.0.0.1:1", {"flow_control": {"key": "a", "parallelism": 0}}),
        ("http://127.0.0.1:1", {"flow_control": {"key": "a", "parallelism": "x"}}),
    ],
)
def test_what_can_not_be_meant_is_400(sdk: QStash, url: str, options: dict[str, object]) -> None:
    with pytest.raises(QStashError, match="400"):
        publish(sdk, url, **options)


@pytest.mark.parametrize(("retried", "seconds"), [(0, 12), (1, 148), (2, 1808), (9, 86400)])
def test_the_default_delays_are_the_documented_ones(retried: int, seconds: int) -> None:
    message = qstash_message.Message("http://127.0.0.1:1", b"", retried=retried)

    assert round(message.backoff()) == seconds


def test_it_says_what_it_is() -> None:
    assert qstash_server.__doc__ is not None
    assert "development tool" in qstash_server.__doc__.splitlines()[0]
