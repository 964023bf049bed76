"""What QStash calls, and the one table of what it is told; health checks.

outcome of a delivery                                          status
settled now; or nothing to do: already terminal, deleted,      200
  unknown id, older round, too late
another attempt is running, not due yet, Redis is away, a      503 with Retry-After
  transient error released the record, or a newer version
  has written it: its own processes may take the next one
the operator must act (key, model, quota, our request, a       489 with Upstash-NonRetryable-Error:
  record that no version reads), or a signed body that is        the message rests in the DLQ
  not ours
a report that it rests there, of a record that can't be read   200: there is no more to do
bad signature                                                  401, empty body; never 489
body too large; cut off, or its chunks unreadable              413; 400
"""

import re
from collections.abc import Callable
from datetime import timedelta

from flask import Blueprint, Response, jsonify, request
from pydantic import Base64Bytes
from werkzeug.exceptions import HTTPException

from common.events import NOT_OURS, DeliveryRefused, Events
from common.fields import Model
from common.logs import bound
from common.settings import ServiceSettings
from common.store import Store
from common.tracing import span
from webhook_service.signature import SignatureRefused, verify
from webhook_service.web import read_body, whole_seconds
from webhook_service.worker import Delivery, Outcome, OutcomeKind, Worker

# 489 is QStash's own, and what it is asked to wait counts up to a day:
# https://upstash.com/docs/qstash/features/retry
NON_RETRYABLE = 489
MAX_WAIT = timedelta(days=1)
STATUS_CODES = {
    OutcomeKind.SETTLED: 200,
    OutcomeKind.IGNORED: 200,
    OutcomeKind.RETRY: 503,
    OutcomeKind.OPERATOR_MUST_ACT: NON_RETRYABLE,
}


def make_routes(settings: ServiceSettings, store: Store, worker: Worker) -> Blueprint:
    """Make the webhook's routes for these collaborators."""
    routes = Blueprint("routes", __name__)
    keys, events = settings.signing_keys, store.events

    @routes.post("/webhook")
    def webhook() -> Response:
        url = settings.qstash_webhook_url
        return _receive(url, keys, events, read=Delivery.model_validate_json, action=worker.process)

    @routes.post("/webhook/failure")
    def failure() -> Response:
        url = settings.failure_callback_url
        return _receive(url, keys, events, read=_read_failure_callback, action=worker.give_up)

    @routes.get("/health")
    def health() -> Response:
        return jsonify({"status": "ok"})

    @routes.get("/ready")
    def ready() -> Response:
        store.check()
        return jsonify({"status": "ready"})

    return routes


def _receive(
    url: str,
    keys: tuple[str, str],
    events: Events,
    *,
    read: Callable[[bytes], Delivery],
    action: Callable[[Delivery], Outcome],
) -> Response:
    """Guard a delivery: size, then signature over the raw body, then its content."""
    with bound(**_message_id()):
        try:
            body = read_body()
            verify(request.headers.get("Upstash-Signature"), body, url=url, keys=keys)
        except HTTPException as error:
            events.emit(DeliveryRefused(error.name, error.name))
            raise
        except SignatureRefused as refused:
            events.emit(DeliveryRefused(refused.reason, str(refused)))
            return Response(status=401)
        try:
            delivery = read(body)
        except ValueError as error:
            events.emit(DeliveryRefused(NOT_OURS, f"{NOT_OURS}: {type(error).__name__}"))
            return _tell_qstash(Outcome(OutcomeKind.OPERATOR_MUST_ACT), "not a message of ours")
        with span("deliver", request.headers.get("traceparent")):
            outcome = action(delivery)
        return _tell_qstash(outcome, outcome.kind)


def _message_id() -> dict[str, str]:
    """For the log; unsigned, so only what looks like one of QStash's."""
    message_id = request.headers.get("Upstash-Message-Id", "")
    return {"message_id": message_id} if re.fullmatch(r"msg_[\w-]{1,80}", message_id) else {}


class FailureCallback(Model):
    """What QStash reports when it gives a message up; `sourceBody` is our own message.

    Source: https://upstash.com/docs/qstash/features/callbacks
    """

    source_body: Base64Bytes


def _read_failure_callback(body: bytes) -> Delivery:
    """Raises: ValueError when it is not about a message of ours."""
    callback = FailureCallback.model_validate_json(body)
    return Delivery.model_validate_json(callback.source_body)


def _tell_qstash(outcome: Outcome, text: str) -> Response:
    response = Response(text, status=STATUS_CODES[outcome.kind], mimetype="text/plain")
    if outcome.kind is OutcomeKind.RETRY:
        response.headers["Retry-After"] = whole_seconds(min(outcome.retry_after, MAX_WAIT))
    if outcome.kind is OutcomeKind.OPERATOR_MUST_ACT:
        response.headers["Upstash-NonRetryable-Error"] = "true"
    return response
