"""A development tool: QStash's documented HTTP API, in memory, on loopback, for the real SDK.

Written from https://upstash.com/docs/qstash. It takes the public credentials of Upstash's own
development server (`npx @upstash/qstash-cli dev`), which can run in its place.

honours                                 as
POST /v2/publish/{destination}          the destination unescaped, with its query
Upstash-Delay                           10s, 2m, 1h, 1d
Upstash-Retries                         3 unless given
Upstash-Retry-Delay                     an expression in milliseconds over `retried`
Upstash-Timeout                         for each delivery
Upstash-Deduplication-Id                10 minutes; the first message's id is answered
Upstash-Failure-Callback                a signed message of its own, when retries are used up
Upstash-Method, -Forward-*, -Label      the delivery's method and headers; shown with the message
Retry-After on an answer                replaces the retry delay
489 + Upstash-NonRetryable-Error: true  ends the retries
GET, DELETE /v2/messages/{id}           until the message has ended, and for a minute afterwards
"""

import asyncio
import base64
import hashlib
import json
import math
import re
import time
import uuid
from argparse import ArgumentParser
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx
import jwt
import uvicorn
from simpleeval import SimpleEval
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

# Public and fixed, the same for everybody; good for development alone.
TOKEN = "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0="
CURRENT_SIGNING_KEY = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r"
NEXT_SIGNING_KEY = "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"

DEFAULT_RETRIES = 3
DEFAULT_TIMEOUT_SECONDS = 900.0
DEDUPLICATION_SECONDS = 600
KEPT_SECONDS = 60
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
FUNCTIONS = {
    "pow": math.pow,
    "sqrt": math.sqrt,
    "abs": abs,
    "exp": math.exp,
    "floor": math.floor,
    "ceil": math.ceil,
    "round": round,
    "min": min,
    "max": max,
}


class BadRequest(Exception):
    """The publisher asked for something QStash would not take."""


@dataclass
class Message:
    """One message; `ended_at` is set when it was delivered, given up, or cancelled."""

    url: str
    body: bytes
    method: str = "POST"
    forward: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    retries: int = DEFAULT_RETRIES
    retry_delay: str | None = None
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    failure_callback: str | None = None
    label: str | None = None
    message_id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")
    created_at: float = field(default_factory=time.time)
    retried: int = 0
    ended_at: float | None = None

    def shown(self) -> dict[str, object]:
        """The message as `GET /v2/messages/{id}` has it; times in milliseconds."""
        shown: dict[str, object] = {
            "messageId": self.message_id,
            "url": self.url,
            "method": self.method,
            "header": {name: [value] for name, value in self.forward.items()},
            "maxRetries": self.retries,
            "createdAt": round(self.created_at * 1000),
            "notBefore": round((self.created_at + self.delay) * 1000),
            "failureCallback": self.failure_callback,
            "retryDelayExpression": self.retry_delay,
            "label": self.label,
        }
        try:
            shown["body"] = self.body.decode()
        except UnicodeDecodeError:
            shown["bodyBase64"] = base64.b64encode(self.body).decode()
        return {name: value for name, value in shown.items() if value is not None}


