"""What a person can do with an analysis: submit it, look it up, cancel, retry and delete it."""

import hmac
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256
from typing import NamedTuple

from common.failures import Failure
from common.logs import get_logger
from common.qstash import QStashRefused, QStashUnclear, Queue
from common.record import AnalysisRecord, TransitionError
from common.settings import Settings
from common.store import AlreadyBound, Store, StoreUnavailable, Unreadable, utc_now
from common.task import AnalysisInput
from common.tracing import span
from operations.limit_settings import NO_LIMITS, LimitSettings
from operations.limits import UNLIMITED, Admission, admission

log = get_logger(__name__)


class OtherInput(Exception):
    """This request id stands for an analysis of another input, or of another person."""


class NotOwner(Exception):
    """Only who submitted an analysis may do this."""


class IdempotencyKey(NamedTuple):
    """The Redis key of a caller's Idempotency-Key, and a fingerprint of what came with it."""

    name: str
    fingerprint: str


class Timing(NamedTuple):
    """What the page needs to tell times: Redis's clock beside ours, and the usual duration."""

    ahead: timedelta = timedelta(0)
    usual: timedelta | None = None


def new_request_id() -> str:
    """Make an id that nobody can guess: who knows it may read the analysis."""
    return secrets.token_hex(16)


def new_owner_token() -> str:
    """Make the token that lets the submitter, and nobody else, cancel, retry and delete."""
    return secrets.token_urlsafe(24)


