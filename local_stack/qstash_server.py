"""A development tool: QStash's documented HTTP API, in memory, on loopback, for the real SDK.

Written from https://upstash.com/docs/qstash. It takes the public credentials of Upstash's own
development server (`npx @upstash/qstash-cli dev`), which can run in its place.

endpoint                               as
POST   /v2/publish/{destination}       the destination unescaped, with its query
POST   /v2/batch                       a list of the same
GET    /v2/messages/{id}               until a minute after the message has ended
DELETE /v2/messages/{id}, /v2/messages one; those in {"messageIds": […]}; all
GET    /v2/events                      newest first; by messageId(s), state, url, label, dates
GET    /v2/dlq, /v2/dlq/{id}           by messageId, url, label, responseStatus, dates
DELETE /v2/dlq/{id}, /v2/dlq           one; those in {"dlqIds": […]}
POST   /v2/dlq/retry/{id}, /v2/dlq/retry?dlqIds=…
                                       as a new message, with the headers sent replaced
GET    /v2/keys, POST /v2/keys/rotate  current and next signing key
POST   /faults                         what goes wrong at the next publishes; see `Fault`

header (Upstash-…)                     as
Delay, Not-Before                      10s, 1h30m; seconds since 1970
Retries, Retry-Delay                   3 unless given; an expression in ms over `retried`, else
                                       min(86400, e^(2.5 n)) seconds
Timeout                                of each delivery
Deduplication-Id,                      10 minutes; the first message's id is answered
  Content-Based-Deduplication
Callback, Failure-Callback             after each try; when given up; with options of their own
                                       (Callback-Retries, Failure-Callback-Forward-…)
Flow-Control-Key, -Value               parallelism=2, rate=3, period=60s: holds back, refuses never
Method, Forward-…, Label, Redact-Fields

an answer's Retry-After                replaces the retry delay
489 + Upstash-NonRetryable-Error: true ends the retries; the message goes to the DLQ

Left out: queues, schedules, URL groups, LLM destinations, flow-control management, and limits.
"""

import asyncio
import json
from argparse import ArgumentParser
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from common.settings import DEVELOPMENT_TOKEN
from local_stack.loopback import LOOPBACK_NAMES_ONLY
from local_stack.qstash_courier import Courier
from local_stack.qstash_message import BadRequest, read_message

Handler = Callable[[Request], Awaitable[Response]]


class BatchItem(BaseModel):
    """One message of a batch."""

    destination: str
    headers: dict[str, str] = {}
    body: str | None = None


class Fault(BaseModel):
    """What goes wrong at the next `times` publishes.

    `status` refuses with that status and `headers`, `seconds` answers late, though it has accepted,
    `is_duplicated` delivers twice, `is_reply_dropped` accepts and breaks the answer off.
    """

    times: int = Field(default=1, ge=1, le=1000)
    status: int | None = None
    headers: dict[str, str] = {}
    seconds: float = 0
    is_duplicated: bool = False
    is_reply_dropped: bool = False


