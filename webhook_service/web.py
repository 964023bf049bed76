"""What the routes share of HTTP: reading a request, and answering errors as problems."""

import math
from collections.abc import Mapping
from datetime import timedelta

from flask import Flask, Response, current_app, jsonify, request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from common.connection import StoreUnavailable
from common.events import Events, StoreFailed
from common.logs import get_logger
from common.ports import LimitReached
from common.security_headers import NO_INDEX, SECURITY_HEADERS
from common.store import NotFound
from common.submission import OtherInput

RETRY_SECONDS = 10  # while Redis or QStash is away
OTHER_INPUT = "This Idempotency-Key was used with another input, or before the form changed."

log = get_logger(__name__)


def read_body() -> bytes:
    """Read the raw body. Raises: RequestEntityTooLarge, BadRequest.

    Werkzeug refuses a Content-Length over the limit, but cuts a chunked body off there silently.
    gunicorn hands on a body that ended too soon, and raises errors of its own for broken chunks.
    """
    try:
        body = request.get_data()
    except HTTPException:
        raise
    except Exception:
        raise BadRequest from None
    length, limit = request.content_length, current_app.config["MAX_CONTENT_LENGTH"]
    if length is None and len(body) >= limit:
        raise RequestEntityTooLarge
    if length is not None and len(body) < length:
        raise BadRequest
    return body


def bearer_token() -> bytes:
    """What was sent as `Authorization: Bearer …`; empty when nothing was."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip().encode("utf-8", "replace") if scheme.lower() == "bearer" else b""


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
        response = json_answer(
            self.status, {"status": self.status, "detail": self.detail, **self.members}
        )
        response.mimetype = "application/problem+json"
        response.headers.update(self.headers)
        return response


def add_security_headers(app: Flask) -> None:
    """Put them on every answer, errors included."""

    @app.after_request
    def add(response: Response) -> Response:
        response.headers.update(SECURITY_HEADERS | NO_INDEX)
        return response


def handle_errors(app: Flask, events: Events) -> None:
    """Turn every error into a problem; none of them shows what went wrong inside."""

    def store_problem(error: StoreUnavailable) -> Response:
        events.emit(StoreFailed(error.store, str(error), at=str(request.url_rule)))
        detail = "The store does not work just now. Please try again."
        return Problem(503, detail, {"Retry-After": str(RETRY_SECONDS)}).response()

    app.register_error_handler(Problem, lambda problem: problem.response())
    app.register_error_handler(NotFound, lambda _: not_found())
    app.register_error_handler(OtherInput, lambda _: Problem(422, OTHER_INPUT).response())
    app.register_error_handler(LimitReached, _limit_problem)
    app.register_error_handler(StoreUnavailable, store_problem)
    app.register_error_handler(HTTPException, _http_problem)
    app.register_error_handler(Exception, _unexpected_problem)


def _http_problem(error: HTTPException) -> Response:
    """Answer Flask's own errors (404, 405, 413, …) as problems."""
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return Problem(error.code or 500, f"{error.name}.", headers).response()


def _unexpected_problem(error: Exception) -> Response:
    """Answer a fault of ours."""
    log.error("unexpected error", exc_info=error)
    return Problem(500, "Something went wrong on our side.").response()


def _limit_problem(error: LimitReached) -> Response:
    """503 and not 429: what is used up is everybody's, or nobody's fault."""
    headers = {"Retry-After": whole_seconds(error.retry_after)}
    return Problem(503, error.limit.sentence, headers, limit=error.limit).response()


def not_found() -> Response:
    """Answer for what is not there, and for what is somebody else's."""
    return Problem(404, "There is no such request, or it is no longer kept.").response()


def json_answer(status: int, body: Mapping[str, object]) -> Response:
    """Answer with JSON that nobody keeps."""
    response = jsonify(body)
    response.status_code = status
    response.headers["Cache-Control"] = "no-store"
    return response


def whole_seconds(duration: timedelta) -> str:
    """Write a duration as `Retry-After` has it, rounded up."""
    return str(max(1, math.ceil(duration.total_seconds())))
