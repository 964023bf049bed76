"""What is published, with the real SDK; the faults are in test_qstash_faults.py."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from opentelemetry import trace
from qstash import QStash

from common.failures import Failure
from common.qstash import QStashRefused, Queue
from common.record import AnalysisRecord
from common.settings import DEVELOPMENT_TOKEN, ServiceSettings
from common.states import Status
from common.store import Store
from common.submission import Submissions
from tests.conftest import make_settings
from tests.fakes import ADA, DELAY, ID, NOW, pending
from tests.http_server import Behaviour, answer, reset, serve
from tests.processes import start_stand_in, wait_for

ACCEPTED = answer(200, {"messageId": "msg_1"})
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def settings_for(url: str, **changes: object) -> ServiceSettings:
    return make_settings(qstash_url=url, **changes)


@pytest.fixture(scope="module")
def stand_in() -> Iterator[str]:
    """The URL of QStash's."""
    with start_stand_in("qstash_server") as url:
        yield url


def headers_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def test_a_message_says_when_where_and_how_often_and_nothing_personal() -> None:
    record = pending()
    pending_id = f"{ID}-1-{record.nonce}"
    with serve(ACCEPTED) as server:
        message_id = Queue(settings_for(server.url)).publish(record, now=NOW)

    request = server.requests[0]
    headers = headers_of(request)
    assert message_id == "msg_1"
    assert request.startswith(b"POST /v2/publish/https://service.example/webhook HTTP/1.1")
    assert json.loads(request.partition(b"\r\n\r\n")[2]) == {"requestId": ID, "round": 1}
    assert headers["upstash-delay"] == "60s"
    assert headers["upstash-retries"] == "3"
    assert headers["upstash-retry-delay"] == "45000 * (1 + retried)"
    assert headers["upstash-timeout"] == "35s"
    assert headers["upstash-deduplication-id"] == pending_id
    assert headers["upstash-failure-callback"] == "https://service.example/webhook/failure"
    assert "upstash-flow-control-key" not in headers
    assert b"traceparent" not in request.lower()
    assert b"Ada" not in request


# Of https://upstash.com/docs/qstash/openapi.yaml, those that we send:
DOCUMENTED = {
    "content-type": "application/json",
    "upstash-delay": r"(\d+[smhd])+",
    "upstash-retries": r"\d+",
    "upstash-retry-delay": r"\d+ \* \(1 \+ retried\)",
    "upstash-timeout": r"(\d+[smh])+",
    "upstash-deduplication-id": r"[^:\s]+",
    "upstash-failure-callback": r"https?://\S+",
    "upstash-flow-control-key": r"\S+",
    "upstash-flow-control-value": r"parallelism=\d+",
    "upstash-label": r"[^,\s]+",
    "upstash-forward-traceparent": TRACEPARENT,
    "upstash-failure-callback-forward-traceparent": TRACEPARENT,
}


@contextmanager
def traced() -> Iterator[None]:
    """As while tracing is on."""
    _, trace_id, span_id, _ = TRACEPARENT.split("-")
    sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    context = trace.SpanContext(int(trace_id, 16), int(span_id, 16), False, sampled)
    with trace.use_span(trace.NonRecordingSpan(context)):
        yield


def test_each_header_is_documented_and_one_that_the_stand_in_takes(stand_in: str) -> None:
    record = pending()
    with serve(ACCEPTED) as server, traced():
        for url in (server.url, stand_in):
            queue = Queue(settings_for(url, qstash_parallelism=7))
            queue.cancel(queue.publish(record, now=NOW))
            queue.close()

    sent = headers_of(server.requests[0])
    ours = {name: sent[name] for name in sent if name.startswith(("upstash-", "content-type"))}
    assert sorted(ours) == sorted(DOCUMENTED)
    for name, value in ours.items():
        assert re.fullmatch(DOCUMENTED[name], value, re.ASCII), name


