"""Every fault of OpenAI, from a signed delivery to what QStash, the record and the person get."""

from contextlib import nullcontext
from typing import NamedTuple

import pytest
import redis

from common.failures import Failure, Kind
from common.record import AnalysisRecord
from common.states import Status
from tests.conftest import make_settings, make_store
from tests.fakes import ADA, ID, FakeQueue, pending
from tests.http_server import Behaviour, HttpServer, answer, hang, reset, serve, trickle
from tests.log_lines import logged
from tests.model_replies import GOOD, WORDS, error, refusal, response
from tests.processes import wait_for
from tests.unit.test_routes import NO_DELAY, deliver
from webhook_service import create_app

CALL_SECONDS = 2.0  # where the call is to reach its limit
PATIENT_SECONDS = 10.0  # where a busy machine must not make it reach it
KEY = f"analysis:{{{ID}}}"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
JSON = "application/json"
BY_CODE = {failure.value: failure for failure in Failure}


class Then(NamedTuple):
    """What a fault leads to: the record's status, what QStash is told, and who acts next."""

    status: Status
    told: int
    acts: str


AGAIN = Then(Status.PENDING, 503, acts="QStash delivers again")
FIX = Then(Status.FAILED, 489, acts="the operator repairs it")
CHANGE = Then(Status.FAILED, 200, acts="the person changes the text")


def incomplete(reason: str, text: str | None = GOOD) -> Behaviour:
    details = {"reason": reason}
    return answer(200, response(text, status="incomplete", incomplete_details=details))


def failed(code: str) -> Behaviour:
    trouble = {"code": code, "message": WORDS}
    return answer(200, response(None, status="failed", error=trouble))


