"""What an answer of the model's server comes to: our analysis, or why there is none. Pure.

Only what is needed is read, as the SDK's own `parse` reads it; everything else may be of any type,
null or absent, as servers differ in it. Where we are stricter, or less strict, than the SDK:

stricter: an answer that its server calls failed, cancelled, queued, in progress or filtered is
          none, whatever text came with it
laxer:    of several final texts, the first that fits counts, and what stands around its JSON (a
          code fence, a sentence, thoughts) is taken off

Source: https://platform.openai.com/docs/api-reference/responses/object
"""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from pydantic import ValidationError

from common.failures import Failure
from common.fields import Tokens
from common.result import Result
from common.strict_schema import names
from common.task import TASK

FAILURE_BY_STATUS = {
    401: Failure.KEY_REFUSED,
    402: Failure.QUOTA_EXCEEDED,
    403: Failure.REQUEST_BLOCKED,
    404: Failure.MODEL_NOT_FOUND,
    408: Failure.MODEL_TIMEOUT,
    409: Failure.MODEL_ERROR,
    425: Failure.MODEL_ERROR,
    429: Failure.RATE_LIMITED,
    498: Failure.RATE_LIMITED,  # Groq: no capacity
    503: Failure.RATE_LIMITED,
    504: Failure.MODEL_TIMEOUT,
    524: Failure.MODEL_TIMEOUT,  # Cloudflare
    529: Failure.RATE_LIMITED,  # Anthropic: overloaded
}
# What an error, or an answer that failed, has as its `code` or `type`: OpenAI's, and others'.
# https://platform.openai.com/docs/guides/error-codes
CODES = {
    Failure.KEY_REFUSED: (
        "access_terminated account_deactivated invalid_api_key "
        "invalid_organization ip_not_authorized missing_scope no_db_connection "
        "organization_deactivated unsupported_country_region_territory"
    ),
    Failure.QUOTA_EXCEEDED: (
        "billing_error billing_hard_limit_reached billing_not_active budget_exceeded "
        "insufficient_balance insufficient_credits insufficient_quota"
    ),
    Failure.MODEL_NOT_FOUND: "deploymentnotfound model_not_found unknown_model",
    Failure.CONTENT_FILTERED: (
        "bio_policy content_filter content_policy_violation cyber_policy invalid_prompt "
        "misalignment_policy_violation moderation_blocked responsibleaipolicyviolation"
    ),
    Failure.RATE_LIMITED: (
        "capacity_exceeded engine_overloaded model_overloaded overloaded overloaded_error "
        "rate_limit_error rate_limit_exceeded resource_unavailable server_overloaded slow_down"
    ),
    Failure.MODEL_ERROR: "server_error",
    Failure.REQUEST_REFUSED: "data_residency_mismatch",
}
FAILURE_BY_CODE = {code: failure for failure, codes in CODES.items() for code in codes.split()}
UNFINISHED = ("queued", "in_progress", "cancelled")
CUT_OFF = ("max_output_tokens", "max_tokens", "length")  # OpenAI's, and others'


class Answer(NamedTuple):
    """A checked analysis, the name of the model that wrote it if told, and what that took."""

    analysis: Result
    model: str
    tokens: Tokens | None = None


class AnalysisFailed(Exception):
    """There is no usable answer; `retry_after` is the delay that the server asked for, often 0."""

    tokens: Tokens | None = None  # an answer that is of no use is charged all the same

    def __init__(self, failure: Failure, cause: str, retry_after: timedelta = timedelta(0)) -> None:
        super().__init__(f"{failure}: {cause}")
        self.failure = failure
        self.cause = cause
        self.retry_after = retry_after


def read_answer(body: bytes, content_type: str) -> Answer:
    """Read the body of a response. Nothing in it is trusted. Raises: AnalysisFailed."""
    reply = _decode(body, content_type)
    tokens = _tokens(reply.get("usage"))
    try:
        model = _word(reply.get("model")).encode(errors="replace").decode()  # no lone surrogate
        return Answer(_analysis(reply), model[:100], tokens)
    except AnalysisFailed as failed:
        failed.tokens = tokens
        raise


def check_response(body: bytes, content_type: str) -> None:
    """Check that this is a response at all, though it may be cut off. Raises: AnalysisFailed."""
    reply = _decode(body, content_type)
    _check_status(reply)
    if not isinstance(reply.get("output"), list):
        raise AnalysisFailed(Failure.UNREADABLE_ANSWER, "no output: not a response")


def is_model(body: bytes) -> bool:
    """Whether this is one model, as `GET /models/{id}` answers."""
    try:
        return bool(_word(_decode(body).get("id")))
    except AnalysisFailed:
        return False


def model_ids(body: bytes) -> list[str] | None:
    """The ids in what `GET /models` answers; None when this is no list of models."""
    try:
        data = _decode(body).get("data")
    except AnalysisFailed:
        return None
    return [_word(model.get("id")) for model in _objects(data)] if isinstance(data, list) else None


