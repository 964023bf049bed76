"""A development tool: a QStash message, read and checked from the headers that publish it."""

import base64
import math
import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass
from simpleeval import SimpleEval

MAX_BACKOFF_SECONDS = 86_400.0
CALLER_IP = "127.0.0.1"  # the stand-in answers nobody else
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
FUNCTIONS = {
    function.__name__: function
    for function in (math.pow, math.sqrt, abs, math.exp, math.floor, math.ceil, round, min, max)
}
HEADERS = {  # and the field of the message that each becomes
    "upstash-method": "method",
    "upstash-delay": "delay",
    "upstash-retries": "retries",
    "upstash-retry-delay": "retry_delay",
    "upstash-timeout": "timeout",
    "upstash-deduplication-id": "deduplication_id",
    "upstash-failure-callback": "failure_callback",
    "upstash-flow-control-key": "flow_control_key",
    "upstash-flow-control-value": "parallelism",
    "upstash-label": "labels",
}
FORWARD, CALLBACK_FORWARD = FORWARDING = "upstash-forward-", "upstash-failure-callback-forward-"


class BadRequest(ValueError):
    """QStash would not accept this request."""


class NotSupported(Exception):
    """QStash may have what was asked for; this stand-in does not."""


def read_duration(text: str, units: Mapping[str, float], number: str = r"\d+") -> float | None:
    """Read a duration such as 10s or 1h30m3s, in seconds; None if it is not one."""
    part = rf"({number})({'|'.join(units)})"
    if not re.fullmatch(f"({part})+", text, re.ASCII):
        return None
    return sum(float(value) * units[unit] for value, unit in re.findall(part, text, re.ASCII))


def _check_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(f"invalid url: {text}: must begin with http:// or https://")
    return text


def _check_expression(text: str) -> str:
    _evaluate(text, retried=0)
    return text


def _read_duration(text: str) -> float:
    seconds = read_duration(text, UNITS)
    if seconds is None:
        raise BadRequest(f"invalid duration: {text}")
    return seconds


def _read_parallelism(text: str) -> str:
    if unknown := re.findall(r"(?:rate|period)(?==)", text):
        raise NotSupported(f"flow control by {' and '.join(unknown)}")
    return text.removeprefix("parallelism=")


def _read_labels(text: str) -> list[str]:
    return [label.strip() for label in text.split(",")]


Url = Annotated[str, AfterValidator(_check_url)]
Seconds = Annotated[float, BeforeValidator(_read_duration)]


@dataclass
class Message:
    """One message. It is made from the texts of headers, which are checked and converted."""

    url: Url
    body: bytes
    forward: dict[str, str] = field(default_factory=dict)  # names in lower case; so in the next
    failure_callback_forward: dict[str, str] = field(default_factory=dict)
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    delay: Seconds = 0
    retries: Annotated[int, Field(ge=0)] = 3
    retry_delay: Annotated[str, AfterValidator(_check_expression)] | None = None
    timeout: Seconds = 900
    deduplication_id: Annotated[str, Field(pattern=r"^[^:\s]*$")] | None = None
    failure_callback: Url | None = None
    flow_control_key: str | None = None
    parallelism: Annotated[int, Field(ge=1), BeforeValidator(_read_parallelism)] | None = None
    labels: Annotated[list[str], BeforeValidator(_read_labels)] | None = None
    message_id: str = field(default_factory=lambda: f"msg_{uuid.uuid4().hex}")
    created_at: float = field(default_factory=time.time)
    retried: int = 0

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
        """Seconds until the next delivery: by the publisher's expression, or the default."""
        if self.retry_delay is not None:
            return _evaluate(self.retry_delay, retried=self.retried) / 1000
        return min(MAX_BACKOFF_SECONDS, math.exp(2.5 * (self.retried + 1)))


def read_message(destination: str, headers: Iterable[tuple[str, str]], body: bytes) -> Message:
    """Make a message from a publish; header names are lower case.

    Raises: ValueError, NotSupported.
    """
    given = dict(headers)
    forward = _forwarded(given, FORWARD)
    if "content-type" in given:
        forward.setdefault("content-type", given["content-type"])
    fields: dict[str, Any] = {HEADERS[name]: given[name] for name in given if name in HEADERS}
    message = Message(destination, body, forward, _forwarded(given, CALLBACK_FORWARD), **fields)
    if (message.flow_control_key is None) != (message.parallelism is None):
        raise BadRequest("flow control needs a key and a value")
    return message


def text_or_base64(name: str, content: bytes) -> dict[str, str]:
    """Show content as text, or under another name if it is not UTF-8."""
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {f"{name}Base64": base64.b64encode(content).decode()}


def _forwarded(headers: Mapping[str, str], prefix: str) -> dict[str, str]:
    return {
        name.removeprefix(prefix): value
        for name, value in headers.items()
        if name.startswith(prefix)
    }


def _evaluate(expression: str, *, retried: int) -> float:
    """Compute a retry delay in milliseconds."""
    try:
        value = SimpleEval(functions=FUNCTIONS, names={"retried": retried}).eval(expression)
        return max(0.0, float(value))
    except Exception as error:
        raise BadRequest(f"invalid retry delay: {expression}") from error