class Submissions:
    """What a person can do; each raises StoreUnavailable within about 10 s when Redis is away."""

    def __init__(
        self,
        store: Store,
        queue: Queue,
        settings: Settings,
        clock: Callable[[], datetime] = utc_now,
        *,
        limits: LimitSettings | None = None,
        is_operator: bool = False,  # who may do all that the owner may
    ) -> None:
        self._store = store
        self._queue = queue
        self._settings = settings
        self._limits = limits or NO_LIMITS
        self._clock = clock
        self._is_operator = is_operator

    @span("submit")
    def submit(
        self,
        input: AnalysisInput,
        *,
        request_id: str,
        owner_token: str | None = None,
        created_by: str | None = None,
        visitor: str | None = None,
        key: IdempotencyKey | None = None,
    ) -> AnalysisRecord:
        """Store a pending record, then publish its message.

        Safe to call again with the same arguments: one id makes one analysis, and so does one
        `key`, as long as the record of the first id that came with it is there. When QStash
        refuses the message, the record returned is failed (`not_queued`), and a further call
        publishes again. `created_by` names the API key, `visitor` a visitor of the page.
        Raises: LimitReached, OtherInput, StoreUnavailable.
        """
        now = self._store.now()
        record = AnalysisRecord.new(
            request_id,
            input,
            owner_hash=_hash(owner_token),
            created_by=created_by,
            idempotency_key=key.name if key else None,
            now=now,
            delay=self._settings.qstash_delay,
            deadline=self._settings.times.deadline,
        )
        limits, fingerprint = self._admission(now, visitor), key and key.fingerprint
        try:
            if self._store.create(record, limits, fingerprint):
                log.info("submitted", request_id=request_id)
                return self._publish(record, now)
        except AlreadyBound as bound:
            if bound.claim.fingerprint != fingerprint:
                raise OtherInput from None
            request_id = bound.claim.request_id
        stored = self._store.read(request_id)
        if stored.owner_hash != record.owner_hash or stored.input not in (None, input):
            raise OtherInput
        log.info("submitted again", request_id=request_id, was=stored.status)
        if stored.failure is Failure.NOT_QUEUED:
            try:
                return self._reopen(request_id)
            except TransitionError:  # another call of the same submission was quicker
                return self._store.read(request_id)
        if not stored.status.is_terminal and stored.message_id is None:
            return self._publish(stored, now, is_first=False)
        return stored

    def look_up(self, request_id: str) -> AnalysisRecord:
        """Read an analysis, and publish its message if that seems never to have happened.

        One Redis command as a rule. Raises: NotFound, StoreUnavailable.
        """
        record = self._store.read(request_id)
        if not record.is_unpublished(self._clock()):
            return record
        try:
            record = self._store.update(request_id, lambda r, now: r.try_publish(now=now))
        except TransitionError:
            return record
        log.warning("publishing again", request_id=request_id, round=record.round)
        return self._publish(record, record.published_at, is_first=False)

    def timing(self) -> Timing:
        """How far Redis's clock is ahead of ours, and how long an attempt usually takes.

        Two Redis commands: not for every poll. Raises: StoreUnavailable.
        """
        return Timing(self._store.now() - self._clock(), self._store.usual_duration())

    def input_of(self, request_id: str, owner_token: str) -> AnalysisInput | None:
        """Give back what was written, while it is kept. Raises: NotFound, NotOwner."""
        record = self._store.read(request_id)
        self._check_owner(record, owner_token)
        return record.input

    def cancel(self, request_id: str, owner_token: str) -> AnalysisRecord:
        """Cancel before or during the attempt. Raises: NotFound, NotOwner, TransitionError."""

        def cancel(record: AnalysisRecord, now: datetime) -> AnalysisRecord:
            self._check_owner(record, owner_token)
            return record.cancel(now=now)

        record = self._store.update(request_id, cancel)
        log.info("cancelled", request_id=request_id, attempt=record.attempt, status=record.status)
        if record.message_id:
            self._queue.cancel(record.message_id)
        return record

    @span("retry")
    def retry(
        self, request_id: str, owner_token: str, visitor: str | None = None
    ) -> AnalysisRecord:
        """Run a failed analysis again, as a new round, which counts like a new analysis.

        Raises: LimitReached, NotFound, NotOwner, TransitionError.
        """
        record, now = self._store.read(request_id), self._store.now()
        self._check_owner(record, owner_token)
        limits = UNLIMITED if self._is_operator else self._admission(now, visitor)
        self._store.admit(self._reopened(record, now), now, limits)
        return self._reopen(request_id)

    def delete(self, request_id: str, owner_token: str) -> None:
        """Remove record, result and waiting message. Raises: NotFound, NotOwner."""
        try:
            record = self._store.read(request_id)
        except Unreadable:
            if not self._is_operator:
                raise
            self._store.delete(request_id)
            log.info("deleted", request_id=request_id, was="unreadable")
            return
        self._check_owner(record, owner_token)
        self._store.delete(request_id)
        log.info("deleted", request_id=request_id, was=record.status)
        if record.message_id and not record.status.is_terminal:
            self._queue.cancel(record.message_id)

    def _admission(self, now: datetime, visitor: str | None) -> Admission:
        return admission(self._settings, self._limits, now, visitor)

    def _reopened(self, record: AnalysisRecord, now: datetime) -> AnalysisRecord:
        times = self._settings.times
        return record.reopen(now=now, delay=self._settings.qstash_delay, deadline=times.deadline)

    def _reopen(self, request_id: str) -> AnalysisRecord:
        """Start a new round and publish its message; whose it is has been checked before."""
        record = self._store.update(request_id, self._reopened)
        log.info("reopened", request_id=request_id, round=record.round)
        return self._publish(record, record.published_at)

    def _check_owner(self, record: AnalysisRecord, owner_token: str) -> None:
        if self._is_operator:
            return
        owner_hash = record.owner_hash
        if owner_hash is None or not hmac.compare_digest(_hash(owner_token) or "", owner_hash):
            raise NotOwner

    def _publish(
        self, record: AnalysisRecord, now: datetime, *, is_first: bool = True
    ) -> AnalysisRecord:
        """Publish this round's message and write into the record how that went.

        If it is not the first try, an earlier one may have been taken without our knowing.
        """
        request_id, round = record.request_id, record.round
        try:
            message_id = self._queue.publish(record, now=now, is_first=is_first)
        except QStashRefused as error:
            noted = self._note(
                record, now, lambda r, now: r.not_queued(round=round, is_first=is_first, now=now)
            )
            if noted.failure is Failure.NOT_QUEUED:
                log.error(
                    "not queued",
                    request_id=request_id,
                    round=round,
                    status=noted.status,
                    code=noted.failure,
                    cause=str(error),
                )
            else:
                log.warning(
                    "perhaps not queued", request_id=request_id, round=round, cause=str(error)
                )
            return noted
        except QStashUnclear as error:
            log.warning("perhaps not queued", request_id=request_id, round=round, cause=str(error))
            return record
        log.info("published", request_id=request_id, round=round, message_id=message_id)
        try:
            return self._note(record, now, lambda r, _: r.published(message_id, round=round))
        except StoreUnavailable as error:
            # The message is on its way; without its id the record is only published once more.
            log.warning("message id not stored", request_id=request_id, cause=str(error))
            return record

    def _note(
        self,
        record: AnalysisRecord,
        now: datetime,
        transition: Callable[[AnalysisRecord, datetime], AnalysisRecord],
    ) -> AnalysisRecord:
        try:
            return self._store.update(record.request_id, transition, known=(record, now))
        except TransitionError:  # somebody went on with it meanwhile
            return self._store.read(record.request_id)


def _hash(owner_token: str | None) -> str | None:
    return sha256(owner_token.encode()).hexdigest() if owner_token else None
