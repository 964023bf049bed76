"""A development tool: delivers QStash messages, each in a task of its own, so that none blocks
another; keeps those that were given up, and what happened to all of them.
"""

import asyncio
import base64
import hashlib
import json
import time
import uuid
from collections import deque
from dataclasses import dataclass, field

import httpx
import jwt

from common.settings import DEVELOPMENT_SIGNING_KEYS
from local_stack.qstash_message import FlowControl, Message, read_message, text_or_base64

DEDUPLICATION_SECONDS = 600
KEPT_SECONDS = 60
MOST_EVENTS = 10_000

CURRENT_SIGNING_KEY, NEXT_SIGNING_KEY = DEVELOPMENT_SIGNING_KEYS


class Lane:
    """What flow control holds back: the deliveries with one key."""

    def __init__(self) -> None:
        self._running = 0
        self._starts: deque[float] = deque()
        self._changed = asyncio.Event()

    async def enter(self, control: FlowControl) -> None:
        """Wait until one more delivery may run."""
        while (wait := self._wait(control)) is not None:
            self._changed.clear()
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass
        self._running += 1
        self._starts.append(time.monotonic())

    def leave(self) -> None:
        self._running -= 1
        self._changed.set()

    def _wait(self, control: FlowControl) -> float | None:
        """Seconds until looking again is worth it, or None when there is room now."""
        if control.parallelism is not None and self._running >= control.parallelism:
            return 3600
        now = time.monotonic()
        while self._starts and now - self._starts[0] >= control.period:
            self._starts.popleft()
        if control.rate is not None and len(self._starts) >= control.rate:
            return self._starts[0] + control.period - now
        return None


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


class Courier:
    """All messages, from being taken until a minute after their end."""

    def __init__(self) -> None:
        self.current_key, self.next_key = CURRENT_SIGNING_KEY, NEXT_SIGNING_KEY
        self.dead_letters: dict[str, DeadLetter] = {}
        self.events: deque[dict[str, object]] = deque(maxlen=MOST_EVENTS)
        self._messages: dict[str, Message] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._lanes: dict[str, Lane] = {}
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
        self._note(message, "CREATED")
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

    def waiting(self) -> list[str]:
        """The ids of the messages that have not ended."""
        return [id for id, message in self._messages.items() if message.ended_at is None]

    def cancel(self, message_id: str) -> bool:
        """Stop a message; False when there is none that could be stopped."""
        message = self._messages.get(message_id)
        if message is None or message.ended_at is not None:
            return False
        message.ended_at = time.time()
        self._tasks[message_id].cancel()
        self._note(message, "CANCELED")
        return True

    def retry(self, dlq_id: str, overrides: dict[str, str]) -> dict[str, object] | None:
        """Take a dead letter as a new message, some of its headers replaced."""
        letter = self.dead_letters.get(dlq_id)
        if letter is None:
            return None
        once = ("upstash-delay", "upstash-not-before", "upstash-deduplication-id")
        kept = {name: value for name, value in letter.message.headers.items() if name not in once}
        replaced = {name: text for name, text in overrides.items() if name.startswith("upstash-")}
        fresh = read_message(letter.message.url, kept | replaced, letter.message.body)
        del self.dead_letters[dlq_id]
        return self.take(fresh)

    def rotate_keys(self) -> None:
        """Sign with the next key from now on; until then receivers accept both."""
        self.current_key, self.next_key = self.next_key, f"sig_{uuid.uuid4().hex[:28]}"

    async def _run(self, message: Message) -> None:
        """Deliver until it works, may not be retried, or retries are used up."""
        await asyncio.sleep(message.delay)
        while True:
            answer = await self._deliver(message)
            is_last = _is_final(answer) or message.retried >= message.retries
            if answer is not None and answer.is_success:
                self._note(message, "DELIVERED", answer)
                break
            self._note(message, "ERROR", answer)
            if is_last:
                self._give_up(message, answer)
                break
            delay = _seconds_until_retry(message, answer)
            self._call_back(message, answer)
            message.retried += 1
            self._note(message, "RETRY", next_delivery=time.time() + delay)
            await asyncio.sleep(delay)
        message.ended_at = time.time()
        self._call_back(message, answer)

    async def _deliver_after_delay(self, message: Message) -> None:
        await asyncio.sleep(message.delay)
        await self._deliver(message)

    async def _deliver(self, message: Message) -> httpx.Response | None:
        """Try once, when flow control has room. None: no answer in time."""
        control = message.flow_control
        lane = self._lanes.setdefault(control.key, Lane()) if control else None
        if lane and control:
            await lane.enter(control)
        try:
            self._note(message, "ACTIVE")
            answer = await self._post(message)
        finally:
            if lane:
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
        self._note(message, "FAILED", answer)
        letter = DeadLetter(message, *_parts(answer))
        self.dead_letters[letter.dlq_id] = letter
        if message.failure_callback:
            report = {**_report(message, answer), "dlqId": letter.dlq_id}
            options = message.failure_callback_options
            self.take(_callback_message(message.failure_callback, options, report))

    def _call_back(self, message: Message, answer: httpx.Response | None) -> None:
        if message.callback:
            report = _report(message, answer)
            self.take(_callback_message(message.callback, message.callback_options, report))

    def _note(
        self,
        message: Message,
        state: str,
        answer: httpx.Response | None = None,
        next_delivery: float | None = None,
    ) -> None:
        event = message.shown() | {"time": round(time.time() * 1000), "state": state}
        event["retryDelayExpr"] = event.pop("retryDelayExpression", None)
        if next_delivery is not None:
            event["nextDeliveryTime"] = round(next_delivery * 1000)
        if state in ("ERROR", "FAILED", "DELIVERED"):
            event["responseStatus"], event["responseHeader"], content = _parts(answer)
            event |= text_or_base64("responseBody", content)
        self.events.appendleft({name: value for name, value in event.items() if value is not None})

    def _forget_old(self) -> None:
        """At most once a second: with thousands of messages, looking at each takes a while."""
        now = time.time()
        if now < self._forget_at:
            return
        self._forget_at = now + 1
        self._messages = {
            id: message
            for id, message in self._messages.items()
            if message.ended_at is None or now - message.ended_at < KEPT_SECONDS
        }
        self._deduplicated = {
            id: (message_id, taken_at)
            for id, (message_id, taken_at) in self._deduplicated.items()
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


def _seconds_until_retry(message: Message, answer: httpx.Response | None) -> float:
    wish = answer.headers.get("Retry-After", "") if answer is not None else ""
    return float(wish) if wish.isdecimal() else message.backoff()


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
        {name: [text] for name, text in answer.headers.items()},
        answer.content,
    )


def _callback_message(url: str, options: dict[str, str], report: dict[str, object]) -> Message:
    headers = {"content-type": "application/json", **options}
    return read_message(url, headers, json.dumps(report).encode())


def _report(message: Message, answer: httpx.Response | None) -> dict[str, object]:
    """The body of a callback. Source: https://upstash.com/docs/qstash/features/callbacks"""
    status, headers, content = _parts(answer)
    return {
        "status": status,
        "header": headers,
        "body": base64.b64encode(content).decode(),
        "retried": message.retried,
        "maxRetries": message.retries,
        "sourceMessageId": message.message_id,
        "url": message.url,
        "method": message.method,
        "sourceHeader": {name: [value] for name, value in message.forward.items()},
        "sourceBody": base64.b64encode(message.body).decode(),
        "notBefore": round((message.created_at + message.delay) * 1000),
        "createdAt": round(message.created_at * 1000),
    }
