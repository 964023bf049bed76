"""QStash: publish the message that makes an analysis run, and cancel it. Only importer of qstash.

A message carries `{"requestId": …, "round": …}` and nothing personal.
Source: https://upstash.com/docs/qstash/api/publish
"""

import json
import logging
from datetime import datetime
from typing import Any

import httpx
from qstash import AsyncQStash
from qstash.errors import QStashError
from qstash.message import FlowControl, PublishResponse

from common.models import AnalysisRecord
from common.settings import QSTASH_DELIVERIES, Settings
from common.time_limit import run_within

PUBLISH_SECONDS = 4.0  # a person is waiting
FLOW_CONTROL_KEY = "analysis"

log = logging.getLogger(__name__)


class PublishRefused(Exception):
    """QStash did not take the message, and will not deliver it."""


class PublishUnclear(Exception):
    """Nobody knows whether QStash took the message. Publishing it again makes no second one."""


class Queue:
    """The messages waiting at QStash."""

    def __init__(self, settings: Settings) -> None:
        # Its own retries sleep up to 32 s; a publish that failed is repeated by submission.py.
        self._client = AsyncQStash(
            settings.qstash_token.get_secret_value(), retry=False, base_url=settings.qstash_url
        )
        self._settings = settings

    def publish(self, record: AnalysisRecord, *, now: datetime) -> str:
        """Publish this round's message and return its id.

        Safe to call again within QStash's 10 minutes of deduplication: one message, one id.
        Raises: PublishRefused, PublishUnclear.
        """
        try:
            response: Any = run_within(
                PUBLISH_SECONDS,
                self._client.message.publish_json(**self._message(record, now)),
            )
        except (QStashError, httpx.ConnectError, httpx.ConnectTimeout, UnicodeError) as error:
            raise PublishRefused(_cause(error)) from error
        except (TimeoutError, httpx.HTTPError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise PublishUnclear(_cause(error)) from error
        if not isinstance(response, PublishResponse) or not isinstance(response.message_id, str):
            raise PublishUnclear("the answer names no message")
        return response.message_id

    def cancel(self, message_id: str) -> None:
        """Take a message back if it still waits; a failure is only logged: deliveries of a
        record that is terminal or gone change nothing.
        """
        try:
            run_within(PUBLISH_SECONDS, self._client.message.cancel(message_id))
        except (QStashError, httpx.HTTPError, TimeoutError) as error:
            log.info("message %s was not cancelled: %s", message_id, _cause(error))

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
            "deduplication_id": f"{record.request_id}-{record.round}",
            "label": record.request_id,
        }
        if self._settings.qstash_parallelism:
            message["flow_control"] = FlowControl(
                key=FLOW_CONTROL_KEY, parallelism=self._settings.qstash_parallelism
            )
        return message


def _cause(error: Exception) -> str:
    """Name an error; quote only QStash's own words, as a header's value may be the token."""
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, QStashError) else name
