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
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import jwt

from common.settings import DEVELOPMENT_SIGNING_KEYS
from local_stack.qstash_message import (
    CALLER_IP,
    MAX_BACKOFF_SECONDS,
    Message,
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


class Lane:
    """What flow control holds back: the deliveries with one key."""

    def __init__(self) -> None:
        self._running = 0
        self._changed = asyncio.Event()

    async def enter(self, parallelism: float) -> None:
        """Wait until one more delivery may run."""
        while self._running >= parallelism:
            self._changed.clear()
            await self._changed.wait()
        self._running += 1

    def leave(self) -> None:
        self._running -= 1
        self._changed.set()


@dataclass
class DeadLetter:
    """A message that was given up, with the last answer it got."""

    message: Message
    status: int
    headers: dict[str, list[str]]
    content: bytes
    dlq_id: str = field(default_factory=lambda: f"{time.time_ns()}-0")

    def shown(self) -> dict[str, object]:
        return {
            **self.message.shown(),
            **text_or_base64("responseBody", self.content),
            "dlqId": self.dlq_id,
            "responseStatus": self.status,
            "responseHeader": self.headers,
        }

    def report(self) -> dict[str, object]:
        """The body of a failure callback.

        Source: https://upstash.com/docs/qstash/features/callbacks
        """
        shown = self.message.shown()
        return {
            "status": self.status,
            "header": self.headers,
            "body": base64.b64encode(self.content).decode(),
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
            "callerIP": shown["callerIP"],
        }


class Courier:
    """All messages, from being taken until a minute after their end."""

    def __init__(self) -> None:
        self.current_key, self.next_key = CURRENT_SIGNING_KEY, NEXT_SIGNING_KEY
        self.dead_letters: dict[str, DeadLetter] = {}
        self._messages: dict[str, Message] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lanes: dict[str | None, Lane] = {}
        self._deduplicated: dict[str, tuple[str, float]] = {}
        self._forget_at = 0.0
        # Idle connections are not kept: the pool would look at each of them for each request.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(timeout=None, limits=limits)  # noqa: S113 (_post limits)

    def take(self, message: Message) -> dict[str, object]:
        """Accept a message, unless one with its deduplication id was accepted lately."""
        self._forget_old()
        if message.deduplication_id is not None:
            known, _ = self._deduplicated.get(message.deduplication_id, (None, 0))
            if known:
                return {"messageId": known, "deduplicated": True}
            self._deduplicated[message.deduplication_id] = (message.message_id, time.time())
        self._messages[message.message_id] = message
        task = asyncio.create_task(self._run(message))
        self._tasks[message.message_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(message.message_id, None))
        return {"messageId": message.message_id}

    def deliver_twice(self, message_id: str) -> None:
        """Deliver a message once more, beside its own course, as "at least once" allows."""
        message = self._messages[message_id]
        task = asyncio.create_task(self._deliver_after_delay(message))
        self._tasks[f"{message_id} again"] = task
        task.add_done_callback(lambda _: self._tasks.pop(f"{message_id} again", None))

    def find(self, message_id: str) -> Message | None:
        """A message that waits, or has ended within the last minute."""
        self._forget_old()
        return self._messages.get(message_id)

    def cancel(self, message_id: str) -> bool:
        """Stop a message; False when there is none that could be stopped."""
        message = self._messages.get(message_id)
        if message is None or message.ended_at is not None:
            return False
        message.ended_at = time.time()
        self._tasks[message_id].cancel()
        return True

    def rotate_keys(self) -> None:
        """Sign with the next key from now on; until then receivers accept both."""
        self.current_key, self.next_key = self.next_key, f"sig_{uuid.uuid4().hex[:28]}"

    async def _run(self, message: Message) -> None:
        """Deliver until it works, may not be retried, or retries are used up."""
        await asyncio.sleep(message.delay)
        while True:
            answer = await self._deliver(message)
            if answer is not None and answer.is_success:
                break
            if _is_final(answer) or message.retried >= message.retries:
                self._give_up(message, answer)
                break
            headers = answer.headers if answer is not None else {}
            await asyncio.sleep(seconds_until_retry(message, headers, datetime.now(UTC)))
            message.retried += 1
        message.ended_at = time.time()

    async def _deliver_after_delay(self, message: Message) -> None:
        await asyncio.sleep(message.delay)
        await self._deliver(message)

    async def _deliver(self, message: Message) -> httpx.Response | None:
        """Try once, when flow control has room. None: no answer in time."""
        lane = self._lanes.setdefault(message.flow_control_key, Lane())
        await lane.enter(message.parallelism or math.inf)
        try:
            answer = await self._post(message)
        finally:
            lane.leave()
        status = answer.status_code if answer is not None else "no answer"
        print(f"{message.message_id} delivered to {message.url}: {status}", flush=True)
        return answer

    async def _post(self, message: Message) -> httpx.Response | None:
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
            return None

    def _give_up(self, message: Message, answer: httpx.Response | None) -> None:
        print(f"{message.message_id} given up after {message.retried} retries", flush=True)
        letter = DeadLetter(message, *_parts(answer))
        self.dead_letters[letter.dlq_id] = letter
        if message.failure_callback:
            self.take(
                Message(
                    message.failure_callback,
                    json.dumps(letter.report()).encode(),
                    {"content-type": "application/json"} | message.failure_callback_forward,
                    retries=message.retries,
                )
            )

    def _forget_old(self) -> None:
        """At most once a second: with thousands of messages, looking at each takes a while."""
        now = time.time()
        if now < self._forget_at:
            return
        self._forget_at = now + 1
        self._messages = {
            key: message
            for key, message in self._messages.items()
            if message.ended_at is None or now - message.ended_at < KEPT_SECONDS
        }
        self._deduplicated = {
            key: (message_id, taken_at)
            for key, (message_id, taken_at) in self._deduplicated.items()
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


def seconds_until_retry(message: Message, headers: Mapping[str, str], now: datetime) -> float:
    """How long to wait, now: as the answer asks, if that is a day or less, or by its backoff.

    Source: https://upstash.com/docs/qstash/features/retry#retry-after-headers
    """
    wishes = (_wish(headers[name], now) for name in RETRY_AFTER if name in headers)
    wish = next((wish for wish in wishes if wish is not None), math.inf)
    return wish if wish <= MAX_BACKOFF_SECONDS else message.backoff()


def _wish(text: str, now: datetime) -> float | None:
    """Read seconds, a duration such as 6m5s, or an HTTP date; None: it is none of them."""
    if re.fullmatch(r"\d+", text, re.ASCII):
        return float(text)
    number = r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)"
    if re.fullmatch(f"({number})+", text, re.ASCII):
        return sum(float(value) * UNITS[unit] for value, unit in re.findall(number, text))
    try:
        date = datetime.strptime(text, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None
    return max(0.0, (date - now).total_seconds())


def _is_final(answer: httpx.Response | None) -> bool:
    return (
        answer is not None
        and answer.status_code == 489
        and answer.headers.get("Upstash-NonRetryable-Error", "").lower() == "true"
    )


def _parts(answer: httpx.Response | None) -> tuple[int, dict[str, list[str]], bytes]:
    if answer is None:
        return 0, {}, b"no answer"
    return (
        answer.status_code,
        {name: answer.headers.get_list(name) for name in answer.headers},
        answer.content,
    )
