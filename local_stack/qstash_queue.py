"""A development tool: delivers QStash messages, each in a task of its own, so that none blocks
another; keeps those that were given up.
"""

import asyncio
import base64
import hashlib
import json
import math
import re
import time
import uuid
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt

from common.settings import DEVELOPMENT_SIGNING_KEYS
from local_stack.qstash_message import (
    CALLER_IP,
    MAX_BACKOFF_SECONDS,
    Message,
    read_duration,
    text_or_base64,
)

DEDUPLICATION_SECONDS = 600
KEPT_SECONDS = 60
RETRY_AFTER = (
    "Retry-After",
    "X-RateLimit-Reset",
    "X-RateLimit-Reset-Requests",
    "X-RateLimit-Reset-Tokens",
)
UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}

CURRENT_SIGNING_KEY, NEXT_SIGNING_KEY = DEVELOPMENT_SIGNING_KEYS


@dataclass
class DeadLetter:
    """A message that was given up, with the last answer it got; its status is 0 if none came."""

    message: Message
    answer: httpx.Response
    dlq_id: str = field(default_factory=lambda: f"{time.time_ns()}-0")

    def shown(self) -> dict[str, object]:
        return {
            **self.message.shown(),
            **text_or_base64("responseBody", self.answer.content),
            "dlqId": self.dlq_id,
            "responseStatus": self.answer.status_code,
            "responseHeader": self._headers(),
        }

    def report(self) -> dict[str, object]:
        """The body of a failure callback.

        Source: https://upstash.com/docs/qstash/features/callbacks
        """
        shown = self.message.shown()
        return {
            "status": self.answer.status_code,
            "header": self._headers(),
            "body": base64.b64encode(self.answer.content).decode(),
            "retried": self.message.retried,
            "maxRetries": self.message.retries,
            "dlqId": self.dlq_id,
            "sourceMessageId": self.message.message_id,
            "url": self.message.url,
            "method": self.message.method,
            "sourceHeader": shown["header"],
            "sourceBody": base64.b64encode(self.message.body).decode(),
            "notBefore": str(shown["notBefore"]),
            "createdAt": str(shown["createdAt"]),
            "callerIP": CALLER_IP,
        }

    def _headers(self) -> dict[str, list[str]]:
        return {name: self.answer.headers.get_list(name) for name in self.answer.headers}


class MessageQueue:
    """All messages, from when they are accepted until a minute after their end."""

    def __init__(self) -> None:
        self.current_key, self.next_key = DEVELOPMENT_SIGNING_KEYS
        self.messages: dict[str, Message] = {}
        self.dead_letters: dict[str, DeadLetter] = {}
        self._tasks: dict[str, asyncio.Task[object]] = {}  # of the messages that have not ended
        self._deduplicated: dict[str, str] = {}
        self._limits: dict[tuple[str | None, int], asyncio.Semaphore] = {}
        # Idle connections are not kept: the pool would look at each of them for each request.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(timeout=None, limits=limits)  # noqa: S113 (_post limits)

    def accept(self, message: Message, *, is_duplicated: bool = False) -> dict[str, object]:
        """Accept a message, unless one with its deduplication id was accepted lately.

        If it `is_duplicated`, it is delivered once more beside, as "at least once" allows.
        """
        message_id, key = message.message_id, message.deduplication_id
        if key is not None:
            if key in self._deduplicated:
                return {"messageId": self._deduplicated[key], "deduplicated": True}
            self._deduplicated[key] = message_id
            loop = asyncio.get_running_loop()
            loop.call_later(DEDUPLICATION_SECONDS, self._deduplicated.pop, key)
        self.messages[message_id] = message
        self._start(message_id, self._run(message))
        if is_duplicated:
            self._start(f"{message_id} again", self._deliver(message, message.delay))
        return {"messageId": message_id}

    def cancel(self, message_id: str) -> bool:
        """Stop a message; False when there is none that could be stopped."""
        task = self._tasks.pop(message_id, None)
        return task is not None and task.cancel()

    def rotate_keys(self) -> None:
        """Sign with the next key from now on; until then receivers accept both."""
        self.current_key, self.next_key = self.next_key, f"sig_{uuid.uuid4().hex[:28]}"

    def _start(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        task = self._tasks[name] = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._end(name))

    def _end(self, name: str) -> None:
        self._tasks.pop(name, None)
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self.messages.pop, name, None)

    async def _run(self, message: Message) -> None:
        """Deliver until it works, may not be retried, or retries are used up."""
        answer = await self._deliver(message, message.delay)
        while not answer.is_success:
            if _is_final(answer) or message.retried >= message.retries:
                self._give_up(message, answer)
                break
            seconds = seconds_until_retry(message, answer.headers, datetime.now(UTC))
            message.retried += 1
            answer = await self._deliver(message, seconds)

    async def _deliver(self, message: Message, seconds: float) -> httpx.Response:
        """Wait, then try once, when flow control has room."""
        await asyncio.sleep(seconds)
        async with self._room(message):
            answer = await self._post(message)
        status = answer.status_code or "no answer"
        print(f"{message.message_id} delivered to {message.url}: {status}", flush=True)
        return answer

    def _room(self, message: Message) -> AbstractAsyncContextManager[object]:
        """Holds a delivery back while as many with its flow-control key are running."""
        if message.parallelism is None:
            return nullcontext()
        key = message.flow_control_key, message.parallelism
        return self._limits.setdefault(key, asyncio.Semaphore(message.parallelism))

    async def _post(self, message: Message) -> httpx.Response:
        headers = {
            **message.forward,
            "User-Agent": "Upstash-QStash",
            "Upstash-Signature": sign(message.url, message.body, self.current_key),
            "Upstash-Message-Id": message.message_id,
            "Upstash-Retried": str(message.retried),
            "Upstash-Caller-Ip": CALLER_IP,
        }
        try:
            async with asyncio.timeout(message.timeout):
                return await self._client.request(
                    message.method, message.url, content=message.body, headers=headers
                )
        except (httpx.HTTPError, TimeoutError):
            return httpx.Response(0)

    def _give_up(self, message: Message, answer: httpx.Response) -> None:
        print(f"{message.message_id} given up after {message.retried} retries", flush=True)
        letter = DeadLetter(message, answer)
        self.dead_letters[letter.dlq_id] = letter
        if message.failure_callback:
            self.accept(
                Message(
                    message.failure_callback,
                    json.dumps(letter.report()).encode(),
                    {"content-type": "application/json"} | message.failure_callback_forward,
                    retries=message.retries,
                )
            )


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


def seconds_until_retry(message: Message, headers: Mapping[str, str], now: datetime) -> float:
    """How long to wait, now: as the answer asks, if that is a day or less, or by its backoff.

    Source: https://upstash.com/docs/qstash/features/retry#retry-after-headers
    """
    asked = (_requested_delay(headers[name], now) for name in RETRY_AFTER if name in headers)
    seconds = next((delay for delay in asked if delay is not None), math.inf)
    return seconds if seconds <= MAX_BACKOFF_SECONDS else message.backoff()


def _requested_delay(text: str, now: datetime) -> float | None:
    """Read seconds, a duration such as 6m5s, or an HTTP date; None: it is none of them."""
    if re.fullmatch(r"\d+", text, re.ASCII):
        return float(text)
    try:
        date = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return read_duration(text, UNITS, r"\d+(?:\.\d+)?")
    return max(0.0, (date - now).total_seconds())


def _is_final(answer: httpx.Response) -> bool:
    is_final = answer.headers.get("Upstash-NonRetryable-Error", "").lower() == "true"
    return answer.status_code == 489 and is_final
