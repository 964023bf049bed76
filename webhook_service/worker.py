"""One delivery of a message: claim the record, ask the model, settle. Knows no Flask."""

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Protocol

from pydantic import Field

from common.connection import StoreUnavailable
from common.events import (
    NO_RECORD,
    Answered,
    AttemptFailed,
    Claimed,
    DeliveryIgnored,
    Discarded,
    RecordNotRead,
    StoreFailed,
)
from common.failures import Failure, Kind
from common.fields import Model, RequestId
from common.form import Form
from common.ports import History, NoHistory
from common.record import AnalysisRecord
from common.states import Status, TransitionError
from common.store import NotFound, Store
from common.times import TimeLadder
from common.versions import Unreadable
from webhook_service.answer import AnalysisFailed, Answer

SETTLE_PAUSE_SECONDS = 0.5
NEWER_RETRY = timedelta(minutes=1)  # four deliveries are three minutes: time to replace a process


class Delivery(Model):
    """The body of a message: `{"requestId": "…32 hex…", "round": 1}`."""

    request_id: RequestId
    round: Annotated[int, Field(ge=1, strict=True)]


class OutcomeKind(StrEnum):
    """What a delivery came to; `routes.py` holds the status code of each."""

    SETTLED = "settled"
    IGNORED = "ignored"  # nothing to do, and no delivery will ever have more to do
    RETRY = "retry"
    OPERATOR_MUST_ACT = "operator must act"


@dataclass(frozen=True)
class Outcome:
    """What to tell QStash; `retry_after` counts for RETRY alone."""

    kind: OutcomeKind
    retry_after: timedelta = timedelta(0)


class AnalystProtocol(Protocol):
    """What the worker needs of an analyst."""

    def analyse(self, form: Form, call_id: str) -> Answer:
        """Raises: AnalysisFailed."""


