"""A development tool: what this product needs of QStash, in memory, on loopback, for the real SDK.

Written from https://upstash.com/docs/qstash. It takes the public credentials of Upstash's own
development server (`npx @upstash/qstash-cli dev`), which can run in its place.

endpoint                               as
POST   /v2/publish/{destination}       the destination unescaped, with its query
GET    /v2/messages/{id}               until a minute after the message has ended
DELETE /v2/messages/{id}               cancels it, unless it has ended
GET    /v2/dlq, /v2/dlq/{id}           by url, messageId, label; count, cursor
GET    /v2/keys, POST /v2/keys/rotate  current and next signing key
POST   /faults                         what goes wrong at the next publishes; see `Fault`

header (Upstash-…)                     as
Delay, Timeout                         10s, 1h30m; the timeout is each delivery's
Retries, Retry-Delay                   3 unless given; an expression in ms over `retried`, else
                                       min(86400, e^(2.5 n)) seconds
Deduplication-Id                       for 10 minutes a duplicate is answered with the first id
Failure-Callback                       when given up; with as many retries as the message, and
                                       headers of its own (Failure-Callback-Forward-…)
Flow-Control-Key, -Value               parallelism=2: further deliveries wait
Method, Forward-…, Label               one label or several, with commas
Telemetry-…                            ignored

an answer's Retry-After                replaces the retry delay; see `seconds_until_retry`
489 + Upstash-NonRetryable-Error: true ends the retries; the message goes to the DLQ

Anything else (an endpoint, method, parameter, header or body) is answered 501 and named, so that
nothing is silently ignored.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from common.settings import DEVELOPMENT_TOKEN
from local_stack.loopback import LoopbackOnly, serve
from local_stack.qstash_message import (
    FORWARDING,
    HEADERS,
    BadRequest,
    Message,
    NotSupported,
    read_message,
)
from local_stack.qstash_queue import DeadLetter, MessageQueue

Handler = Callable[[Request], Awaitable[Response]]
PUBLISHING = "|".join([*HEADERS, *(f"{prefix}.+" for prefix in FORWARDING)])
# Some parameters of a publish would be QStash's, the rest are the destination's:
TO_PUBLISH = f"header ({PUBLISHING})|parameter (?!(?i:upstash-|qstash_token$)).*|body"
TO_LIST = "parameter (url|messageId|label|count|cursor)"


class Fault(BaseModel):
    """What goes wrong at the next `times` publishes.

    With `status`, they are refused with that status and `headers`; with `seconds`, they are
    accepted and answered late; with `is_duplicated`, delivered twice; with `is_reply_dropped`,
    accepted, but the answer breaks off.
    """

    model_config = ConfigDict(extra="forbid")

    times: int = Field(default=1, ge=1, le=1000)
    status: int | None = None
    headers: dict[str, str] = {}
    seconds: float = 0
    is_duplicated: bool = False
    is_reply_dropped: bool = False


class PageQuery(BaseModel):
    """Which part of the list of dead letters is wanted."""

    count: int = Field(default=100, ge=1, le=100)
    cursor: int = Field(default=0, ge=0)


class QStashServer:
    """The HTTP side: reads requests, asks the queue, answers."""

    def __init__(self) -> None:
        self._queue = MessageQueue()
        self._faults: deque[Fault] = deque()
        self.app = Starlette(
            routes=[
                _route("POST", "/v2/publish/{destination:path}", self.publish, TO_PUBLISH),
                _route("GET", "/v2/messages/{id}", self.get_message),
                _route("DELETE", "/v2/messages/{id}", self.cancel_message),
                _route("GET", "/v2/dlq", self.list_dead_letters, TO_LIST),
                _route("GET", "/v2/dlq/{id}", self.get_dead_letter),
                _route("GET", "/v2/keys", self.keys),
                _route("POST", "/v2/keys/rotate", self.rotate_keys),
                Route("/faults", self.plan_faults, methods=["POST"]),
            ],
            middleware=[Middleware(LoopbackOnly)],
            exception_handlers={
                BadRequest: _bad_request,
                ValidationError: _bad_request,
                **dict.fromkeys((NotSupported, 404, 405), _not_supported),
            },
        )
        self.app.router.redirect_slashes = False

    async def publish(self, request: Request) -> Response:
        fault = self._faults.popleft() if self._faults else Fault()
        if fault.status is not None:
            await asyncio.sleep(fault.seconds)
            return JSONResponse({"error": "as planned"}, fault.status, fault.headers)
        message = read_message(_destination(request), request.headers.items(), await request.body())
        accepted = self._queue.accept(message, is_duplicated=fault.is_duplicated)
        await asyncio.sleep(fault.seconds)
        if fault.is_reply_dropped:
            return StreamingResponse(_break_off(), headers={"Content-Length": "100"})
        return JSONResponse(accepted, 202 if "deduplicated" in accepted else 200)

    async def get_message(self, request: Request) -> Response:
        return _found(request, self._queue.messages)

    async def cancel_message(self, request: Request) -> Response:
        is_cancelled = self._queue.cancel(request.path_params["id"])
        return JSONResponse({"cancelled": 1}) if is_cancelled else _not_found(request)

    async def list_dead_letters(self, request: Request) -> Response:
        query = request.query_params
        found = [
            letter.shown()
            for letter in self._queue.dead_letters.values()
            if _is_among(query.getlist("url"), letter.message.url)
            and _is_among(query.getlist("messageId"), letter.message.message_id)
            and _is_among(query.getlist("label"), (letter.message.labels or [""])[0])
        ]
        page = PageQuery.model_validate(dict(query))
        end = page.cursor + page.count
        rest = {"cursor": str(end)} if len(found) > end else {}
        return JSONResponse({"messages": found[page.cursor : end], **rest})

    async def get_dead_letter(self, request: Request) -> Response:
        return _found(request, self._queue.dead_letters)

    async def keys(self, request: Request) -> Response:
        keys = {"current": self._queue.current_key, "next": self._queue.next_key}
        return JSONResponse(keys)

    async def rotate_keys(self, request: Request) -> Response:
        self._queue.rotate_keys()
        return await self.keys(request)

    async def plan_faults(self, request: Request) -> Response:
        fault = Fault.model_validate_json(await request.body())
        self._faults.extend([fault] * fault.times)
        return JSONResponse({"planned": len(self._faults)})


def _route(method: str, path: str, handler: Handler, takes: str = "") -> Route:
    """Serve one endpoint; `takes` is a pattern of the names that a request may give it."""

    async def guarded(request: Request) -> Response:
        if request.headers.get("Authorization") != f"Bearer {DEVELOPMENT_TOKEN}":
            return JSONResponse({"error": "unauthorized"}, 401)
        given = [f"header {name}" for name in request.headers if name.startswith("upstash-")]
        given += [f"parameter {name}" for name in request.query_params]
        given += ["body"] if await request.body() else []
        for name in given:
            if not re.fullmatch(f"{takes}|header upstash-telemetry-.+", name):
                raise NotSupported(f"{method} {path.replace(':path', '')} with {name}")
            if given.count(name) > 1:
                raise BadRequest(f"{name} is given twice")
        return await handler(request)

    return Route(path, guarded, methods=[method])


def _destination(request: Request) -> str:
    """Take the destination as it was sent: decoding it would change the JWT's `sub`."""
    raw: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    destination = raw.decode("ascii").removeprefix("/v2/publish/")
    return f"{destination}?{query.decode('ascii')}" if query else destination


def _is_among(wanted: list[str], value: str) -> bool:
    """Whether a filter lets a value through: it is repeated, or has commas, or is not given."""
    return not wanted or value in [*wanted, *",".join(wanted).split(",")]


async def _break_off() -> AsyncIterator[bytes]:
    yield json.dumps({"messageId": "msg_"}).encode()[:5]


def _found(request: Request, among: Mapping[str, Message | DeadLetter]) -> Response:
    found = among.get(request.path_params["id"])
    return JSONResponse(found.shown()) if found else _not_found(request)


def _not_found(request: Request) -> Response:
    return JSONResponse({"error": f"{request.path_params['id']} not found"}, 404)


async def _not_supported(request: Request, error: Exception) -> Response:
    what = error if isinstance(error, NotSupported) else f"{request.method} {request.url.path}"
    return JSONResponse({"error": f"not in this stand-in: {what}"}, 501)


async def _bad_request(request: Request, error: Exception) -> Response:
    problems = error.errors() if isinstance(error, ValidationError) else [{"msg": error}]
    return JSONResponse({"error": "; ".join(str(problem["msg"]) for problem in problems)}, 400)


if __name__ == "__main__":
    serve(QStashServer().app)