# A fault, the failure's code, what follows, and the seconds until QStash's next delivery.
# A fault is what the server does, or an address where there is none.
FAULTS: list[tuple[str, Behaviour | str, str, Then, int]] = [
    ("400", answer(400, error(None)), "request_refused", FIX, 0),
    ("400 content filter", answer(400, error("content_filter")), "content_filtered", CHANGE, 0),
    ("400 invalid prompt", answer(400, error("invalid_prompt")), "content_filtered", CHANGE, 0),
    ("401", answer(401, error("invalid_api_key")), "key_refused", FIX, 0),
    ("402", answer(402, error(None)), "quota_exceeded", FIX, 0),
    ("403", answer(403, error("missing_scope")), "key_refused", FIX, 0),
    ("403 of a filter", answer(403, b"<html>No</html>"), "request_blocked", CHANGE, 0),
    ("404", answer(404, error("model_not_found")), "model_not_found", FIX, 0),
    ("408", answer(408, error(None)), "model_timeout", AGAIN, 10),
    ("409", answer(409, error(None)), "model_error", AGAIN, 10),
    ("422", answer(422, error(None)), "request_refused", FIX, 0),
    ("429", answer(429, error("rate_limit_exceeded")), "rate_limited", AGAIN, 10),
    ("429 for 5 s", answer(429, error(None), Retry_After="5"), "rate_limited", AGAIN, 10),
    ("429 for 30 s", answer(429, error(None), Retry_After="30"), "rate_limited", AGAIN, 30),
    ("429 for a day", answer(429, error(None), Retry_After="86400"), "rate_limited", AGAIN, 90),
    ("quota", answer(429, error("insufficient_quota")), "quota_exceeded", FIX, 0),
    ("quota by type", answer(429, error(None, "insufficient_quota")), "quota_exceeded", FIX, 0),
    ("billing", answer(429, error("billing_not_active")), "quota_exceeded", FIX, 0),
    ("billing 400", answer(400, error("billing_hard_limit_reached")), "quota_exceeded", FIX, 0),
    ("no capacity", answer(498, error("capacity_exceeded")), "rate_limited", AGAIN, 10),
    ("500", answer(500, error(None)), "model_error", AGAIN, 10),
    ("503 HTML", answer(503, b"<html>busy</html>"), "rate_limited", AGAIN, 10),
    ("503 for 20 s", answer(503, b"", Retry_After="20"), "rate_limited", AGAIN, 20),
    ("504", answer(504, b"<html>slow</html>"), "model_timeout", AGAIN, 10),
    ("reset", reset, "model_unavailable", AGAIN, 10),
    ("reset in mid-answer", lambda c: c.sendall(HEAD[:30]), "model_unavailable", AGAIN, 10),
    ("not HTTP", lambda c: c.sendall(b"\x00\xff\r\n\r\n"), "model_unavailable", AGAIN, 10),
    ("refused", "http://127.0.0.1:1", "model_unavailable", AGAIN, 10),
    # A resolver that is away itself takes longer than the call may.
    ("no host", "http://name.invalid", "model_unavailable or model_timeout", AGAIN, 10),
    ("stall", hang, "model_timeout", AGAIN, 10),
    ("slow headers", trickle(HEAD + b"X: "), "model_timeout", AGAIN, 10),
    (
        "a byte per 0.4 s",
        trickle(HEAD + b"Content-Length: 1000000\r\n\r\n", b" ", pause_seconds=0.4),
        "model_timeout",
        AGAIN,
        10,
    ),
    (
        "body without end",
        trickle(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
        "model_timeout",
        AGAIN,
        10,
    ),
    ("empty", answer(200, b""), "unreadable_answer", AGAIN, 10),
    ("HTML", answer(200, b"<html>", Content_Type="text/html"), "unreadable_answer", AGAIN, 10),
    ("half", answer(200, b'{"output": [', Content_Type=JSON), "unreadable_answer", AGAIN, 10),
    ("empty object", answer(200, {}), "unreadable_answer", AGAIN, 10),
    ("a list", answer(200, []), "unreadable_answer", AGAIN, 10),
    ("output null", answer(200, {"output": None}), "unreadable_answer", AGAIN, 10),
    ("no text", answer(200, response(None)), "unreadable_answer", AGAIN, 10),
    ("not JSON", answer(200, response(WORDS)), "unreadable_answer", AGAIN, 10),
    ("schema", answer(200, response(f'{{"tone": "{WORDS}"}}')), "unreadable_answer", AGAIN, 10),
    ("JSON cut off", answer(200, response(GOOD[:-5])), "unreadable_answer", AGAIN, 10),
    # A busy machine needs longer to read it than the call may take.
    (
        "10 MB",
        answer(200, response("x" * 10_000_000)),
        "unreadable_answer or model_timeout",
        AGAIN,
        10,
    ),
    ("only queued", answer(200, response(GOOD, status="queued")), "model_error", AGAIN, 10),
    ("cancelled", answer(200, response(GOOD, status="cancelled")), "model_error", AGAIN, 10),
    ("refusal", answer(200, refusal()), "refused_by_model", CHANGE, 0),
    ("incomplete", incomplete("max_output_tokens", GOOD[:-5]), "answer_truncated", AGAIN, 10),
    ("only reasoning", incomplete("max_output_tokens", None), "only_reasoning", FIX, 0),
    ("content filter", incomplete("content_filter"), "content_filtered", CHANGE, 0),
    ("other reason", incomplete("unheard_of"), "model_error", AGAIN, 10),
    ("no reason", answer(200, response(None, status="incomplete")), "model_error", AGAIN, 10),
    ("failed", failed("server_error"), "model_error", AGAIN, 10),
    ("failed by unknown", failed("unheard_of"), "model_error", AGAIN, 10),
    ("failed by rate", failed("rate_limit_exceeded"), "rate_limited", AGAIN, 10),
]


@pytest.mark.parametrize(
    ("fault", "codes", "then", "seconds"),
    [pytest.param(*row, id=name) for name, *row in FAULTS],
)
def test_a_fault_of_openai_ends_in_a_sentence_or_another_delivery(
    real_redis: redis.Redis,
    queue: FakeQueue,
    caplog: pytest.LogCaptureFixture,
    fault: Behaviour | str,
    codes: str,
    then: Then,
    seconds: int,
) -> None:
    store = make_store(real_redis)
    store.create(pending(store.now(), NO_DELAY))
    limit = CALL_SECONDS if "model_timeout" in codes else PATIENT_SECONDS
    with nullcontext(HttpServer(fault)) if isinstance(fault, str) else serve(fault) as server:
        settings = make_settings(openai_base_url=f"{server.url}/v1", openai_timeout_seconds=limit)
        client = create_app(settings, store=store, queue=queue, open_api=True).test_client()

        told = deliver(client)

        assert len(server.requests) == (
            0 if isinstance(fault, str) else 1
        )  # a second would be a second bill
        assert_nothing_alive(server)

    assert thread_seconds(caplog) < limit + 5  # to trickle on would take for ever
    raw = str(real_redis.get(KEY))
    record = AnalysisRecord.model_validate_json(raw)
    shown = client.get(f"/analyze/{ID}")
    code = record.failure or record.last_failure
    assert code in codes.split(" or ")
    assert (record.status, told.status_code) == (then.status, then.told)
    assert record.input == ADA  # for the next attempt, or the person's "Try again"
    if then is AGAIN:
        assert told.headers["Retry-After"] == str(seconds)
        assert shown.get_json()["nextAttemptAt"]
        assert "failure" not in shown.get_json()
    else:
        failure = BY_CODE[codes]
        assert shown.get_json()["failure"] == {
            "code": code,
            "message": failure.sentence,
            "nextStep": failure.next_step,
        }
    assert (told.headers.get("Upstash-NonRetryable-Error") == "true") == (then is FIX)
    for text in (raw, told.text, shown.text):
        assert WORDS not in text
        assert "Error" not in text
    assert WORDS not in caplog.text


def thread_seconds(caplog: pytest.LogCaptureFixture) -> float:
    """How long the one call held its thread, as the log tells."""
    (failed,) = logged(caplog.text, "attempt failed")
    return float(failed["seconds"])


def assert_nothing_alive(server: HttpServer) -> None:
    """The call leaves no connection behind: those that hang or trickle would stay for ever."""
    wait_for(lambda: not server.open_connections, within_seconds=20)


def test_the_sentences_send_the_right_one_to_act() -> None:
    kinds = {AGAIN: Kind.TRANSIENT, FIX: Kind.OPERATOR, CHANGE: Kind.INPUT}
    for _, _, codes, then, _ in FAULTS:
        for failure in (BY_CODE[code] for code in codes.split(" or ")):
            assert failure.kind is kinds[then]
            assert failure.sentence.endswith(".")
            assert ("ours to fix" in failure.next_step) == (then is FIX)
            assert ("your text and send it again" in failure.next_step) >= (then is CHANGE)