class QStashServer:
    """Accepts messages and delivers each in a task of its own, so that none blocks another."""

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ids_by_deduplication: dict[str, tuple[str, float]] = {}
        self._client = httpx.AsyncClient(timeout=None, limits=httpx.Limits(max_connections=None))
        self.app = Starlette(
            routes=[
                Route("/v2/publish/{destination:path}", self.publish, methods=["POST"]),
                Route("/v2/messages/{message_id}", self.get_message, methods=["GET"]),
                Route("/v2/messages/{message_id}", self.cancel_message, methods=["DELETE"]),
            ],
            exception_handlers={BadRequest: _bad_request},
        )

    async def publish(self, request: Request) -> Response:
        """Take a message, unless one with its deduplication id was taken lately."""
        if not _is_authorized(request):
            return _unauthorized()
        self._forget_old()
        message = _read_message(request, await request.body())
        deduplication_id = request.headers.get("Upstash-Deduplication-Id")
        if deduplication_id is not None:
            known, _ = self._ids_by_deduplication.get(deduplication_id, (None, 0))
            if known:
                return JSONResponse({"messageId": known, "deduplicated": True}, 202)
            self._ids_by_deduplication[deduplication_id] = (message.message_id, time.time())
        self._start(message)
        return JSONResponse({"messageId": message.message_id}, 201)

    async def get_message(self, request: Request) -> Response:
        """Show a message that waits, or has ended within the last minute."""
        if not _is_authorized(request):
            return _unauthorized()
        self._forget_old()
        message = self._messages.get(request.path_params["message_id"])
        return JSONResponse(message.shown()) if message else _not_found()

    async def cancel_message(self, request: Request) -> Response:
        """Stop a message that has not ended."""
        if not _is_authorized(request):
            return _unauthorized()
        message = self._messages.get(request.path_params["message_id"])
        if message is None or message.ended_at is not None:
            return _not_found()
        message.ended_at = time.time()
        self._tasks[message.message_id].cancel()
        print(f"{message.message_id} cancelled", flush=True)
        return Response(status_code=202)

    def _start(self, message: Message) -> None:
        self._messages[message.message_id] = message
        task = asyncio.create_task(self._run(message))
        self._tasks[message.message_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(message.message_id, None))

    async def _run(self, message: Message) -> None:
        """Deliver until it works, may not be retried, or retries are used up."""
        await asyncio.sleep(message.delay)
        while True:
            answer = await self._deliver(message)
            status = answer.status_code if answer is not None else "no answer"
            print(f"{message.message_id} delivered to {message.url}: {status}", flush=True)
            if answer is not None and answer.is_success:
                break
            if _is_final(answer) or message.retried >= message.retries:
                self._give_up(message, answer)
                break
            delay = _retry_delay(message, answer)
            message.retried += 1
            await asyncio.sleep(delay)
        message.ended_at = time.time()

    async def _deliver(self, message: Message) -> httpx.Response | None:
        headers = {
            **message.forward,
            "User-Agent": "Upstash-QStash",
            "Upstash-Signature": sign(message.url, message.body, CURRENT_SIGNING_KEY),
            "Upstash-Message-Id": message.message_id,
            "Upstash-Retried": str(message.retried),
        }
        try:
            async with asyncio.timeout(message.timeout):
                return await self._client.request(
                    message.method, message.url, content=message.body, headers=headers
                )
        except (httpx.HTTPError, TimeoutError):
            return None

    def _give_up(self, message: Message, answer: httpx.Response | None) -> None:
        print(f"{message.message_id} given up after {message.retried} retries", flush=True)
        if message.failure_callback is None:
            return
        content = answer.content if answer is not None else b"no answer"
        callback = {
            "status": answer.status_code if answer is not None else 0,
            "header": {name: [value] for name, value in answer.headers.items()} if answer else {},
            "body": base64.b64encode(content).decode(),
            "retried": message.retried,
            "maxRetries": message.retries,
            "sourceMessageId": message.message_id,
            "dlqId": f"{round(time.time() * 1000)}-0",
            "url": message.url,
            "method": message.method,
            "sourceHeader": {name: [value] for name, value in message.forward.items()},
            "sourceBody": base64.b64encode(message.body).decode(),
            "createdAt": round(message.created_at * 1000),
        }
        forward = {"Content-Type": "application/json"}
        self._start(
            Message(message.failure_callback, json.dumps(callback).encode(), forward=forward)
        )

    def _forget_old(self) -> None:
        now = time.time()
        self._messages = {
            id: message
            for id, message in self._messages.items()
            if message.ended_at is None or now - message.ended_at < KEPT_SECONDS
        }
        self._ids_by_deduplication = {
            id: (message_id, taken_at)
            for id, (message_id, taken_at) in self._ids_by_deduplication.items()
            if now - taken_at < DEDUPLICATION_SECONDS
        }


