"""The same analysis for programs: POST /analyze, GET /analyze/<requestId>; errors as problems.

POST answers 202 with `Location` and `{"requestId", "status", "dueAt"}`; GET answers status,
attempt, result or failure, and never the input. Both answer a caller's own request that another
version has stored 410, or 503 while a newer version's processes take over; anybody else's is 404.
"""

import hmac
import json
from typing import NamedTuple

from flask import Blueprint, Response, request, url_for
from pydantic import SecretStr, ValidationError

from common.events import Events, RecordNotRead
from common.failures import Failure
from common.form import Form, problems
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.states import Status
from common.store import NotFound
from common.submission import Submissions, new_request_id
from common.task import TASK
from common.versions import Unreadable
from webhook_service.access import caller, may_read
from webhook_service.web import (
    RETRY_SECONDS,
    Problem,
    json_answer,
    not_found,
    read_body,
    whole_seconds,
)

MAX_IDEMPOTENCY_KEY = 255
OF_OLDER = "This request was made with an earlier version and can't be read any more. Make another."
OF_NEWER = "This request is with a newer version, which is just being deployed. Ask again."


def make_api(
    settings: ServiceSettings, submissions: Submissions, events: Events, *, is_open: bool
) -> Blueprint:
    """Make the API's routes; `is_open` asks for no key where there is none."""
    api = Blueprint("api", __name__)

    @api.post("/analyze")
    def submit() -> Response:
        name = caller(settings.api_keys, is_open=is_open)
        form = _read_input()
        same = _read_idempotency(name, form, settings.qstash_token)
        record = submissions.submit(form, **same._asdict(), created_by=name)
        return _accepted(record)

    @api.get("/analyze/<request_id>")
    def look_up(request_id: str) -> Response:
        name = caller(settings.api_keys, is_open=is_open)
        record = submissions.look_up(request_id)
        if not may_read(name, record):
            raise NotFound("made by somebody else")
        return json_answer(200, _public(record))

    @api.errorhandler(Unreadable)
    def not_read(error: Unreadable) -> Response:
        events.emit(RecordNotRead(error))
        if error.created_by != caller(settings.api_keys, is_open=is_open):
            return not_found()
        if error.is_newer:
            return Problem(503, OF_NEWER, {"Retry-After": str(RETRY_SECONDS)}).response()
        return Problem(410, OF_OLDER).response()

    return api


class Idempotency(NamedTuple):
    """What an Idempotency-Key stands for; without one, every call is another submission."""

    request_id: str
    fingerprint: str | None = None


def _read_idempotency(scope: str, form: Form, secret: SecretStr) -> Idempotency:
    """Read the header, if it was sent. Raises: Problem.

    One caller's key is one request id, which nobody can guess without our secret. The fingerprint
    is keyed with what is not stored, so that nobody can guess the input from it.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return Idempotency(new_request_id())
    if not 1 <= len(key) <= MAX_IDEMPOTENCY_KEY:
        raise Problem(400, "Idempotency-Key must have 1 to 255 characters.")
    named = f"{scope}\0{key}".encode()
    return Idempotency(
        hmac.digest(secret.get_secret_value().encode(), named, "sha256").hex()[:32],
        hmac.digest(key.encode(), form.model_dump_json().encode(), "sha256").hex(),
    )


def _read_input() -> Form:
    """Raises: Problem, naming what is wrong with each field."""
    if request.mimetype != "application/json":
        raise Problem(415, "Send application/json.")
    body = read_body()
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "The body is not JSON.") from None
    try:
        return TASK.form.model_validate(data)
    except ValidationError as error:
        found = problems(TASK.form, error)
        fields = [{"field": field, "problem": problem} for field, problem in found.items()]
        raise Problem(422, "Some fields need another look.", errors=fields) from None


def _accepted(record: AnalysisRecord) -> Response:
    location = url_for("api.look_up", request_id=record.request_id)  # under SCRIPT_NAME
    if record.failure is Failure.NOT_QUEUED:
        detail = Failure.NOT_QUEUED.sentence + " Nothing was started; send it again."
        headers = {"Location": location, "Retry-After": str(RETRY_SECONDS)}
        raise Problem(503, detail, headers, requestId=record.request_id)
    shown = _public(record)
    response = json_answer(202, {name: shown[name] for name in ("requestId", "status", "dueAt")})
    response.headers["Location"] = location
    response.headers["Retry-After"] = whole_seconds(record.due_at - record.published_at)
    return response


def _public(record: AnalysisRecord) -> dict[str, object]:
    """All that the holder of the id may see: never the input."""
    fields = {"request_id", "status", "attempt", "due_at", "result", "model"}
    if record.status is Status.PENDING:
        fields.add("next_attempt_at")
    shown: dict[str, object] = record.model_dump(
        mode="json", by_alias=True, include=fields, exclude_none=True
    )
    if failure := record.failure:
        next_step = failure.next_step
        shown["failure"] = {"code": failure, "message": failure.sentence, "nextStep": next_step}
    return shown
