"""What happens to analyses, as typed events. Each is a line of the log; options may subscribe.

    events = Events()
    events.subscribe(count)           # called with each event, in the thread that emits it
    events.emit(Submitted(record))    # writes {"event": "submitted", "request_id": …}

A subscriber watches: its errors stop nothing. What may veto is a port (`ports.py`). No event writes
what a person or the model wrote, nor a secret: of a record, `fields` tells only its numbers.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from common.failures import Failure, Kind, Limit
from common.fields import Tokens
from common.logs import get_logger
from common.record import AnalysisRecord
from common.states import Reason
from common.versions import Unreadable

NO_RECORD: Literal["no such record"] = "no such record"
NOT_OURS = "signed but not ours"

StoreName = Literal["redis", "database", "busy_database"]  # what could not be used

log = get_logger(__name__)


@dataclass(frozen=True)
class Event:
    """Something that has happened; `line`, `level` and `fields` are how the log tells it."""

    usual_level: ClassVar[int] = logging.INFO

    @property
    def line(self) -> str:
        raise NotImplementedError

    @property
    def level(self) -> int:
        return self.usual_level

    def fields(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class RecordEvent(Event):
    """Something that has happened to one analysis."""

    record: AnalysisRecord

    def fields(self) -> dict[str, Any]:
        numbers = {name: getattr(self.record, name) for name in ("request_id", "round", "attempt")}
        return numbers | {name: value for name, value in vars(self).items() if name != "record"}


# Submitting


@dataclass(frozen=True)
class Submitted(RecordEvent):
    """A new analysis was stored."""

    line = "submitted"


@dataclass(frozen=True)
class SubmittedAgain(RecordEvent):
    """A submission was repeated: the analysis is there already."""

    line = "submitted again"

    def fields(self) -> dict[str, Any]:
        return {**super().fields(), "was": self.record.status}


@dataclass(frozen=True)
class Edited(RecordEvent):
    """What was written was changed, before it was sent to the model."""

    line = "edited"


@dataclass(frozen=True)
class Reopened(RecordEvent):
    """A failed analysis was begun again, as a new round."""

    line = "reopened"


@dataclass(frozen=True)
class Rejected(Event):
    """A limit was reached: nothing was stored."""

    request_id: str
    code: Limit
    line = "rejected"
    usual_level = logging.WARNING


@dataclass(frozen=True)
class Published(RecordEvent):
    """QStash has taken the round's message."""

    message_id: str
    line = "published"


@dataclass(frozen=True)
class PublishFailed(RecordEvent):
    """QStash has refused the round's message, or nobody knows whether it has taken it."""

    cause: str
    line = "publish failed"
    usual_level = logging.WARNING


# Attempts


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
    usual_level = logging.WARNING


@dataclass(frozen=True)
class Discarded(RecordEvent):
    """An answer came too late: the analysis was cancelled, deleted or settled meanwhile."""

    seconds: float
    tokens: Tokens | None
    line = "answer discarded"

    def fields(self) -> dict[str, Any]:
        return super().fields() | {"tokens": None}  # "answered" has told them


# The end


@dataclass(frozen=True)
class Settled(RecordEvent):
    """An analysis has become terminal; `cause` says more than the failure's code, where known."""

    cause: str | None = None
    line = "settled"

    @property
    def level(self) -> int:
        failure = self.record.failure
        is_ours = failure and failure.kind in (Kind.OPERATOR, Kind.LOST)
        return logging.ERROR if is_ours else logging.INFO

    def fields(self) -> dict[str, Any]:
        record = self.record
        cause = (self.cause or record.last_failure) if record.failure else None
        return {**super().fields(), "status": record.status, "code": record.failure, "cause": cause}


@dataclass(frozen=True)
class Deleted(Event):
    """A record was removed; where it could not be read, its round may be known all the same."""

    request_id: str
    record: AnalysisRecord | None
    round: int | None
    line = "deleted"

    def fields(self) -> dict[str, Any]:
        was = self.record.status if self.record else "unreadable"
        return {"request_id": self.request_id, "was": was}


# What came to nothing


@dataclass(frozen=True)
class DeliveryIgnored(Event):
    """A delivery found nothing to do, or nothing yet."""

    request_id: str
    round: int
    reason: Reason | Literal["no such record"]
    line = "delivery ignored"

    def fields(self) -> dict[str, Any]:
        return {"request_id": self.request_id, "round": self.round, "cause": self.reason}


@dataclass(frozen=True)
class DeliveryRefused(Event):
    """A request to the webhook was no delivery of ours: a `reason`, one of few, and its details."""

    reason: str
    cause: str
    line = "delivery refused"

    @property
    def level(self) -> int:
        """Anybody can send what is not signed; what is signed comes by a setting of ours."""
        return logging.ERROR if self.reason == NOT_OURS else logging.WARNING

    def fields(self) -> dict[str, Any]:
        return {"cause": self.cause}


@dataclass(frozen=True)
class RecordNotRead(Event):
    """What is stored can't be read by this version: see `versions.py`. Redis is well."""

    error: Unreadable
    round: int | None = None
    line = "record not read"

    @property
    def level(self) -> int:
        """One of a newer version is read by that: a roll is under way."""
        return logging.WARNING if self.error.is_newer else logging.ERROR

    def fields(self) -> dict[str, Any]:
        error = self.error
        return {"request_id": error.request_id, "round": self.round, "cause": str(error)}


@dataclass(frozen=True)
class StoreFailed(Event):
    """Redis or the history's database was needed, and was away or, if "busy", had no time."""

    store: StoreName
    cause: str
    at: str | None = None
    request_id: str | None = None
    round: int | None = None
    usual_level = logging.ERROR

    @property
    def line(self) -> str:
        return "history busy" if self.store == "busy_database" else "store unavailable"

    def fields(self) -> dict[str, Any]:
        where = {"request_id": self.request_id, "round": self.round, "at": self.at}
        return {**where, "cause": self.cause, "store": self.store}


Subscriber = Callable[[Event], None]


class Events:
    """Tells the log, and whoever has subscribed."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []
        self._failed: set[Subscriber] = set()

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call this with each event from now on."""
        self._subscribers.append(subscriber)

    def emit(self, event: Event) -> None:
        """Write the event's line, and tell all subscribers; raises nothing."""
        log.log(event.level, event.line, **event.fields())
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception as error:
                if subscriber not in self._failed:  # once: it must not fill the log
                    self._failed.add(subscriber)
                    log.error("subscriber failed", exc_info=error, during=event.line)