class Worker:
    """Handles deliveries; safe to share between threads."""

    def __init__(
        self,
        store: Store,
        analyst: AnalystProtocol,
        times: TimeLadder,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        *,
        history: History | None = None,
    ) -> None:
        self._store = store
        self._analyst = analyst
        self._times = times
        self._monotonic = monotonic
        self._sleep = sleep
        self._history = history or NoHistory()
        self._events = store.events

    def process(self, delivery: Delivery) -> Outcome:
        """Run at most one attempt of an analysis. Never raises for what another service does."""
        return self._handle(self._attempt, delivery, OutcomeKind.OPERATOR_MUST_ACT)

    def give_up(self, delivery: Delivery) -> Outcome:
        """Fail an analysis whose message QStash has given up; a running attempt is left alone."""
        return self._handle(self._give_up, delivery, OutcomeKind.IGNORED)

    def _handle(
        self,
        action: Callable[[Delivery], Outcome],
        delivery: Delivery,
        if_unreadable: OutcomeKind,
    ) -> Outcome:
        """Answer for an outcome only once the history has it, too.

        A record that no version can read is the operator's, who finds its message in the DLQ; once
        it is given up it is there already.
        """
        try:
            outcome = self._outcome_of(action, delivery)
            if outcome.kind is not OutcomeKind.RETRY:
                with suppress(NotFound):  # deleted, or its time is over: it must not come back
                    self._history.ended(delivery.request_id)
            return outcome
        except Unreadable as error:
            self._events.emit(RecordNotRead(error, delivery.round))
            if error.is_newer:  # the next delivery may meet a process of that version
                return Outcome(OutcomeKind.RETRY, NEWER_RETRY)
            return Outcome(if_unreadable)
        except StoreUnavailable as error:
            self._events.emit(StoreFailed(error.store, str(error), **delivery.model_dump()))
            return Outcome(OutcomeKind.RETRY, error.retry_after)

    def _outcome_of(self, action: Callable[[Delivery], Outcome], delivery: Delivery) -> Outcome:
        try:
            return action(delivery)
        except NotFound:
            self._events.emit(DeliveryIgnored(**delivery.model_dump(), reason=NO_RECORD))
        except TransitionError as error:
            self._events.emit(DeliveryIgnored(**delivery.model_dump(), reason=error.reason))
            if error.retry_after is not None:
                return Outcome(OutcomeKind.RETRY, error.retry_after)
        return Outcome(OutcomeKind.IGNORED)

    def _give_up(self, delivery: Delivery) -> Outcome:
        self._store.update(
            delivery.request_id,
            lambda record, now: record.give_up(
                of_round=delivery.round, now=now, lease=self._times.lease
            ),
        )
        return Outcome(OutcomeKind.SETTLED)

    def _attempt(self, delivery: Delivery) -> Outcome:
        token = secrets.token_hex(16)
        record = self._store.update(
            delivery.request_id,
            lambda record, now: record.claim(
                token,
                of_round=delivery.round,
                now=now,
                call=self._times.call,
                lease=self._times.lease,
            ),
        )
        if record.status is not Status.PROCESSING:
            return Outcome(OutcomeKind.SETTLED)
        started = self._monotonic()
        assert record.claimed_at is not None, "a claimed record says when"
        waited = (record.claimed_at - record.next_attempt_at).total_seconds()
        self._events.emit(Claimed(record, token, round(waited, 3)))
        answer = self._ask(record, token, started)
        try:
            return self._settle(record, token, answer, started)
        except (NotFound, TransitionError, Unreadable):
            if isinstance(answer, Answer):
                seconds = round(self._monotonic() - started, 3)
                self._events.emit(Discarded(record, seconds, answer.tokens))
            raise

    def _ask(self, record: AnalysisRecord, token: str, started: float) -> Answer | AnalysisFailed:
        """Ask the model. A failure is returned, too: it is settled as an answer is."""
        assert record.input is not None, "only terminal records have no input"
        answer: Answer | AnalysisFailed
        try:
            answer = self._analyst.analyse(record.input, call_id=token)
        except AnalysisFailed as error:
            answer = error
        except Exception as error:
            # A fault of ours must not leave the record claimed; its text may quote the input.
            answer = AnalysisFailed(Failure.INTERNAL_ERROR, type(error).__name__)
        seconds, tokens = round(self._monotonic() - started, 3), answer.tokens
        self._events.emit(
            AttemptFailed(record, seconds, tokens, answer.failure, answer.cause)
            if isinstance(answer, AnalysisFailed)
            else Answered(record, seconds, tokens)
        )
        return answer

    def _settle(
        self, record: AnalysisRecord, token: str, answer: Answer | AnalysisFailed, started: float
    ) -> Outcome:
        """Store what came of the attempt; an answer is paid for, so try until the lease ends."""
        assert record.claimed_at is not None, "a claimed record says when"
        took = timedelta(seconds=self._monotonic() - started)
        now = record.claimed_at + took  # Redis's clock, without asking it
        lease_ends = started + self._times.lease.total_seconds()
        cause = answer.cause if isinstance(answer, AnalysisFailed) else None

        def settle(record: AnalysisRecord, now: datetime) -> AnalysisRecord:
            if isinstance(answer, AnalysisFailed):
                failure, wait = answer.failure, answer.retry_after
                longest = self._times.longest_wait
                return record.fail(token, failure, now=now, retry_after=wait, longest_wait=longest)
            return record.complete(
                token, answer.analysis, model=answer.model, tokens=answer.tokens, now=now
            )

        while True:
            try:
                settled = self._store.update(
                    record.request_id, settle, known=(record, now), cause=cause
                )
                break
            except StoreUnavailable:
                if self._monotonic() + SETTLE_PAUSE_SECONDS >= lease_ends:
                    raise
                self._sleep(SETTLE_PAUSE_SECONDS)
        return _outcome(settled, now)


def _outcome(record: AnalysisRecord, now: datetime) -> Outcome:
    """Say what a settled attempt means for QStash."""
    if record.status is Status.PENDING:
        return Outcome(OutcomeKind.RETRY, record.next_attempt_at - now)
    if record.failure and record.failure.kind is Kind.OPERATOR:
        return Outcome(OutcomeKind.OPERATOR_MUST_ACT)
    return Outcome(OutcomeKind.SETTLED)
