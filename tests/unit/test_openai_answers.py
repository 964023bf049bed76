"""Every legal answer is read as OpenAI's SDK reads it, in one call; and what any other comes to."""

import json
import random
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from common.failures import Failure
from tests.fakes import ANALYSIS, TOKENS
from tests.openai_answers import Readers, is_stricter, legal_answer, message, open_readers
from webhook_service.answer import AnalysisFailed, Answer, read_answer, refused

GOOD = ANALYSIS.model_dump_json()
WORDS = "what the model wrote"
USAGE = {"input_tokens": 300, "output_tokens": 200, "total_tokens": 500}
REASONING: dict[str, Any] = {"type": "reasoning", "id": "rs_1", "summary": []}
PARTS = message(GOOD)["content"]
LEGAL = 100  # answers that are made up; `make conformance` reads thousands


@pytest.fixture(scope="module")
def readers() -> Iterator[Readers]:
    with open_readers() as readers:
        yield readers


def whole(*items: object, **changes: object) -> dict[str, Any]:
    """An answer with these items, as OpenAI sends it."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "gpt-test",
        "output": list(items),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": USAGE,
    } | changes


def stopped(reason: object, *items: object) -> dict[str, Any]:
    return whole(*items, status="incomplete", incomplete_details={"reason": reason})


def cut_off(*items: object) -> dict[str, Any]:
    return stopped("max_output_tokens", *items)


def failure_of(body: object) -> AnalysisFailed:
    with pytest.raises(AnalysisFailed) as caught:
        read_answer(json.dumps(body).encode(), "application/json")
    return caught.value


def test_every_legal_answer_is_read_as_the_sdk_reads_it(readers: Readers) -> None:
    read = 0
    for seed in range(LEGAL):
        body = legal_answer(random.Random(seed))
        theirs, ours = readers.sdk(body), readers.ours(body)
        if is_stricter(body):
            assert isinstance(ours, AnalysisFailed), body
        elif theirs:
            assert isinstance(ours, Answer), (body, ours)
            assert ours.analysis == theirs, body
            read += 1
    assert read > LEGAL / 2, "the SDK must read most of them, or nothing is compared"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            whole(message("Let me see.", phase="commentary"), message(GOOD, phase="final_answer")),
            id="commentary before it",
        ),
        pytest.param(
            whole(message('{"summary": 1}', phase="commentary"), message(GOOD)),
            id="commentary that is JSON",
        ),
        pytest.param(whole(message(GOOD), message(GOOD)), id="twice"),
        pytest.param(whole(message(GOOD, GOOD)), id="twice in one message"),
        pytest.param(whole(message(GOOD, phase=None)), id="phase null"),
        pytest.param(
            whole(REASONING | {"content": None}, message(GOOD)), id="reasoning without content"
        ),
        pytest.param(
            whole({"type": "of_tomorrow", "content": "text"}, message(GOOD)), id="unknown item"
        ),
        pytest.param(
            whole({"type": "message", "content": [{"type": "output_text", "text": GOOD}]}),
            id="only what is needed",
        ),
        pytest.param({"output": [message(GOOD)]}, id="output alone"),
        pytest.param(whole(message(GOOD), status=None), id="status null"),
        pytest.param(whole(message(GOOD), status="done"), id="unknown status"),
        pytest.param(whole(message(GOOD), model=None), id="model null"),
        pytest.param(whole(message(GOOD), error="none"), id="error as text"),
        pytest.param(whole(message(GOOD), usage=7), id="usage as number"),
        pytest.param(
            whole({"type": "message", "content": [{"type": "of_tomorrow"}, *PARTS]}),
            id="unknown part",
        ),
        pytest.param(cut_off(message(GOOD)), id="whole, and cut off behind it"),
    ],
)
def test_a_kind_of_answer_that_was_met_is_read(readers: Readers, body: dict[str, Any]) -> None:
    ours = readers.ours(body)

    assert isinstance(ours, Answer)
    assert ours.analysis == ANALYSIS == readers.sdk(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(whole(message("Here it is:"), message(GOOD)), id="first a text without JSON"),
        pytest.param(whole("text", None, message(GOOD)), id="items that are no objects"),
        pytest.param(whole(message(f"```json\n{GOOD}\n```")), id="code fence"),
        pytest.param(whole(message(f"Here is the analysis:\n{GOOD}\nAnything else?")), id="prose"),
        pytest.param(whole(message(f"\n```\n{GOOD}```\n")), id="plain code fence"),
        pytest.param(whole(message(f"<think>Hm. {{}}</think>\n\n{GOOD}")), id="thought aloud"),
        pytest.param(
            whole(message(f"<think>Hm.</think>```json\n{GOOD}\n```")), id="thought, and a fence"
        ),
    ],
)
def test_what_the_sdk_does_not_read_can_be_an_answer(readers: Readers, body: object) -> None:
    ours = readers.ours(body)

    assert isinstance(ours, Answer)
    assert ours.analysis == ANALYSIS
    assert readers.sdk(body) is None


def test_an_analysis_may_speak_of_fences_and_thoughts() -> None:
    spoken = ANALYSIS.model_copy(update={"summary": "You write </think> and ```json."})

    answer = read_answer(json.dumps(whole(message(spoken.model_dump_json()))).encode(), "")

    assert answer.analysis == spoken


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_json_is_read_in_each_of_its_encodings(readers: Readers, encoding: str) -> None:
    body = json.dumps(whole(message(GOOD)), ensure_ascii=False).encode(encoding)
    ours = readers.ours(body)

    assert isinstance(ours, Answer)
    assert ours.analysis == ANALYSIS == readers.sdk(body)


@pytest.mark.parametrize(
    ("body", "failure", "cause"),
    [
        ("text", Failure.UNREADABLE_ANSWER, "JSON, but no object"),
        ([], Failure.UNREADABLE_ANSWER, "JSON, but no object"),
        ({}, Failure.UNREADABLE_ANSWER, "no final text in 0 items"),
        (whole(REASONING), Failure.UNREADABLE_ANSWER, "no final text in 1 items"),
        (
            whole(message(GOOD, phase="commentary")),
            Failure.UNREADABLE_ANSWER,
            "no final text in 1 items",
        ),
        (
            whole(REASONING, message(WORDS)),
            Failure.UNREADABLE_ANSWER,
            "output[1].content[0]: json_invalid",
        ),
        (
            whole(message(json.dumps(ANALYSIS.model_dump() | {"themes": [WORDS, 7]}))),
            Failure.UNREADABLE_ANSWER,
            "output[0].content[0]: themes.1: string_type",
        ),
        (
            whole(message(json.dumps(ANALYSIS.model_dump() | {WORDS: WORDS}))),
            Failure.UNREADABLE_ANSWER,
            "output[0].content[0]: ?: extra_forbidden",
        ),
        (whole(message(GOOD), status="queued"), Failure.MODEL_ERROR, "unfinished: queued"),
        (
            whole(message(GOOD), status="in_progress"),
            Failure.MODEL_ERROR,
            "unfinished: in_progress",
        ),
        (whole(message(GOOD), status="cancelled"), Failure.MODEL_ERROR, "unfinished: cancelled"),
        (whole(status="failed"), Failure.MODEL_ERROR, "failed: (no known code)"),
        (
            whole(status="failed", error={"code": "of_tomorrow", "message": WORDS}),
            Failure.MODEL_ERROR,
            "failed: of_tomorrow",
        ),
        (
            whole(status="failed", error={"code": "rate_limit_exceeded"}),
            Failure.RATE_LIMITED,
            "failed: rate_limit_exceeded",
        ),
        (
            whole(status="failed", error={"code": "bio_policy"}),
            Failure.CONTENT_FILTERED,
            "failed: bio_policy",
        ),
        (
            stopped("content_filter", message(GOOD)),
            Failure.CONTENT_FILTERED,
            "incomplete: content_filter",
        ),
        (
            stopped(WORDS, message(GOOD)),
            Failure.MODEL_ERROR,
            "incomplete: (no known code)",
        ),
        (cut_off(message(GOOD[:-9])), Failure.ANSWER_TRUNCATED, "incomplete: max_output_tokens"),
        (cut_off(REASONING), Failure.ONLY_REASONING, "incomplete: max_output_tokens"),
        (
            stopped("length", message(GOOD[:-9])),
            Failure.ANSWER_TRUNCATED,
            "incomplete: max_output_tokens",
        ),
        (
            stopped("max_tokens", message("")),
            Failure.ONLY_REASONING,
            "incomplete: max_output_tokens",
        ),
        (stopped([], message(GOOD)), Failure.MODEL_ERROR, "incomplete: (no known code)"),
        (cut_off(REASONING, message("")), Failure.ONLY_REASONING, "incomplete: max_output_tokens"),
        (
            cut_off(REASONING, message("Hm.", phase="commentary")),
            Failure.ONLY_REASONING,
            "incomplete: max_output_tokens",
        ),
        (
            whole(message() | {"content": [{"type": "refusal", "refusal": WORDS}]}),
            Failure.REFUSED_BY_MODEL,
            "refusal",
        ),
    ],
)
def test_why_there_is_no_analysis_is_told_without_a_word_of_the_models(
    body: object, failure: Failure, cause: str
) -> None:
    found = failure_of(body)

    assert (found.failure, found.cause) == (failure, cause)
    assert WORDS not in str(found)
    assert found.__cause__ is None


@pytest.mark.parametrize(
    ("body", "content_type", "cause"),
    [
        (b"", "", "not JSON, but 0 bytes of no known type"),
        (b"<html>Sign in", "text/html; charset=utf-8", "not JSON, but 13 bytes of text/html"),
        (b"{}", "text/html", "no final text in 0 items"),
        (b"nothing", WORDS, "not JSON, but 7 bytes of no known type"),
        (b"[" * 100_000, "application/json", "not JSON, but 100000 bytes of application/json"),
        (GOOD[:-1].encode(), "application/json", "not JSON, but"),
        ("{“é”}".encode("latin-1", "replace"), "text/plain", "not JSON, but 5 bytes of text/plain"),
    ],
)
def test_what_is_no_answer_at_all_is_named(body: bytes, content_type: str, cause: str) -> None:
    with pytest.raises(AnalysisFailed) as caught:
        read_answer(body, content_type)

    assert caught.value.failure is Failure.UNREADABLE_ANSWER
    assert caught.value.cause.startswith(cause)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(whole(message(WORDS)), id="unreadable"),
        pytest.param(whole(), id="empty"),
        pytest.param(whole(output=None), id="no output"),
        pytest.param(whole(status="failed"), id="failed"),
        pytest.param(whole(status="cancelled"), id="cancelled"),
        pytest.param(whole(status=7, output=[7], error=7, model=7), id="nothing as it should be"),
        pytest.param(whole(status="incomplete"), id="incomplete"),
        pytest.param(cut_off(REASONING), id="only reasoning"),
        pytest.param(cut_off(message(GOOD[:-9])), id="truncated"),
        pytest.param(
            whole(message() | {"content": [{"type": "refusal", "refusal": WORDS}]}), id="refused"
        ),
    ],
)
def test_tokens_are_counted_whatever_else_is_wrong(body: object) -> None:
    assert failure_of(body).tokens == TOKENS


def test_a_wrong_value_anywhere_in_an_answer_is_read_as_the_sdk_reads_it_or_named(
    readers: Readers,
) -> None:
    typical = whole(
        REASONING | {"content": [{"type": "reasoning_text", "text": "Hm."}]},
        message(GOOD, phase="final_answer"),
    )
    wrong: list[object] = [None, 7, 1e300, True, WORDS, [], {}, [WORDS], {WORDS: WORDS}, [[]]]
    read = 0
    for body in _changed(typical, wrong):
        ours = readers.ours(body)
        theirs = readers.sdk(body) if isinstance(ours, AnalysisFailed) else None
        assert theirs is None or is_stricter(body), (body, ours)
        if isinstance(ours, AnalysisFailed):
            assert ours.failure is Failure.UNREADABLE_ANSWER
            assert WORDS not in str(ours)
        else:
            assert ours.analysis == ANALYSIS
            read += 1
    assert read > 200


def _changed(value: Any, wrong: list[object]) -> Iterator[Any]:
    """The value with each of its parts, at every level, left out or replaced in turn."""
    yield from wrong
    if not isinstance(value, dict | list):
        return
    for key in value if isinstance(value, dict) else range(len(value)):
        shorter = deepcopy(value)
        del shorter[key]
        yield shorter
        for part in _changed(value[key], wrong):
            changed = deepcopy(value)
            changed[key] = part
            yield changed


def http_error(status: int, code: object, kind: object = None, **more: object) -> AnalysisFailed:
    return refused(status, {"message": WORDS, "type": kind, "code": code, **more})


@pytest.mark.parametrize(
    ("status", "code", "kind", "failure"),
    [
        (401, "invalid_api_key", "invalid_request_error", Failure.KEY_REFUSED),
        (401, None, None, Failure.KEY_REFUSED),
        (400, "400", "no_db_connection", Failure.KEY_REFUSED),  # LiteLLM's, for a wrong key
        (403, "unsupported_country_region_territory", None, Failure.KEY_REFUSED),
        (403, "missing_scope", None, Failure.KEY_REFUSED),
        (403, "403", "permission_error", Failure.REQUEST_BLOCKED),  # a gateway's, for any 403
        (403, None, None, Failure.REQUEST_BLOCKED),
        (403, "of_tomorrow", "of_tomorrow", Failure.REQUEST_BLOCKED),
        (403, "model_not_found", "invalid_request_error", Failure.MODEL_NOT_FOUND),
        (402, None, None, Failure.QUOTA_EXCEEDED),
        (400, "billing_hard_limit_reached", None, Failure.QUOTA_EXCEEDED),
        (429, "insufficient_quota", None, Failure.QUOTA_EXCEEDED),
        (429, None, "insufficient_quota", Failure.QUOTA_EXCEEDED),
        (429, "billing_not_active", None, Failure.QUOTA_EXCEEDED),
        (400, "400", "budget_exceeded", Failure.QUOTA_EXCEEDED),
        (429, "rate_limit_exceeded", "tokens", Failure.RATE_LIMITED),
        (429, None, None, Failure.RATE_LIMITED),
        (498, None, None, Failure.RATE_LIMITED),
        (498, "capacity_exceeded", None, Failure.RATE_LIMITED),
        (400, "capacity_exceeded", None, Failure.RATE_LIMITED),
        (503, None, None, Failure.RATE_LIMITED),
        (529, None, "overloaded_error", Failure.RATE_LIMITED),
        (408, None, None, Failure.MODEL_TIMEOUT),
        (504, None, None, Failure.MODEL_TIMEOUT),
        (409, None, None, Failure.MODEL_ERROR),
        (500, None, None, Failure.MODEL_ERROR),
        (502, None, None, Failure.MODEL_ERROR),
        (404, "DeploymentNotFound", None, Failure.MODEL_NOT_FOUND),
        (400, "content_filter", None, Failure.CONTENT_FILTERED),
        (400, "invalid_prompt", None, Failure.CONTENT_FILTERED),
        (400, "unsupported_parameter", None, Failure.REQUEST_REFUSED),
        (422, None, None, Failure.REQUEST_REFUSED),
        (418, 7, [], Failure.REQUEST_REFUSED),
    ],
)
def test_an_http_error_is_the_failure_that_its_code_and_status_say(
    status: int, code: object, kind: object, failure: Failure
) -> None:
    assert http_error(status, code, kind).failure is failure


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"code": "unsupported_value", "param": "reasoning.effort"}, "at reasoning.effort"),
        ({"code": "invalid_json_schema", "param": "text.format.schema"}, "at text.format.schema"),
        ({"code": 400}, "HTTP 400 400"),
        ({"code": "DeploymentNotFound"}, "HTTP 400 DeploymentNotFound"),
        ({"code": WORDS, "param": WORDS}, "HTTP 400 (no known code)"),
        ({"code": None, "param": f"model.{WORDS}"}, "HTTP 400 (no known code)"),
    ],
)
def test_an_http_error_names_its_code_and_parameter_and_nothing_else(
    more: dict[str, object], cause: str
) -> None:
    found = refused(400, {"message": WORDS, **more})

    assert found.cause.endswith(cause)
    assert WORDS not in str(found)


@pytest.mark.parametrize("body", ["<html>blocked", None, [{"error": {"code": 403}}], 7])
def test_an_http_error_without_a_body_of_its_own_tells_what_came(body: object) -> None:
    assert refused(403, body, "text/html").cause == "HTTP 403 (no known code) in text/html"
