"""What a person can do with an analysis: submit, look up, edit, cancel, retry and delete it."""

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from common.connection import StoreUnavailable
from common.events import Deleted, Edited, Rejected, Reopened, Submitted, SubmittedAgain
from common.failures import Failure
from common.form import Form
from common.logs import get_logger
from common.owners import Owned, hash_of, owns
from common.ports import History, LimitReached, Limits, NoHistory, NoLimits
from common.publishing import Publisher
from common.qstash import Queue
from common.record import AnalysisRecord
from common.settings import Settings
from common.states import TransitionError
from common.store import NotFound, Store, utc_now
from common.tracing import span
from common.versions import Unreadable

log = get_logger(__name__)


class OtherInput(Exception):
    """This request id stands for an analysis of another input, person or task."""


class OfOtherTask(NotFound):
    """This analysis was made for another form or result, which this version can't show."""

    def __init__(self, owner_hash: str | None) -> None:
        super().__init__()
        self.owner_hash = owner_hash


class NotOwner(Exception):
    """Only who submitted an analysis may do this."""


class Timing(NamedTuple):
    """What the page needs to tell times: Redis's clock beside ours, and the usual duration."""

    ahead: timedelta = timedelta(0)
    usual: timedelta | None = None


def new_request_id() -> str:
    """Make an id that nobody can guess: who knows it may read the analysis."""
    return secrets.token_hex(16)