def test_a_message_published_late_waits_only_for_the_rest() -> None:
    with serve(ACCEPTED) as server:
        queue = Queue(settings_for(server.url))
        queue.publish(pending(), now=NOW + timedelta(seconds=45))
        queue.publish(pending(), now=NOW + 2 * DELAY)

    assert [headers_of(request)["upstash-delay"] for request in server.requests] == ["15s", "0s"]


def test_parallelism_is_asked_for_when_set() -> None:
    with serve(ACCEPTED) as server:
        Queue(settings_for(server.url, qstash_parallelism=7)).publish(pending(), now=NOW)

    assert headers_of(server.requests[0])["upstash-flow-control-value"] == "parallelism=7"


def test_no_error_repeats_the_token() -> None:
    settings = settings_for("http://name.invalid", qstash_token="eyJsecret")

    with pytest.raises(QStashRefused) as caught:
        Queue(settings).publish(pending(), now=NOW)

    assert "eyJsecret" not in str(caught.value)


def test_a_record_made_again_under_its_id_is_another_message(stand_in: str) -> None:
    queue = Queue(settings_for(stand_in, qstash_webhook_url="http://127.0.0.1:1/webhook"))
    made = {"owner_hash": None, "now": NOW, "delay": DELAY, "deadline": DELAY}
    record, again = (AnalysisRecord.new(ID, ADA, **made) for _ in range(2))  # type: ignore[arg-type]

    first = queue.publish(record, now=NOW, is_first=True)

    assert queue.publish(record, now=NOW) == first
    assert queue.publish(again, now=NOW, is_first=True) != first
    with pytest.raises(QStashRefused, match="deduplicated"):
        queue.publish(record, now=NOW, is_first=True)
    for message_id in (first, queue.publish(again, now=NOW)):
        queue.cancel(message_id)


def test_a_round_whose_first_message_is_taken_for_another_was_not_queued(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    deduplicated = answer(202, {"messageId": "msg_old", "deduplicated": True})
    with serve(deduplicated, ACCEPTED) as server:
        settings = settings_for(server.url)
        submissions = Submissions(store, Queue(settings), settings)

        first = submissions.submit(ADA, request_id=ID)
        second = submissions.submit(ADA, request_id=ID)

    assert (first.failure, first.message_id) == (Failure.NOT_QUEUED, None)
    assert (second.status, second.message_id) == (Status.PENDING, "msg_1")
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    assert [(line["request_id"], line["cause"]) for line in lines if line["level"] == "error"] == [
        (ID, "deduplicated: taken for msg_old")
    ]


@pytest.mark.parametrize("behaviour", [answer(202), answer(404, {"error": "none"}), reset])
def test_cancelling_never_fails(behaviour: Behaviour) -> None:
    with serve(behaviour) as server:
        Queue(settings_for(server.url)).cancel("msg_1")

    assert server.requests[0].startswith(b"DELETE /v2/messages/msg_1 ")


def test_our_dead_letters_are_found_page_after_page_and_nobody_elses(stand_in: str) -> None:
    final = answer(489, Upstash_NonRetryable_Error="true")
    with serve(final) as server:
        ours = f"{server.url}/webhook"
        queue = Queue(settings_for(stand_in, qstash_webhook_url=ours))
        sdk = QStash(DEVELOPMENT_TOKEN, base_url=stand_in, retry=False)
        for number in range(101):
            sdk.message.publish(url=ours, label=f"n{number}")
        sdk.message.publish(url=server.url, label="somebody else's")
        sdk.http._client.close()
        wait_for(lambda: len(server.requests) == 102 and len(list(queue.dead_letters())) == 101)
        letters = list(queue.dead_letters())
        of_one = [letter.request_id for letter in queue.dead_letters("n7")]
        queue.close()

    assert {letter.request_id for letter in letters} == {f"n{number}" for number in range(101)}
    assert {letter.response_status for letter in letters} == {489}
    assert of_one == ["n7"]
