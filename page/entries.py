"""One line of "Your requests on this device", as the browser is given it to remember."""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime

from common.fields import Model
from common.record import AnalysisRecord
from common.states import Status
from common.versions import Why
from page.quoted import first_words
from page.snapshot import Snapshot
from page.texts import GONE, STATUSES, UNKNOWN_USUAL
from page.unreadable import unreadable_title


class Mark(StrEnum):
    """The sign before an entry."""

    WAITING = "waiting"
    READY = "ready"
    FAILED = "failed"
    GONE = "gone"  # or cancelled: there is nothing to come, and nothing to read


MARKS = {Status.COMPLETED: Mark.READY, Status.FAILED: Mark.FAILED, Status.CANCELLED: Mark.GONE}


class Entry(Model):
    """One of "Your requests on this device", as it goes there."""

    request_id: str
    state: str
    mark: Mark
    is_over: bool
    is_lost: bool = False  # nothing can be done with it any more
    created_at: AwareDatetime | None = None
    begun_at: AwareDatetime | None = None  # of the present round
    ready_at: AwareDatetime | None = None  # about, while it is waited for
    kept_until: AwareDatetime | None = None
    owner_token: str | None = None
    label: str | None = None  # only for who wrote it: in no log, not in Redis, in no URL


def entry(
    snapshot: Snapshot,
    kept: timedelta,
    owner_token: str | None = None,
    *,
    usual: timedelta | None = None,
    is_owner: bool = False,
) -> Entry | None:
    """What the browser should remember; None when nothing is known.

    A new one comes with its owner token. Who has that is also given the first words of what was
    written, which may have been edited.
    """
    record = snapshot.record
    is_owner = is_owner or owner_token is not None
    if snapshot.is_gone or (snapshot.is_unreadable and snapshot.why is not Why.NEWER):
        state = GONE if snapshot.is_gone else unreadable_title(snapshot)
        request_id = snapshot.request_id
        return Entry(request_id=request_id, state=state, mark=Mark.GONE, is_over=True, is_lost=True)
    if record is None:
        return None
    return Entry(
        request_id=record.request_id,
        state=STATUSES[record.status].label,
        mark=MARKS.get(record.status, Mark.WAITING),
        is_over=snapshot.is_over,
        created_at=record.created_at,
        begun_at=record.created_at if record.round == 1 else record.published_at,
        ready_at=_ready_at(record, usual or UNKNOWN_USUAL),
        kept_until=(record.finished_at or record.deadline_at) + kept,
        owner_token=owner_token,
        label=first_words(record.input) if is_owner and record.input else None,
    )


def _ready_at(record: AnalysisRecord, usual: timedelta) -> datetime | None:
    """Return when it is likely to be ready: after what is left of the queue, and the writing."""
    if record.status is Status.PENDING:
        return record.next_attempt_at + usual
    if record.status is Status.PROCESSING and record.claimed_at:
        return record.claimed_at + usual
    return None