class QStashServer:
    """The HTTP side: reads requests, asks the courier, answers."""

    def __init__(self) -> None:
        self._courier = Courier()
        self._faults: deque[Fault] = deque()
        self.app = Starlette(
            routes=[
                _route("POST", "/v2/publish/{destination:path}", self.publish),
                _route("POST", "/v2/batch", self.batch),
                _route("GET", "/v2/messages/{id}", self.get_message),
                _route("DELETE", "/v2/messages/{id}", self.cancel_message),
                _route("DELETE", "/v2/messages", self.cancel_messages),
                _route("GET", "/v2/events", self.events),
                _route("GET", "/v2/dlq", self.list_dead_letters),
                _route("DELETE", "/v2/dlq", self.delete_dead_letters),
                _route("POST", "/v2/dlq/retry", self.retry_dead_letters),
                _route("POST", "/v2/dlq/retry/{id}", self.retry_dead_letter),
                _route("GET", "/v2/dlq/{id}", self.get_dead_letter),
                _route("DELETE", "/v2/dlq/{id}", self.delete_dead_letter),
                _route("GET", "/v2/keys", self.keys),
                _route("POST", "/v2/keys/rotate", self.rotate_keys),
                Route("/faults", self.plan_faults, methods=["POST"]),
            ],
            middleware=[LOOPBACK_NAMES_ONLY],
            exception_handlers={BadRequest: _bad_request, ValidationError: _bad_request},
        )

    async def publish(self, request: Request) -> Response:
        fault = self._faults.popleft() if self._faults else Fault()
        if fault.status is not None:
            await asyncio.sleep(fault.seconds)
            return JSONResponse({"error": "as planned"}, fault.status, fault.headers)
        message = read_message(_destination(request), request.headers, await request.body())
        taken = self._courier.take(message)
        if fault.is_duplicated and "deduplicated" not in taken:
            self._courier.deliver_twice(message.message_id)
        await asyncio.sleep(fault.seconds)
        if fault.is_reply_dropped:
            return StreamingResponse(_break_off(), 201, {"Content-Length": "100"})
        return JSONResponse(taken, 202 if "deduplicated" in taken else 201)

    async def batch(self, request: Request) -> Response:
        items = TypeAdapter(list[BatchItem]).validate_json(await request.body())
        messages = [
            read_message(item.destination, Headers(item.headers), (item.body or "").encode())
            for item in items
        ]
        return JSONResponse([self._courier.take(message) for message in messages])

    async def get_message(self, request: Request) -> Response:
        message = self._courier.find(request.path_params["id"])
        return JSONResponse(message.shown()) if message else _not_found()

    async def cancel_message(self, request: Request) -> Response:
        cancelled = self._courier.cancel(request.path_params["id"])
        return Response(status_code=202) if cancelled else _not_found()

    async def cancel_messages(self, request: Request) -> Response:
        body = await request.body()
        ids = _ids(body, "messageIds") if body else self._courier.waiting()
        return JSONResponse({"cancelled": sum(map(self._courier.cancel, ids))})

    async def events(self, request: Request) -> Response:
        return JSONResponse(_page(list(self._courier.events), request, "events", "time", 1000))

    async def list_dead_letters(self, request: Request) -> Response:
        letters = [letter.shown() for letter in self._courier.dead_letters.values()]
        return JSONResponse(_page(letters, request, "messages", "createdAt", 100))

    async def get_dead_letter(self, request: Request) -> Response:
        letter = self._courier.dead_letters.get(request.path_params["id"])
        return JSONResponse(letter.shown()) if letter else _not_found()

    async def delete_dead_letter(self, request: Request) -> Response:
        letter = self._courier.dead_letters.pop(request.path_params["id"], None)
        return Response(status_code=200) if letter else _not_found()

    async def delete_dead_letters(self, request: Request) -> Response:
        ids = _ids(await request.body(), "dlqIds")
        deleted = [id for id in ids if self._courier.dead_letters.pop(id, None)]
        return JSONResponse({"deleted": len(deleted)})

    async def retry_dead_letter(self, request: Request) -> Response:
        taken = self._courier.retry(request.path_params["id"], dict(request.headers))
        return JSONResponse(taken, 201) if taken else _not_found()

    async def retry_dead_letters(self, request: Request) -> Response:
        ids = request.query_params.getlist("dlqIds") or list(self._courier.dead_letters)
        taken = [self._courier.retry(id, dict(request.headers)) for id in ids]
        return JSONResponse({"responses": [one for one in taken if one]})

    async def keys(self, request: Request) -> Response:
        keys = {"current": self._courier.current_key, "next": self._courier.next_key}
        return JSONResponse(keys)

    async def rotate_keys(self, request: Request) -> Response:
        self._courier.rotate_keys()
        return await self.keys(request)

    async def plan_faults(self, request: Request) -> Response:
        fault = Fault.model_validate_json(await request.body())
        self._faults.extend([fault] * fault.times)
        return JSONResponse({"planned": len(self._faults)})


def _route(method: str, path: str, handler: Handler) -> Route:
    async def guarded(request: Request) -> Response:
        if request.headers.get("Authorization") != f"Bearer {DEVELOPMENT_TOKEN}":
            return JSONResponse({"error": "unauthorized"}, 401)
        return await handler(request)

    return Route(path, guarded, methods=[method])


def _destination(request: Request) -> str:
    """Take the destination as it was sent: decoding it would change the JWT's `sub`."""
    raw: bytes = request.scope["raw_path"]
    query: bytes = request.scope["query_string"]
    destination = raw.decode("ascii").removeprefix("/v2/publish/")
    return f"{destination}?{query.decode('ascii')}" if query else destination


def _ids(body: bytes, name: str) -> list[str]:
    return TypeAdapter(dict[str, list[str]]).validate_json(body).get(name, [])


def _page(
    rows: list[dict[str, object]], request: Request, name: str, time_field: str, most: int
) -> dict[str, object]:
    """Filter and cut a list; `cursor` is where the next page starts."""
    query = request.query_params
    found = [row for row in rows if _matches(row, query, time_field)]
    try:
        start, count = int(query.get("cursor", "0")), min(int(query.get("count", most)), most)
    except ValueError as error:
        raise BadRequest("invalid cursor or count") from error
    page: dict[str, object] = {name: found[start : start + count]}
    if len(found) > start + count:
        page["cursor"] = str(start + count)
    return page


def _matches(row: dict[str, Any], query: QueryParams, time_field: str) -> bool:
    ids = query.getlist("messageIds")
    fields = ("messageId", "state", "url", "label", "responseStatus")
    return (
        all(str(row.get(field)) == query[field] for field in fields if field in query)
        and (not ids or row["messageId"] in ids)
        and float(query.get("fromDate", 0)) <= row[time_field] <= float(query.get("toDate", 1e18))
    )


async def _break_off() -> AsyncIterator[bytes]:
    yield json.dumps({"messageId": "msg_"}).encode()[:5]


def _not_found() -> Response:
    return JSONResponse({"error": "not found"}, 404)


async def _bad_request(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, 400)


if __name__ == "__main__":
    parser = ArgumentParser(description="Run the QStash stand-in on loopback.")
    parser.add_argument("--port", type=int, default=8080)
    port = parser.parse_args().port
    uvicorn.run(QStashServer().app, host="127.0.0.1", port=port, log_level="warning")