class Submissions:
    """What a person can do; each raises StoreUnavailable within about 10 s when Redis is away.

    All but `delete` raise Unreadable for a record that this version can't read.
    """

    def __init__(
        self,
        store: Store,
        queue: Queue,
        settings: Settings,
        clock: Callable[[], datetime] = utc_now,
        *,
        limits: Limits | None = None,
        history: History | None = None,
        is_operator: bool = False,  # who may do all that the owner may
    ) -> None:
        self._store = store
        self._queue = queue
        self._publisher = Publisher(store, queue)
        self._settings = settings
        self._clock = clock
        self._limits = limits or NoLimits()
        self._history = history or NoHistory()
        self._events = store.events
        self._is_operator = is_operator

    @span("submit")
    def submit(
        self,
        form: Form,
        *,
        request_id: str,
        owner_token: str | None = None,
        created_by: str | None = None,
        visitor: str | None = None,
        fingerprint: str | None = None,
    ) -> AnalysisRecord:
        """Store a pending record, then publish its message.

        Safe to call again with the same arguments: one id makes one analysis, and what its owner
        has changed since stays so. When QStash refuses the message, the record returned is failed
        (`not_queued`), and a further call publishes again. `created_by` names the API key,
        `visitor` a visitor of the page; a `fingerprint` of the input tells another one from it
        when the input itself is no longer kept. Raises: LimitReached, OtherInput, StoreUnavailable.
        """
        now = self._store.now()
        record = AnalysisRecord.new(
            request_id,
            form,
            owner_hash=hash_of(owner_token),
            created_by=created_by,
            fingerprint=fingerprint,
            now=now,
            delay=self._settings.qstash_delay,
            deadline=self._settings.times.deadline,
        )
        self._admit(record, visitor)
        if not self._store.create(record):
            return self._submit_again(record)
        self._events.emit(Submitted(record))
        return self._publisher.publish(record, now)

    def _submit_again(self, new: AnalysisRecord) -> AnalysisRecord:
        stored = self._store.read(new.request_id)
        who = stored.owner_hash, stored.created_by, stored.fingerprint
        if who != (new.owner_hash, new.created_by, new.fingerprint):
            raise OtherInput
        # An owner's id and token are made for one submission: the owner has changed its text since.
        is_same = stored.owner_hash is not None or stored.input in (None, new.input)
        if stored.is_of_other_task or not is_same:
            raise OtherInput
        self._events.emit(SubmittedAgain(stored))
        if stored.failure is Failure.NOT_QUEUED:
            try:
                return self._reopen(stored.request_id)
            except TransitionError:  # another call of the same submission was quicker
                return self._store.read(stored.request_id)
        if not stored.status.is_terminal and stored.message_id is None:
            return self._publisher.publish(stored, new.published_at, is_first=False)
        return stored

    def look_up(self, request_id: str) -> AnalysisRecord:
        """Read an analysis, and publish its message if that seems never to have happened.

        One Redis command as a rule; one that Redis has forgotten is read from the history, without
        its input. Raises: NotFound, OfOtherTask, StoreUnavailable.
        """
        record = self._find(request_id)
        if record.is_of_other_task:
            log.warning("made for another task", request_id=request_id, task=record.task)
            raise OfOtherTask(record.owner_hash)
        return record

    def _find(self, request_id: str) -> AnalysisRecord:
        try:
            record = self._store.read(request_id)
        except NotFound:
            return self._history.find(request_id).model_copy(update={"input": None})
        if not record.is_unpublished(self._clock()):
            return record
        try:
            record = self._store.update(request_id, lambda r, now: r.try_publish(now=now))
        except TransitionError:
            return record
        log.warning("publishing again", request_id=request_id, round=record.round)
        return self._publisher.publish(record, record.published_at, is_first=False)

    def timing(self) -> Timing:
        """How far Redis's clock is ahead of ours, and how long an attempt usually takes.

        Two Redis commands: not for every poll. Raises: StoreUnavailable.
        """
        return Timing(self._store.now() - self._clock(), self._store.usual_duration())

    def ahead(self, record: AnalysisRecord) -> int | None:
        """How many come before one that waits, as `Limits.ahead` counts; None if that isn't known.

        One Redis command, and none without QSTASH_PARALLELISM: not for every poll. Raises nothing.
        """
        try:
            return self._limits.ahead(record)
        except StoreUnavailable:
            return None

    def input_of(self, request_id: str, owner_token: str) -> Form | None:
        """Give back what was written, while it is kept, for a form that still asks for it.

        Raises: NotFound, NotOwner.
        """
        record = self._store.read(request_id)
        self._check_owner(record, owner_token)
        return None if record.is_of_other_task else record.input

    def edit(self, request_id: str, owner_token: str, form: Form) -> AnalysisRecord:
        """Change what was written, until an attempt begins; link, times and message stay.

        Safe to call again with the same form. Raises: NotFound, NotOwner, TransitionError.
        """

        def edit(record: AnalysisRecord, _: datetime) -> AnalysisRecord:
            self._check_owner(record, owner_token)
            return record.edit(form)

        record = self._store.update(request_id, edit)
        self._events.emit(Edited(record))
        return record

    def cancel(self, request_id: str, owner_token: str) -> AnalysisRecord:
        """Cancel before or during the attempt. Raises: NotFound, NotOwner, TransitionError."""

        def cancel(record: AnalysisRecord, now: datetime) -> AnalysisRecord:
            self._check_owner(record, owner_token)
            return record.cancel(now=now)

        record = self._store.update(request_id, cancel)
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
        self._admit(self.reopened(record, now), visitor)
        return self._reopen(request_id)

    def delete(self, request_id: str, owner_token: str) -> None:
        """Remove record, result, waiting message and what the history keeps, of any version.

        First from the history, which must not show what Redis has forgotten.
        Raises: NotFound, NotOwner.
        """
        known = self._known(request_id)
        self._check_owner(known, owner_token)
        self._history.forget(request_id)
        self._store.delete(request_id)
        record = known if isinstance(known, AnalysisRecord) else None
        self._events.emit(Deleted(request_id, record, known.round))
        if known.message_id and not (record and record.status.is_terminal):
            self._queue.cancel(known.message_id)

    def _known(self, request_id: str) -> AnalysisRecord | Unreadable:
        """What is stored; or why it can't be read, which tells whose it is. Raises: NotFound."""
        try:
            try:
                return self._store.read(request_id)
            except NotFound:
                return self._history.find(request_id)
        except Unreadable as error:
            return error

    def reopened(self, record: AnalysisRecord, now: datetime) -> AnalysisRecord:
        """Make a failed record's next round. Raises: TransitionError."""
        times = self._settings.times
        return record.reopen(now=now, delay=self._settings.qstash_delay, deadline=times.deadline)

    def _admit(self, record: AnalysisRecord, visitor: str | None) -> None:
        try:
            self._limits.admit(record, visitor=visitor)
        except LimitReached as error:
            self._events.emit(Rejected(record.request_id, error.limit))
            raise

    def _reopen(self, request_id: str) -> AnalysisRecord:
        """Start a new round and publish its message; whose it is has been checked before."""
        record = self._store.update(request_id, self.reopened)
        self._events.emit(Reopened(record))
        return self._publisher.publish(record, record.published_at)

    def _check_owner(self, owned: Owned, owner_token: str) -> None:
        if not self._is_operator and not owns(owned, owner_token):
            raise NotOwner
