"""The record of one analysis, and its transitions.

   edit ↺     claim                     complete
   pending ───────────► processing ─────────────► completed
      ▲  ▲                 │    │  fail (permanent, attempts used up)
      │  └─── fail ────────┘    └───────────────► failed ──┐
      │      (transient error)                      ▲      │ reopen: round + 1, a new message
      ├── cancel (also while processing) ► cancelled│      │
      │            time_out, give_up ───────────────┘      │
      └────────────────────────────────────────────────────┘

Transitions are pure: they return a new record or raise `TransitionError`. `common.store` applies
them atomically. Every time in a record is an aware UTC datetime read from Redis's clock.
"""

import secrets
from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import ConfigDict

from common.failures import Failure, Kind
from common.fields import Model, RequestId, Tokens, UtcDatetime
from common.form import Form
from common.other_task import OfTask, OtherForm, OtherResult
from common.result import Result
from common.states import NEEDED, Reason, Status, TransitionError
from common.task import TASK
from common.versions import VERSION

MAX_ATTEMPTS = 3  # per round; each is at most one paid call
MAX_ROUNDS = 5
DUE_TOLERANCE = timedelta(seconds=2)
FIRST_RETRY = timedelta(seconds=10)  # doubled with each attempt
REPUBLISH_AFTER = timedelta(seconds=15)


