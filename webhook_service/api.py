"""The same analysis for programs: POST /analyze, GET /analyze/<requestId>; errors as problems.

POST answers 202 with `Location` and `{"requestId", "status", "dueAt"}`; GET answers status,
attempt, result or failure, and never the input.
"""

import hmac
import json
import logging
import math
import traceback
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256

from flask import Blueprint, Flask, Response, jsonify, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from common.failures import FAILURES, FailureCode
from common.models import AnalysisInput, AnalysisRecord, Status, input_problems
from common.settings import ServiceSettings
from common.store import IdempotencyClaim, NotFound, Store, StoreUnavailable
from common.submission import OtherInput, Submissions, new_request_id

LONGEST_IDEMPOTENCY_KEY = 255
RETRY_SECONDS = 10

log = logging.getLogger(__name__)


def make_api(
    settings: ServiceSettings, store: Store, submissions: Submissions, *, is_open: bool
) -> Blueprint:
    """Make the API's routes; `is_open` asks for no key."""
    api = Blueprint("api", __name__)

    @api.post("/analyze")
    def submit() -> Response:
        scope = _scope(settings.api_keys, is_open=is_open)
        input = _read_input()
        key = request.headers.get("Idempotency-Key")
        request_id = new_request_id() if key is None else bind(scope, key, input)
        return _accepted(submissions.submit(input, request_id=request_id))

    @api.get("/analyze/<request_id>")
    def look_up(request_id: str) -> Response:
        _scope(settings.api_keys, is_open=is_open)
        return _json(200, _public(submissions.look_up(request_id)))

    def bind(scope: str, key: str, input: AnalysisInput) -> str:
        """Find the request id this Idempotency-Key stands for. Raises: Problem."""
        if not 1 <= len(key) <= LONGEST_IDEMPOTENCY_KEY:
            raise Problem(400, "Idempotency-Key must have 1 to 255 characters.")
        claim = IdempotencyClaim(
            request_id=new_request_id(),
            # Keyed with what is not stored, so that nobody can guess the input from it.
            fingerprint=hmac.digest(key.encode(), input.model_dump_json().encode(), "sha256").hex(),
        )
        lives = settings.qstash_delay + settings.times.deadline + settings.ttl
        bound = store.claim_idempotency_key(scope, sha256(key.encode()).hexdigest(), claim, lives)
        if bound.fingerprint != claim.fingerprint:
            raise Problem(422, "This Idempotency-Key was used with another input.")
        return bound.request_id

    return api


def handle_errors(app: Flask) -> None:
    """Turn every error into a problem; none of them shows what went wrong inside."""
    app.register_error_handler(Problem, lambda problem: problem.response())
    app.register_error_handler(
        NotFound,
        lambda _: Problem(404, "There is no such analysis, or it is no longer kept.").response(),
    )
    app.register_error_handler(
        OtherInput, lambda _: Problem(422, "This id was used with another input.").response()
    )
    app.register_error_handler(StoreUnavailable, _store_problem)
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _unexpected_problem)


class Problem(Exception):
    """An error answer of the API, as RFC 9457 has it."""

    def __init__(
        self, status: int, detail: str, headers: dict[str, str] | None = None, **members: object
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    def response(self) -> Response:
        response = _json(
            self.status, {"status": self.status, "detail": self.detail, **self.members}
        )
        response.mimetype = "application/problem+json"
        response.headers.update(self.headers)
        return response


def _scope(api_keys: dict[str, str], *, is_open: bool) -> str:
    """Name whose request this is. Raises: Problem."""
    if is_open:
        return "open"
    if not api_keys:
        raise Problem(403, "The API is switched off here. Set API_KEYS to switch it on.")
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    digest = sha256(key.strip().encode("utf-8", "replace")).hexdigest()
    matches = [name for name, known in api_keys.items() if hmac.compare_digest(known, digest)]
    if scheme.lower() != "bearer" or not matches:
        raise Problem(
            401, "Send a valid API key as a bearer token.", {"WWW-Authenticate": "Bearer"}
        )
    return matches[0]


def _read_input() -> AnalysisInput:
    """Raises: Problem, naming what is wrong with each field."""
    if request.mimetype != "application/json":
        raise Problem(415, "Send application/json.")
    body = request.get_data()
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "The body is not JSON.") from None
    try:
        return AnalysisInput.model_validate(data)
    except ValidationError as error:
        fields = [
            {"field": field, "problem": problem} for field, problem in input_problems(error).items()
        ]
        raise Problem(422, "Some fields need another look.", errors=fields) from None


def _accepted(record: AnalysisRecord) -> Response:
    location = f"/analyze/{record.request_id}"
    if record.failure is FailureCode.NOT_QUEUED:
        detail = FAILURES[FailureCode.NOT_QUEUED].sentence + " Nothing was started; send it again."
        headers = {"Location": location, "Retry-After": str(RETRY_SECONDS)}
        raise Problem(503, detail, headers, requestId=record.request_id)
    body = {
        "requestId": record.request_id,
        "status": record.status,
        "dueAt": record.due_at.isoformat(),
    }
    response = _json(202, body)
    response.headers["Location"] = location
    response.headers["Retry-After"] = whole_seconds(record.due_at - record.published_at)
    return response


def _public(record: AnalysisRecord) -> dict[str, object]:
    """All that the holder of the id may see: never the input."""
    shown: dict[str, object] = {
        "requestId": record.request_id,
        "status": record.status,
        "attempt": record.attempt,
        "dueAt": record.due_at.isoformat(),
    }
    if record.status is Status.PENDING:
        shown["nextAttemptAt"] = record.next_attempt_at.isoformat()
    if record.result:
        shown["result"] = record.result.model_dump(mode="json", by_alias=True)
        shown["model"] = record.model
    if record.failure:
        failure = FAILURES[record.failure]
        shown["failure"] = {
            "code": record.failure,
            "message": failure.sentence,
            "nextStep": failure.next_step,
        }
    return shown


def _http_problem(error: HTTPException) -> Response:
    """Answer Flask's own errors (404, 405, 413, …) as problems."""
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return Problem(error.code or 500, f"{error.name}.", headers).response()


def _unexpected_problem(error: Exception) -> Response:
    """Answer a fault of ours; what it says may be personal, so the log has its places alone."""
    frames = traceback.extract_tb(error.__traceback__)
    places = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in reversed(frames))
    log.error("unexpected %s at %s", type(error).__name__, places)
    return Problem(500, "Something went wrong on our side.").response()


def _store_problem(error: StoreUnavailable) -> Response:
    log.error("store unavailable %s %s: %s", request.method, request.path, error)
    detail = "The store can't be reached just now. Please try again."
    return Problem(503, detail, {"Retry-After": str(RETRY_SECONDS)}).response()


def _json(status: int, body: Mapping[str, object]) -> Response:
    response = jsonify(body)
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response


def whole_seconds(duration: timedelta) -> str:
    """Write a duration as `Retry-After` has it, rounded up."""
    return str(max(1, math.ceil(duration.total_seconds())))
