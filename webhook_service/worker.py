"""One delivery of a message: claim the record, ask the model, settle. Knows no Flask."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Protocol

from pydantic import Field

from common.failures import Failure, Kind
from common.fields import Model, RequestId
from common.logs import get_logger
from common.record import AnalysisRecord, Status, Tokens, TransitionError
from common.store import NotFound, Store, StoreUnavailable, Unreadable
from common.task import AnalysisInput
from common.times import TimeLadder
from operations.limits import PAUSE, PAUSING
from webhook_service.answer import AnalysisFailed, Answer

STORE_RETRY = timedelta(seconds=10)
SETTLE_PAUSE_SECONDS = 0.5

log = get_logger(__name__)


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

    def analyse(self, input: AnalysisInput, call_id: str) -> Answer:
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
    ) -> None:
        self._store = store
        self._analyst = analyst
        self._times = times
        self._monotonic = monotonic
        self._sleep = sleep

    def process(self, delivery: Delivery) -> Outcome:
        """Run at most one attempt of an analysis. Never raises for what a neighbour does."""
        return self._run_action(self._attempt, delivery)

    def give_up(self, delivery: Delivery) -> Outcome:
        """Fail an analysis whose message QStash has given up; a running attempt is left alone."""
        return self._run_action(self._give_up, delivery)

    def _run_action(self, act: Callable[[Delivery], Outcome], delivery: Delivery) -> Outcome:
        where = delivery.model_dump()
        try:
            return act(delivery)
        except NotFound:
            log.info("delivery ignored", **where, cause="no such record")
        except TransitionError as refusal:
            log.info("delivery ignored", **where, cause=str(refusal))
            if refusal.retry_after is not None:
                return Outcome(OutcomeKind.RETRY, refusal.retry_after)
        except Unreadable as error:  # a newer version, which may take the next delivery, reads it
            log.error("record not read", **where, cause=str(error))
            return Outcome(OutcomeKind.RETRY, STORE_RETRY)
        except StoreUnavailable as error:
            log.error("store unavailable", **where, cause=str(error))
            return Outcome(OutcomeKind.RETRY, STORE_RETRY)
        return Outcome(OutcomeKind.IGNORED)

    def _give_up(self, delivery: Delivery) -> Outcome:
        record = self._store.update(
            delivery.request_id,
            lambda record, now: record.give_up(
                round=delivery.round, now=now, lease=self._times.lease
            ),
        )
        log.error("delivery given up by QStash", **_where(record), **_end(record))
        return Outcome(OutcomeKind.SETTLED)

    def _attempt(self, delivery: Delivery) -> Outcome:
        token = secrets.token_hex(16)
        record = self._store.update(
            delivery.request_id,
            lambda record, now: record.claim(
                token,
                round=delivery.round,
                now=now,
                call=self._times.call,
                lease=self._times.lease,
            ),
        )
        if record.status is not Status.PROCESSING:
            log.error("settled", **_where(record), **_end(record))
            return Outcome(OutcomeKind.SETTLED)
        started = self._monotonic()
        assert record.claimed_at is not None, "a claimed record says when"
        waited = (record.claimed_at - record.next_attempt_at).total_seconds()
        log.info("claimed", **_where(record), call_id=token, seconds_after_due=round(waited, 3))
        return self._settle(record, token, self._ask(record, token, started), started)

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
        seconds = round(self._monotonic() - started, 3)
        fields = {**_where(record), **_cost(answer.tokens), "seconds": seconds}
        if isinstance(answer, AnalysisFailed):
            log.warning("attempt failed", **fields, code=answer.failure, cause=answer.cause)
        else:
            log.info("answered", **fields)
        return answer

    def _settle(
        self, record: AnalysisRecord, token: str, answer: Answer | AnalysisFailed, started: float
    ) -> Outcome:
        """Store what came of the attempt; an answer is paid for, so try until the lease ends."""
        assert record.claimed_at is not None, "a claimed record says when"
        seconds = self._monotonic() - started
        now = record.claimed_at + timedelta(seconds=seconds)  # Redis's clock, without asking it
        lease_ends = started + self._times.lease.total_seconds()

        def settle(record: AnalysisRecord, now: datetime) -> AnalysisRecord:
            if isinstance(answer, AnalysisFailed):
                return record.fail(
                    token,
                    answer.failure,
                    now=now,
                    retry_after=answer.retry_after,
                    longest_wait=self._times.longest_wait,
                )
            return record.complete(
                token, answer.analysis, model=answer.model, tokens=answer.tokens, now=now
            )

        while True:
            try:
                settled = self._store.update(record.request_id, settle, known=(record, now))
                break
            except StoreUnavailable as error:
                if isinstance(error, Unreadable):
                    raise
                if self._monotonic() + SETTLE_PAUSE_SECONDS >= lease_ends:
                    raise
                self._sleep(SETTLE_PAUSE_SECONDS)
            except (TransitionError, NotFound):  # cancelled or deleted meanwhile, and paid for
                self._note(now, tokens=answer.tokens)
                raise
        log.info("settled", **_where(settled), **_end(settled), seconds=round(seconds, 3))
        took = timedelta(seconds=seconds) if settled.status is Status.COMPLETED else None
        pause = PAUSE if settled.failure in PAUSING else None
        self._note(now, took=took, tokens=answer.tokens, pause=pause)
        return _outcome(settled, now)

    def _note(
        self,
        now: datetime,
        *,
        tokens: Tokens | None,
        took: timedelta | None = None,
        pause: timedelta | None = None,
    ) -> None:
        """Note what the attempt cost, how long it took, and that new ones could only fail."""
        if not (tokens or took or pause):
            return
        if pause:
            log.error("submissions paused", seconds=pause.total_seconds())
        try:
            self._store.note_attempt(now, took=took, tokens=tokens, pause=pause)
        except StoreUnavailable as error:  # the analysis is settled, and this a courtesy
            log.warning("attempt not noted", cause=str(error))


def _outcome(record: AnalysisRecord, now: datetime) -> Outcome:
    """Say what a settled attempt means for QStash."""
    if record.status is Status.PENDING:
        return Outcome(OutcomeKind.RETRY, record.next_attempt_at - now)
    if record.failure and record.failure.kind is Kind.OPERATOR:
        return Outcome(OutcomeKind.OPERATOR_MUST_ACT)
    return Outcome(OutcomeKind.SETTLED)


def _where(record: AnalysisRecord) -> dict[str, Any]:
    return {"request_id": record.request_id, "round": record.round, "attempt": record.attempt}


def _cost(tokens: Tokens | None) -> dict[str, Any]:
    return tokens.model_dump() if tokens else {}


def _end(record: AnalysisRecord) -> dict[str, Any]:
    code = record.failure if record.status.is_terminal else record.last_failure
    return {"status": record.status, "code": code}