class AnalysisRecord(Model):
    """All that Redis holds about one analysis."""

    model_config = ConfigDict(extra="allow")  # it keeps what a newer version has written
    schema_version: int = 1  # one that doesn't say is of the first: see `versions.py`
    request_id: RequestId
    nonce: str | None = None  # tells this round from one of an earlier record with the same id
    fingerprint: str | None = None  # keyed, of the input that came with an Idempotency-Key
    status: Status = Status.PENDING
    task: str | None = None  # the fingerprint of the task whose input and result it holds
    # None once completed or cancelled
    input: Annotated[Form, OfTask(TASK.form, OtherForm, TASK.fingerprint)] | None
    owner_hash: str | None = None  # SHA-256 of the owner token; None when made by the API
    created_by: str | None = None  # the name of the API key; None when made on the page
    created_at: UtcDatetime
    due_at: UtcDatetime
    deadline_at: UtcDatetime
    round: int = 1
    published_at: UtcDatetime  # when publishing this round's message was last tried
    message_id: str | None = None
    attempt: int = 0
    next_attempt_at: UtcDatetime
    claim_token: str | None = None
    claimed_at: UtcDatetime | None = None
    last_failure: Failure | None = None  # of the round's latest attempt
    last_failed_at: UtcDatetime | None = None  # when the round last went back to pending
    failure: Failure | None = None  # of a failed analysis
    result: Annotated[Result, OfTask(TASK.result, OtherResult, TASK.fingerprint)] | None = None
    model: str | None = None
    tokens: Tokens | None = None  # of the call that gave the result, where the provider tells
    finished_at: UtcDatetime | None = None

    @classmethod
    def new(
        cls,
        request_id: str,
        form: Form,
        *,
        owner_hash: str | None,
        created_by: str | None = None,
        fingerprint: str | None = None,
        now: datetime,
        delay: timedelta,
        deadline: timedelta,
    ) -> Self:
        """Make a pending record; `delay` until due, `deadline` counted from there."""
        return cls(
            schema_version=VERSION,
            request_id=request_id,
            nonce=secrets.token_hex(8),
            fingerprint=fingerprint,
            task=TASK.fingerprint,
            input=form,
            owner_hash=owner_hash,
            created_by=created_by,
            created_at=now,
            due_at=now + delay,
            deadline_at=now + delay + deadline,
            published_at=now,
            next_attempt_at=now + delay,
        )

    # What a delivery does

    def claim(
        self, token: str, *, of_round: int, now: datetime, call: timedelta, lease: timedelta
    ) -> Self:
        """Begin an attempt, which may take `call`; fail the record if there can't be another.

        For the length of a `lease`, nobody else can. Replayed with its own token, it is the same.
        """
        self._check_open(of_round)
        if self.status is Status.PROCESSING and self.claim_token == token:
            return self
        self._check_unclaimed(now, lease)
        if self.status is Status.PENDING and now < self.next_attempt_at - DUE_TOLERANCE:
            raise TransitionError(Reason.NOT_DUE, self.next_attempt_at - now)
        if self.is_of_other_task:
            return self._fail(Failure.TASK_CHANGED, now)
        if self.attempt >= MAX_ATTEMPTS:
            return self._fail(Failure.ATTEMPTS_EXHAUSTED, now)
        if now + call > self.deadline_at:
            raise TransitionError(Reason.TOO_LATE)
        return self._evolve(
            status=Status.PROCESSING, attempt=self.attempt + 1, claim_token=token, claimed_at=now
        )

    def complete(
        self, token: str, result: Result, *, model: str, now: datetime, tokens: Tokens | None = None
    ) -> Self:
        """Store the answer of the attempt that holds `token`, and forget the input."""
        if self._is_settled_by(token):
            return self
        return self._evolve(
            status=Status.COMPLETED,
            result=result,
            model=model,
            tokens=tokens,
            finished_at=now,
            input=None,
        )

    def fail(
        self,
        token: str,
        failure: Failure,
        *,
        now: datetime,
        retry_after: timedelta,
        longest_wait: timedelta,
    ) -> Self:
        """Settle the attempt that holds `token`: back to pending, or failed.

        `retry_after` is the delay that the provider asks for, granted up to `longest_wait`.
        """
        if self._is_settled_by(token):
            return self
        if failure is self.last_failure is Failure.ANSWER_TRUNCATED:
            return self._fail(Failure.ANSWER_TOO_LONG, now, claim_token=token)
        if failure.kind is not Kind.TRANSIENT:
            return self._fail(failure, now, claim_token=token)
        if self.attempt >= MAX_ATTEMPTS:
            exhausted = Failure.ATTEMPTS_EXHAUSTED
            return self._fail(exhausted, now, claim_token=token, last_failure=failure)
        wait = min(max(FIRST_RETRY * 2 ** (self.attempt - 1), retry_after), longest_wait)
        return self._evolve(
            status=Status.PENDING,
            next_attempt_at=now + wait,
            last_failure=failure,
            last_failed_at=now,
        )

    def give_up(self, *, of_round: int, now: datetime, lease: timedelta) -> Self:
        """Fail because QStash has given this round's message up; a running attempt goes on."""
        self._check_open(of_round)
        self._check_unclaimed(now, lease)
        return self._fail(Failure.DELIVERY_FAILED, now)

    # What the passing of time does

    def is_overdue(self, now: datetime) -> bool:
        """Whether the deadline has passed before the analysis became terminal."""
        return not self.status.is_terminal and now >= self.deadline_at

    def time_out(self, *, now: datetime) -> Self:
        """Fail because the deadline has passed."""
        return self._fail(Failure.TIMED_OUT, now) if self.is_overdue(now) else self

    def is_unpublished(self, now: datetime) -> bool:
        """Whether the message seems never to have been published, and should be."""
        return (
            self.status is Status.PENDING
            and self.message_id is None
            and not self.is_of_other_task
            and not self.attempt
            and now - self.published_at >= REPUBLISH_AFTER
        )

    def try_publish(self, *, now: datetime) -> Self:
        """Note that publishing is being tried, so that others leave it alone for a while."""
        if not self.is_unpublished(now):
            raise TransitionError(Reason.NOT_DUE)
        return self._evolve(published_at=now)

    def published(self, message_id: str, *, of_round: int) -> Self:
        """Remember the id of this round's message."""
        self._check_open(of_round)
        return self._evolve(message_id=message_id)

    def not_queued(self, *, of_round: int, is_first: bool, now: datetime) -> Self:
        """Fail because QStash refused the message, unless another try to publish succeeded.

        Whether an earlier one did shows when the analysis is due, and a little later is known.
        """
        self._check_open(of_round)
        is_early = not is_first and now < self.due_at + REPUBLISH_AFTER
        if self.message_id or self.attempt or is_early:
            return self
        return self._fail(Failure.NOT_QUEUED, now)

    def edit(self, form: Form) -> Self:
        """Change the input, until this round's first attempt begins; to the same, nothing."""
        self._check_open(self.round)
        if self.is_of_other_task:
            raise TransitionError(Reason.OTHER_TASK)
        if self.input == form:
            return self
        if self.attempt:
            raise TransitionError(Reason.BEGUN)
        return self._evolve(input=form)

    def cancel(self, *, now: datetime) -> Self:
        """Stop, before or during the attempt, and forget the input."""
        self._check_open(self.round)
        return self._evolve(status=Status.CANCELLED, input=None, claim_token=None, finished_at=now)

    @property
    def has_rounds_left(self) -> bool:
        """Rounds are capped because they cost calls; one that was never queued costs none."""
        return self.round < MAX_ROUNDS or self.failure is Failure.NOT_QUEUED

    def reopen(self, *, now: datetime, delay: timedelta, deadline: timedelta) -> Self:
        """Start a new round of a failed analysis, with all its attempts."""
        if self.status is not Status.FAILED:
            raise TransitionError(Reason.NOT_FAILED)
        if self.is_of_other_task:
            raise TransitionError(Reason.OTHER_TASK)
        if self.input is None:
            raise TransitionError(Reason.INPUT_GONE)
        if not self.has_rounds_left:
            raise TransitionError(Reason.ROUNDS_USED_UP)
        fresh = self.new(
            self.request_id,
            self.input,
            owner_hash=self.owner_hash,
            created_by=self.created_by,
            fingerprint=self.fingerprint,
            now=now,
            delay=delay,
            deadline=deadline,
        )
        fresh = fresh._evolve(round=self.round + 1, created_at=self.created_at)
        return fresh.model_copy(update=self.model_extra)

    @property
    def is_of_other_task(self) -> bool:
        """Whether input or result have a shape that this version of the task doesn't know."""
        return isinstance(self.input, OtherForm) or isinstance(self.result, OtherResult)

    @property
    def is_consistent(self) -> bool:
        """Whether the fields that the status calls for are there."""
        return all(getattr(self, name) is not None for name in NEEDED[self.status])

    # Shared by the above

    def _check_open(self, of_round: int) -> None:
        if self.status.is_terminal:
            raise TransitionError(Reason.TERMINAL)
        if of_round != self.round:
            raise TransitionError(Reason.OTHER_ROUND)

    def _check_unclaimed(self, now: datetime, lease: timedelta) -> None:
        """Leave an attempt alone until its lease has ended. Raises: TransitionError."""
        if self.status is Status.PROCESSING:
            assert self.claimed_at is not None, "a claimed record says when"
            if now < self.claimed_at + lease:
                raise TransitionError(Reason.CLAIMED, self.claimed_at + lease - now)

    def _is_settled_by(self, token: str) -> bool:
        """Whether this attempt has settled already (a replay). Raises: TransitionError."""
        if self.claim_token != token:
            raise TransitionError(Reason.NOT_THE_CLAIM)
        return self.status is not Status.PROCESSING

    def _fail(self, failure: Failure, now: datetime, **changes: object) -> Self:
        changes = {"claim_token": None, **changes}
        return self._evolve(status=Status.FAILED, failure=failure, finished_at=now, **changes)

    def _evolve(self, **changes: object) -> Self:
        """Change it; what fits the task is written as the task has it, whoever wrote it before."""
        task = self.task if self.is_of_other_task else TASK.fingerprint
        return self.model_copy(update={"task": task, **changes})
