"""QStash: publish the message that makes an analysis run, and cancel it. Only importer of qstash.

A message carries `{"requestId": …, "round": …}` and nothing personal.
Source: https://upstash.com/docs/qstash/api/publish
"""

import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import Any, NamedTuple

import httpx
from qstash import AsyncQStash
from qstash.dlq import DlqFilter
from qstash.errors import DailyMessageLimitExceededError, QStashError, RateLimitExceededError
from qstash.message import FlowControl, PublishResponse

from common.answer_size import UNCOMPRESSED, AnswerTooLarge, read_limited
from common.deadline import PerLoop, run_within
from common.logs import get_logger
from common.record import AnalysisRecord
from common.settings import Settings
from common.times import QSTASH_DELIVERIES
from common.tracing import headers, span
from common.unreachable import reason

ANSWER_SECONDS = 4.0  # a person is waiting
FLOW_CONTROL_KEY = "analysis"

log = get_logger(__name__)


class QStashRefused(Exception):
    """QStash has done nothing of what was asked; `status` is its answer's, None without one."""

    def __init__(self, cause: str, status: int | None = None) -> None:
        super().__init__(cause)
        self.status = status


class QStashAway(QStashRefused):
    """QStash is not there: nothing has reached it."""


class QStashUnclear(Exception):
    """Nobody knows whether QStash did it. Publishing a message again makes no second one."""


class QStashUnreadable(QStashUnclear):
    """What answered is not QStash, or a version of it that we don't know."""


class DeadLetter(NamedTuple):
    """A message that rests in QStash's dead-letter queue (for 3 days on the free plan)."""

    request_id: str
    dlq_id: str
    message_id: str
    response_status: int


class Queue:
    """The messages waiting at QStash."""

    def __init__(self, settings: Settings) -> None:
        # Its own retries sleep up to 32 s; a publish that failed is repeated by submission.py.
        self._settings = settings
        self._clients = PerLoop(self._make_client)

    @span("publish")
    def publish(self, record: AnalysisRecord, *, now: datetime, is_first: bool = False) -> str:
        """Publish this round's message and return its id.

        Safe to call again within QStash's 10 minutes of deduplication: one message, one id. If
        this `is_first`, a duplicate is another message, which may never be delivered again.
        Raises: QStashRefused, QStashUnclear.
        """
        response = self._call(
            lambda client: client.message.publish_json(**self._message(record, now))
        )
        if not isinstance(response, PublishResponse) or not isinstance(response.message_id, str):
            raise QStashUnreadable("the answer names no message")
        if is_first and response.deduplicated:
            raise QStashRefused(f"deduplicated: taken for {response.message_id:.100}")
        return response.message_id

    def signing_keys(self) -> tuple[str, str]:
        """The current and the next signing key. Raises: QStashRefused, QStashUnclear."""
        keys = self._call(lambda client: client.signing_key.get())
        return str(keys.current), str(keys.next)

    def dead_letters(self, request_id: str | None = None) -> Iterator[DeadLetter]:
        """The messages of ours that QStash has given up, or those of one analysis.

        Page by page, as they are taken. Raises: QStashRefused, QStashUnclear.
        """
        cursor: str | None = None
        while True:
            page = self._call(partial(self._list_dead_letters, request_id, cursor))
            for each in page.messages:
                if each.label and request_id in (None, each.label):
                    yield DeadLetter(each.label, each.dlq_id, each.message_id, each.response_status)
            if not (cursor := page.cursor):
                return

    def cancel(self, message_id: str) -> None:
        """Take a message back if it still waits; a failure is only logged: deliveries of a
        record that is terminal or gone change nothing.
        """
        try:
            self._call(lambda client: client.message.cancel(message_id))
        except (QStashRefused, QStashUnclear) as error:
            log.info("message not cancelled", message_id=message_id, cause=str(error))

    def close(self) -> None:
        """Close the connections."""
        run_within(ANSWER_SECONDS, self._close())

    async def _close(self) -> None:
        await self._clients.get().http._client.aclose()

    def _list_dead_letters(
        self, request_id: str | None, cursor: str | None, client: AsyncQStash
    ) -> Awaitable[Any]:
        wanted: DlqFilter = {"url": self._settings.qstash_webhook_url}
        if request_id:
            wanted["label"] = request_id
        return client.dlq.list(cursor=cursor, filter=wanted)

    def _make_client(self) -> AsyncQStash:
        settings = self._settings
        client = AsyncQStash(
            settings.qstash_token.get_secret_value(), retry=False, base_url=settings.qstash_url
        )
        http = client.http._client  # the SDK has no parameter for either
        http.headers.update(UNCOMPRESSED)
        http.event_hooks = {"response": [read_limited(httpx.ByteStream)]}
        return client

    def _call(self, call: Callable[[AsyncQStash], Awaitable[Any]]) -> Any:
        """Wait for QStash's answer, and make every way to fail one of our two."""

        async def on_loop() -> Any:
            return await call(self._clients.get())

        try:
            return run_within(ANSWER_SECONDS, on_loop())
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise QStashAway(self._cause(error)) from error
        except (QStashError, UnicodeEncodeError) as error:
            raise QStashRefused(self._cause(error), _status(error)) from error
        except (TimeoutError, httpx.HTTPError) as error:
            raise QStashUnclear(self._cause(error)) from error
        except (AnswerTooLarge, ValueError, LookupError, TypeError) as error:
            raise QStashUnreadable(self._cause(error)) from error

    def _cause(self, error: Exception) -> str:
        """Name an error on one line, for the log.

        Only QStash's own words are quoted, without the token: any other text may hold a header.
        """
        if not isinstance(error, QStashError):
            why = reason(error) if isinstance(error, httpx.TransportError | TimeoutError) else None
            return f"{type(error).__name__}: {why}" if why else type(error).__name__
        words = str(error).replace(self._settings.qstash_token.get_secret_value(), "(token)")
        return f"{type(error).__name__}: {' '.join(words.split()):.300}"

    def _message(self, record: AnalysisRecord, now: datetime) -> dict[str, Any]:
        times = self._settings.times
        message: dict[str, Any] = {
            "url": self._settings.qstash_webhook_url,
            "body": {"requestId": record.request_id, "round": record.round},
            "delay": max(0, round((record.due_at - now).total_seconds())),
            "retries": QSTASH_DELIVERIES - 1,
            "retry_delay": times.retry_delay,
            "timeout": round(times.delivery_timeout.total_seconds()),
            "failure_callback": self._settings.failure_callback_url,
            "deduplication_id": deduplication_id(record),
            "label": record.request_id,
            # Forwarded, so that each delivery, and the failure callback, continues the trace.
            "headers": headers(),
            "failure_callback_headers": {f"Forward-{k}": v for k, v in headers().items()},
        }
        if self._settings.qstash_parallelism:
            message["flow_control"] = FlowControl(
                key=FLOW_CONTROL_KEY, parallelism=self._settings.qstash_parallelism
            )
        return message


def _status(error: Exception) -> int | None:
    """The SDK has it in a sentence alone, or says what it means."""
    if isinstance(error, RateLimitExceededError | DailyMessageLimitExceededError):
        return HTTPStatus.TOO_MANY_REQUESTS
    found = re.match(r"Request failed with status: (\d{3})\b", str(error))
    return int(found[1]) if found else None


def deduplication_id(record: AnalysisRecord) -> str:
    """Name a round's message at QStash, which remembers the name for 10 minutes.

    A record may be gone sooner, so its id alone would stop the next one with the same id.
    Records of an earlier version have no nonce.
    """
    return "-".join(filter(None, (record.request_id, str(record.round), record.nonce)))