def sign(url: str, body: bytes, key: str) -> str:
    """Make a delivery's JWT, valid for five minutes.

    Source: https://upstash.com/docs/qstash/features/security
    """
    now = int(time.time())
    claims = {
        "iss": "Upstash",
        "sub": url,
        "exp": now + 300,
        "nbf": 0,
        "iat": now,
        "jti": f"jwt_{uuid.uuid4().hex}",
        "body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode(),
    }
    return jwt.encode(claims, key, algorithm="HS256")


def _read_message(request: Request, body: bytes) -> Message:
    headers = request.headers
    forward = {
        name.removeprefix("upstash-forward-"): value
        for name, value in headers.items()
        if name.startswith("upstash-forward-")
    }
    if "content-type" in headers:
        forward["content-type"] = headers["content-type"]
    retry_delay = headers.get("Upstash-Retry-Delay")
    if retry_delay is not None:
        _evaluate(retry_delay, retried=0)
    callback = headers.get("Upstash-Failure-Callback")
    return Message(
        url=_destination(request),
        body=body,
        method=headers.get("Upstash-Method", "POST"),
        forward=forward,
        delay=_seconds(headers.get("Upstash-Delay", "0s")),
        retries=_whole_number(headers.get("Upstash-Retries", str(DEFAULT_RETRIES))),
        retry_delay=retry_delay,
        timeout=_seconds(headers.get("Upstash-Timeout", f"{DEFAULT_TIMEOUT_SECONDS:.0f}s")),
        failure_callback=_checked_url(callback) if callback else None,
        label=headers.get("Upstash-Label"),
    )


def _destination(request: Request) -> str:
    """Take the destination as it was sent: decoding it would change the JWT's `sub`."""
    raw: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    destination = raw.decode("ascii").removeprefix("/v2/publish/")
    return _checked_url(f"{destination}?{query.decode('ascii')}" if query else destination)


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest("invalid destination url: must begin with http:// or https://")
    return url


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None:
        raise BadRequest(f"invalid duration: {text}")
    return float(match[1]) * UNITS[match[2]]


def _whole_number(text: str) -> int:
    if not text.isdecimal():
        raise BadRequest(f"invalid number: {text}")
    return int(text)


def _evaluate(expression: str, *, retried: int) -> float:
    """Compute a retry delay in milliseconds."""
    try:
        value = SimpleEval(functions=FUNCTIONS, names={"retried": retried}).eval(expression)
        return max(0.0, float(value))
    except Exception as error:
        raise BadRequest(f"invalid retry delay: {expression}") from error


def _retry_delay(message: Message, answer: httpx.Response | None) -> float:
    """Seconds until the next try: the answer's wish, the publisher's, or the default."""
    wish = answer.headers.get("Retry-After", "") if answer is not None else ""
    if wish.isdecimal():
        return float(wish)
    if message.retry_delay is not None:
        return _evaluate(message.retry_delay, retried=message.retried) / 1000
    return min(86400.0, math.exp(2.5 * (message.retried + 1)))


def _is_final(answer: httpx.Response | None) -> bool:
    return (
        answer is not None
        and answer.status_code == 489
        and answer.headers.get("Upstash-NonRetryable-Error", "").lower() == "true"
    )


def _is_authorized(request: Request) -> bool:
    return request.headers.get("Authorization") == f"Bearer {TOKEN}"


def _unauthorized() -> Response:
    return JSONResponse({"error": "unauthorized"}, 401)


def _not_found() -> Response:
    return JSONResponse({"error": "message not found"}, 404)


async def _bad_request(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


if __name__ == "__main__":
    parser = ArgumentParser(description="Run the QStash stand-in on loopback.")
    parser.add_argument("--port", type=int, default=8080)
    port = parser.parse_args().port
    uvicorn.run(QStashServer().app, host="127.0.0.1", port=port, log_level="warning")