def refused(
    status: int, error: object, content_type: str = "", retry_after: timedelta = timedelta(0)
) -> AnalysisFailed:
    """Turn an HTTP error into our failure; a `code` or `type` that is known outdoes the status.

    `error` is the body's `error`, or the whole body.
    """
    fields = error if isinstance(error, dict) else {}
    names = [_word(fields.get(name)) for name in ("code", "type")]
    known = [FAILURE_BY_CODE[name.lower()] for name in names if name.lower() in FAILURE_BY_CODE]
    by_status = FAILURE_BY_STATUS.get(
        status, Failure.MODEL_ERROR if status >= 500 else Failure.REQUEST_REFUSED
    )
    cause = f"HTTP {status} {_code(fields.get('code'))}"
    if param := _parameter(fields.get("param")):
        cause += f" at {param}"
    if not fields:
        cause += f" in {_media_type(content_type)}"
    return AnalysisFailed(known[0] if known else by_status, cause, retry_after)


def _decode(body: bytes, content_type: str = "") -> dict[str, Any]:
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError):  # not "from error": its text holds the body
        cause = f"not JSON, but {len(body)} bytes of {_media_type(content_type)}"
        raise AnalysisFailed(Failure.UNREADABLE_ANSWER, cause) from None
    if not isinstance(reply, dict):
        raise AnalysisFailed(Failure.UNREADABLE_ANSWER, "JSON, but no object")
    return reply


def _analysis(reply: dict[str, Any]) -> Result:
    """Take the first final text that fits."""
    _check_status(reply)
    written = False
    causes = []
    for place, text in _final_texts(reply):
        written = written or bool(text.strip())
        try:
            return TASK.result.model_validate_json(_unwrapped(text))
        except ValidationError as error:
            causes.append(f"{place}: {_first_problem(error)}")
    if reply.get("status") == "incomplete":
        failure = Failure.ANSWER_TRUNCATED if written else Failure.ONLY_REASONING
        raise AnalysisFailed(failure, f"incomplete: {CUT_OFF[0]}")
    if any(part.get("type") == "refusal" for _, _, part in _parts(reply)):
        raise AnalysisFailed(Failure.REFUSED_BY_MODEL, "refusal")
    raise AnalysisFailed(
        Failure.UNREADABLE_ANSWER,
        causes[0] if causes else f"no final text in {len(_objects(reply.get('output')))} items",
    )


def _check_status(reply: dict[str, Any]) -> None:
    """Refuse an answer that its server doesn't call finished, cut-off ones excepted."""
    status = _word(reply.get("status"))
    if status == "failed":
        code = _object(reply.get("error")).get("code")
        failure = FAILURE_BY_CODE.get(_word(code).lower(), Failure.MODEL_ERROR)
        raise AnalysisFailed(failure, f"failed: {_code(code)}")
    if status in UNFINISHED:
        raise AnalysisFailed(Failure.MODEL_ERROR, f"unfinished: {status}")
    if status == "incomplete":
        reason = _object(reply.get("incomplete_details")).get("reason")
        if reason not in CUT_OFF:
            failure = FAILURE_BY_CODE.get(_word(reason), Failure.MODEL_ERROR)
            raise AnalysisFailed(failure, f"incomplete: {_code(reason)}")


def _final_texts(reply: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for place, item, part in _parts(reply):
        if item.get("phase") in (None, "final_answer") and part.get("type") == "output_text":
            yield place, _word(part.get("text"))


def _parts(reply: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """The parts of all messages, each with its place and its message."""
    for number, item in enumerate(_objects(reply.get("output"))):
        if item.get("type") == "message":
            for index, part in enumerate(_objects(item.get("content"))):
                yield f"output[{number}].content[{index}]", item, part


def _unwrapped(text: str) -> str:
    """Take off what some models put around their JSON: thoughts, a sentence, a code fence."""
    if text.lstrip().startswith("{"):
        return text
    text = text.rpartition("</think>")[2]
    return text[text.find("{") : text.rfind("}") + 1]


def _tokens(usage: object) -> Tokens | None:
    """What the call is charged by; None where a compatible server doesn't tell."""
    try:
        return Tokens.model_validate(usage, extra="ignore")
    except ValidationError:
        return None


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


# ── What of an answer may be logged: nothing that could be a person's or the model's words ──


def _code(value: object) -> str:
    """Quote a code; what stands in its place otherwise may repeat what was sent."""
    word = str(value)
    is_code = re.fullmatch(r"[a-z]+(_[a-z]+){1,7}|\d{1,5}|([A-Z][a-z]+){1,4}(Found|Error)", word)
    return word if is_code else "(no known code)"


def _parameter(value: object) -> str:
    """Quote the name of a parameter, if it is one that we send."""
    sent = "input|instructions|max_output_tokens|model|reasoning|store|text"
    pattern = rf"({sent})(\.[a-z_]{{1,30}}){{0,4}}"
    word = _word(value)
    return word if re.fullmatch(pattern, word) else ""


def _media_type(content_type: str) -> str:
    media_type = content_type.partition(";")[0].strip().lower()
    return (
        media_type if re.fullmatch(r"[a-z]{1,20}/[a-z.+-]{1,40}", media_type) else "no known type"
    )


def _first_problem(error: ValidationError) -> str:
    """Name a field of ours and what is wrong with it; other names are the model's words."""
    problem = error.errors(include_input=False, include_url=False, include_context=False)[0]
    known = [part if isinstance(part, int) or part in NAMES else "?" for part in problem["loc"]]
    return ": ".join([".".join(map(str, known)), problem["type"]]).lstrip(": ")


NAMES = set(names(TASK.result.model_json_schema()))
