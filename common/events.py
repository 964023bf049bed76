"""What happens to analyses, as typed events. Each is a line of the log; options may subscribe.

A subscriber watches: its errors stop nothing. What may veto is a port (`ports.py`).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from common.failures import Failure, Kind, Limit
from common.logs import get_logger
from common.record import AnalysisRecord, Tokens

log = get_logger(__name__)


@dataclass(frozen=True)
class Event:
    """Something that has happened; `line`, `level` and `fields` are how the log tells it."""

    line: ClassVar[str]
    severity: ClassVar[int] = logging.INFO

    @property
    def level(self) -> int:
        return self.severity

    def fields(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class RecordEvent(Event):
    """Something that has happened to one analysis."""

    record: AnalysisRecord

    def fields(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name != "record"}
        record = self.record
        where = {"request_id": record.request_id, "round": record.round, "attempt": record.attempt}
        return {**where, **own}


@dataclass(frozen=True)
class Submitted(RecordEvent):
    """A new analysis was stored."""

    line = "submitted"


@dataclass(frozen=True)
class SubmittedAgain(RecordEvent):
    """A submission was repeated: the analysis is there already."""

    line = "submitted again"

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "status": self.record.status}


@dataclass(frozen=True)
class Reopened(RecordEvent):
    """A failed analysis was begun again, as a new round."""

    line = "reopened"


@dataclass(frozen=True)
class Published(RecordEvent):
    """QStash has taken the round's message."""

    message_id: str
    line = "published"


@dataclass(frozen=True)
class PublishFailed(RecordEvent):
    """QStash has refused the round's message, or nobody knows whether it has taken it."""

    cause: str
    line = "not published, or perhaps not"
    severity = logging.WARNING


@dataclass(frozen=True)
class Claimed(RecordEvent):
    """An attempt has begun: at most one paid call."""

    call_id: str
    seconds_after_due: float
    line = "claimed"


@dataclass(frozen=True)
class Answered(RecordEvent):
    """The model has answered an attempt."""

    seconds: float
    tokens: Tokens | None
    line = "answered"

    def fields(self) -> dict[str, Any]:
        fields = super().fields()
        tokens = fields.pop("tokens")
        return {**fields, **(tokens.model_dump() if tokens else {})}


@dataclass(frozen=True)
class AttemptFailed(Answered):
    """An attempt came to nothing; it may have been paid for all the same."""

    code: Failure
    cause: str
    line = "attempt failed"
    severity = logging.WARNING


@dataclass(frozen=True)
class Settled(RecordEvent):
    """An analysis has become terminal."""

    cause: str | None = None
    line = "settled"

    @property
    def level(self) -> int:
        failure = self.record.failure
        is_ours = failure and failure.kind in (Kind.OPERATOR, Kind.LOST)
        return logging.ERROR if is_ours else logging.INFO

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "status": self.record.status, "code": self.record.failure}


@dataclass(frozen=True)
class Deleted(Event):
    """A record was removed; None where it could not be read."""

    request_id: str
    record: AnalysisRecord | None
    line = "deleted"

    def fields(self) -> dict[str, Any]:
        was = self.record.status if self.record else "unreadable"
        return {"request_id": self.request_id, "was": was}


@dataclass(frozen=True)
class Rejected(Event):
    """A limit was reached: nothing was stored."""

    request_id: str
    code: Limit
    line = "rejected"
    severity = logging.WARNING


@dataclass(frozen=True)
class DeliveryIgnored(Event):
    """A delivery found nothing to do, or nothing yet."""

    request_id: str
    round: int
    cause: str
    line = "delivery ignored"


@dataclass(frozen=True)
class DeliveryRefused(Event):
    """A request to the webhook was not a delivery of ours; `reason` is one of few, for counting."""

    reason: str
    cause: str
    line = "delivery refused"
    severity = logging.WARNING


@dataclass(frozen=True)
class StoreFailed(Event):
    """Redis, or the database of the history, was not there when it was needed."""

    store: str
    cause: str
    at: str | None = None
    request_id: str | None = None
    line = "store unavailable"
    severity = logging.ERROR


Subscriber = Callable[[Event], None]


class Events:
    """Tells the log, and whoever has subscribed."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []
        self._broken: set[Subscriber] = set()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call this with each event from now on."""
        self._subscribers.append(subscriber)

    def emit(self, event: Event) -> None:
        """Write the event's line, and tell all subscribers."""
        log.log(event.level, event.line, **event.fields())
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception as error:
                if subscriber not in self._broken:  # once: it must not fill the log
                    self._broken.add(subscriber)
                    log.error("subscriber failed", exc_info=error, at=type(event).__name__)
