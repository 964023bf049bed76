"""A development tool: a QStash message, read from the headers that publish it."""

import base64
import hashlib
import math
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from simpleeval import SimpleEval

DEFAULT_RETRIES = 3
DEFAULT_TIMEOUT_SECONDS = 900.0
LONGEST_BACKOFF_SECONDS = 86_400.0
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


@dataclass(frozen=True)
class FlowControl:
    """How many deliveries with one key may run at once, and start within a period."""

    key: str
    parallelism: int | None
    rate: int | None
    period: float = 1


@dataclass
class Message:
    """One message; `ended_at` is set when it was delivered, given up, or cancelled."""

    url: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)  # as published, lower case
    method: str = "POST"
    forward: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    retries: int = DEFAULT_RETRIES
    retry_delay: str | None = None
    timeout: float = DEFAULT_TIMEOUT_SECONDS
    callback: str | None = None
    callback_options: dict[str, str] = field(default_factory=dict)
    failure_callback: str | None = None
    failure_callback_options: dict[str, str] = field(default_factory=dict)
    flow_control: FlowControl | None = None
    label: str | None = None
    redacted: frozenset[str] = frozenset()
    deduplication_id: str | None = None
    message_id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")
    created_at: float = field(default_factory=time.time)
    retried: int = 0
    ended_at: float | None = None

    def shown(self) -> dict[str, object]:
        """The message as the API shows it: times in milliseconds, redacted where asked."""
        shown: dict[str, object] = {
            "messageId": self.message_id,
            "url": self.url,
            "method": self.method,
            "header": {name: [self._header(name)] for name in self.forward},
            "maxRetries": self.retries,
            "createdAt": round(self.created_at * 1000),
            "notBefore": round((self.created_at + self.delay) * 1000),
            "callback": self.callback,
            "failureCallback": self.failure_callback,
            "retryDelayExpression": self.retry_delay,
            "label": self.label,
        }
        if self.flow_control:
            shown["flowControlKey"] = self.flow_control.key
            shown["parallelism"] = self.flow_control.parallelism
            shown["rate"] = self.flow_control.rate
            shown["period"] = round(self.flow_control.period)
        if "body" in self.redacted:
            shown["body"] = _redact(self.body)
        else:
            shown |= text_or_base64("body", self.body)
        return {name: value for name, value in shown.items() if value is not None}

    def backoff(self) -> float:
        """Seconds until the next try: the publisher's wish, or the documented default."""
        if self.retry_delay is not None:
            return _evaluate(self.retry_delay, retried=self.retried) / 1000
        return min(LONGEST_BACKOFF_SECONDS, math.exp(2.5 * (self.retried + 1)))

    def _header(self, name: str) -> str:
        value = self.forward[name]
        is_redacted = "header" in self.redacted or f"header[{name}]" in self.redacted
        return _redact(value.encode()) if is_redacted else value


def read_message(destination: str, headers: Mapping[str, str], body: bytes) -> Message:
    """Make a message from a publish; header names are lower case. Raises: BadRequest."""
    retry_delay = headers.get("upstash-retry-delay")
    if retry_delay is not None:
        _evaluate(retry_delay, retried=0)
    callback = headers.get("upstash-callback")
    failure_callback = headers.get("upstash-failure-callback")
    return Message(
        url=_checked_url(destination),
        body=body,
        headers=dict(headers),
        method=headers.get("upstash-method", "POST"),
        forward=_forwarded(headers),
        delay=_delay(headers),
        retries=_whole_number(headers.get("upstash-retries", str(DEFAULT_RETRIES))),
        retry_delay=retry_delay,
        timeout=_seconds(headers.get("upstash-timeout", f"{DEFAULT_TIMEOUT_SECONDS:.0f}s")),
        callback=_checked_url(callback) if callback else None,
        callback_options=_options(headers, "upstash-callback-"),
        failure_callback=_checked_url(failure_callback) if failure_callback else None,
        failure_callback_options=_options(headers, "upstash-failure-callback-"),
        flow_control=_flow_control(headers),
        label=headers.get("upstash-label"),
        redacted=_redacted_fields(headers),
        deduplication_id=_deduplication_id(destination, headers, body),
    )


def text_or_base64(name: str, content: bytes) -> dict[str, str]:
    """Show content as text, or under another name if it is not UTF-8."""
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": base64.b64encode(content).decode()}


def _forwarded(headers: Mapping[str, str]) -> dict[str, str]:
    forward = _options(headers, "upstash-forward-", renamed="")
    if "content-type" in headers:
        forward.setdefault("content-type", headers["content-type"])
    return forward


def _options(headers: Mapping[str, str], prefix: str, renamed: str = "upstash-") -> dict[str, str]:
    """`upstash-callback-retries: 1` is `upstash-retries: 1` for the callback's message."""
    return {
        renamed + name.removeprefix(prefix): value
        for name, value in headers.items()
        if name.startswith(prefix)
    }


def _delay(headers: Mapping[str, str]) -> float:
    if not_before := headers.get("upstash-not-before"):
        return max(0.0, _whole_number(not_before) - time.time())
    return _seconds(headers.get("upstash-delay", "0s"))


def _deduplication_id(destination: str, headers: Mapping[str, str], body: bytes) -> str | None:
    if headers.get("upstash-content-based-deduplication", "").lower() == "true":
        content = repr((destination, sorted(_forwarded(headers).items()), body))
        return f"content:{hashlib.sha256(content.encode()).hexdigest()}"
    return headers.get("upstash-deduplication-id")


def _flow_control(headers: Mapping[str, str]) -> FlowControl | None:
    """Read `Upstash-Flow-Control-Value: parallelism=2, rate=3, period=60s`."""
    key = headers.get("upstash-flow-control-key")
    if key is None:
        return None
    value = headers.get("upstash-flow-control-value", "")
    pairs = [part.strip().partition("=") for part in value.split(",")]
    given = {name: text for name, _, text in pairs}
    if not given.keys() <= {"parallelism", "rate", "period"} or given.keys() <= {"period"}:
        raise BadRequest(f"invalid flow control value: {value}")
    parallelism, rate = (
        _whole_number(given[name]) if name in given else None for name in ("parallelism", "rate")
    )
    return FlowControl(key, parallelism, rate, _seconds(given.get("period", "1s")))


def _redacted_fields(headers: Mapping[str, str]) -> frozenset[str]:
    names = headers.get("upstash-redact-fields", "").lower().split(",")
    fields = frozenset(name.strip() for name in names if name.strip())
    if any(not re.fullmatch(r"body|header|header\[[^\]]+\]", name) for name in fields):
        raise BadRequest("invalid redact fields")
    return fields


def _redact(value: bytes) -> str:
    return f"REDACTED:{hashlib.sha256(value).hexdigest()}"


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest("invalid destination url: must begin with http:// or https://")
    return url


def _seconds(text: str) -> float:
    """Read a duration such as 10s or 1h30m3s."""
    if not re.fullmatch(r"(\d+[smhd])+", text):
        raise BadRequest(f"invalid duration: {text}")
    return float(sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(.)", text)))


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
