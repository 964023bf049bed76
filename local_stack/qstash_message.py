"""A development tool: a QStash message, read from the headers that publish it."""

import base64
import math
import re
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from simpleeval import SimpleEval

MAX_BACKOFF_SECONDS = 86_400.0
CALLER_IP = "127.0.0.1"  # the stand-in answers to nobody else
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


class NotHere(Exception):
    """Somebody asked for something that QStash may have, and this stand-in has not."""


@dataclass
class Message:
    """One message; `ended_at` is set when it was delivered, given up, or cancelled."""

    url: str
    body: bytes
    forward: dict[str, str] = field(default_factory=dict)  # names in lower case; so in the next
    failure_callback_forward: dict[str, str] = field(default_factory=dict)
    method: str = "POST"
    delay: float = 0
    retries: int = 3
    retry_delay: str | None = None
    timeout: float = 900
    deduplication_id: str | None = None
    failure_callback: str | None = None
    flow_control_key: str | None = None
    parallelism: int | None = None
    labels: list[str] | None = None
    message_id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")
    created_at: float = field(default_factory=time.time)
    retried: int = 0
    ended_at: float | None = None

    def shown(self) -> dict[str, object]:
        """The message as the API shows it: times in milliseconds, lists of header values."""
        shown = {
            "messageId": self.message_id,
            "url": self.url,
            "method": self.method,
            "header": {name: [value] for name, value in self.forward.items()},
            "maxRetries": self.retries,
            "createdAt": round(self.created_at * 1000),
            "notBefore": round((self.created_at + self.delay) * 1000),
            "failureCallback": self.failure_callback,
            "retryDelayExpression": self.retry_delay,
            "flowControlKey": self.flow_control_key,
            "parallelism": self.parallelism,
            "label": self.labels[0] if self.labels else None,
            "labels": self.labels,
            "callerIP": CALLER_IP,
            **text_or_base64("body", self.body),
        }
        return {name: value for name, value in shown.items() if value is not None}

    def backoff(self) -> float:
        """Seconds until the next try: the publisher's wish, or the documented default."""
        if self.retry_delay is not None:
            return _evaluate(self.retry_delay, retried=self.retried) / 1000
        return min(MAX_BACKOFF_SECONDS, math.exp(2.5 * (self.retried + 1)))


def text_or_base64(name: str, content: bytes) -> dict[str, str]:
    """Show content as text, or under another name if it is not UTF-8."""
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": base64.b64encode(content).decode()}


def read_message(destination: str, headers: Iterable[tuple[str, str]], body: bytes) -> Message:
    """Make a message from a publish; header names are lower case. Raises: BadRequest, NotHere."""
    given: dict[str, Any] = {into: {} for into in FORWARDING.values()}
    for name, value in headers:
        if name in HEADERS:
            into, read = HEADERS[name]
            given[into] = read(value)
        for prefix, into in FORWARDING.items():
            if name.startswith(prefix):
                given[into][name.removeprefix(prefix)] = value
        if name == "content-type":
            given["forward"].setdefault(name, value)
    message = Message(_url(destination), body, **given)
    if (message.flow_control_key is None) != (message.parallelism is None):
        raise BadRequest("flow control needs a key and a value")
    return message


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(f"invalid url: {text}: must begin with http:// or https://")
    return text


def _method(text: str) -> str:
    if text not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        raise BadRequest(f"invalid method: {text}")
    return text


def _seconds(text: str) -> float:
    """Read a duration such as 10s or 1h30m3s."""
    if not re.fullmatch(r"(\d+[smhd])+", text, re.ASCII):
        raise BadRequest(f"invalid duration: {text}")
    return float(sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)(.)", text)))


def whole_number(text: str, least: int = 0, most: int = 10**9) -> int:
    """Read a number such as 3. Raises: BadRequest."""
    if not re.fullmatch(r"\d{1,10}", text, re.ASCII) or not least <= int(text) <= most:
        raise BadRequest(f"invalid number: {text}")
    return int(text)


def _expression(text: str) -> str:
    _evaluate(text, retried=0)
    return text


def _deduplication_id(text: str) -> str:
    if re.search(r"[:\s]", text):
        raise BadRequest("DeduplicationId cannot contain ':' or whitespace")
    return text


def _parallelism(text: str) -> int:
    if unknown := re.findall(r"(?:rate|period)(?==)", text):
        raise NotHere(f"flow control by {' and '.join(unknown)}")
    return whole_number(text.removeprefix("parallelism="), least=1)


def _labels(text: str) -> list[str]:
    return [label.strip() for label in text.split(",")]


HEADERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "upstash-method": ("method", _method),
    "upstash-delay": ("delay", _seconds),
    "upstash-retries": ("retries", whole_number),
    "upstash-retry-delay": ("retry_delay", _expression),
    "upstash-timeout": ("timeout", _seconds),
    "upstash-deduplication-id": ("deduplication_id", _deduplication_id),
    "upstash-failure-callback": ("failure_callback", _url),
    "upstash-flow-control-key": ("flow_control_key", str),
    "upstash-flow-control-value": ("parallelism", _parallelism),
    "upstash-label": ("labels", _labels),
}
FORWARDING = {
    "upstash-forward-": "forward",
    "upstash-failure-callback-forward-": "failure_callback_forward",
}


def _evaluate(expression: str, *, retried: int) -> float:
    """Compute a retry delay in milliseconds."""
    try:
        value = SimpleEval(functions=FUNCTIONS, names={"retried": retried}).eval(expression)
        return max(0.0, float(value))
    except Exception as error:
        raise BadRequest(f"invalid retry delay: {expression}") from error
