"""The waiting, and how it ended: what the browser draws of an analysis in one card.

In a text, `{at}` is the time of day when it should be ready, and `{time}` how long until the next
try: the browser fills them in, and ticks by itself.
"""

from datetime import datetime, timedelta
from typing import Literal

from pydantic import AwareDatetime

from common.failures import Failure, Kind
from common.fields import Model
from common.record import MAX_ATTEMPTS, AnalysisRecord
from common.states import Status
from page import texts
from page.steps import Step, draw_up_steps, round_start, took
from page.texts import SECOND, UNKNOWN_USUAL, try_of_all

GRACE = timedelta(seconds=2)  # for a delivery that is on its way
SLOW = timedelta(seconds=5)  # at least so much longer than usual
SOON = timedelta(seconds=30)  # what takes longer isn't ready at any moment
READY_AT, TO_GO = "Ready at about {at}", "to go"


class Note(Model):
    """Why it takes longer."""

    lead: str
    text: str


class Phase(Model):
    """What is said until a moment; the last one stays."""

    until: AwareDatetime | None = None
    headline: str = ""
    line: str = ""
    unit: str = ""  # below the time to go
    counts: bool = False  # whether there is one
    ready: str = ""  # below the last step
    note: Note | None = None


class Ring(Model):
    """One circle: the queue until `writes_at`, then the writing until `ready_at`."""

    part: Literal["queue", "retry", "writing"]
    place: str  # where it was last seen, should the connection be lost
    starts_at: AwareDatetime
    writes_at: AwareDatetime
    ready_at: AwareDatetime


class Progress(Model):
    """All that the browser draws of it; `now` is Redis's clock."""

    now: AwareDatetime
    state: Status
    badge: Literal["wrench", "stopped"] | None = None
    ring: Ring | None = None
    phases: list[Phase]
    steps: list[Step]


def progress(
    record: AnalysisRecord,
    now: datetime,
    usual: timedelta | None,
    *,
    ahead: int | None = None,
    is_owner: bool | None = None,
) -> Progress:
    """Tell how far the analysis is, and when it should be ready.

    `ahead` is how many others come before it, where that is known.
    """
    usual = _whole(usual or UNKNOWN_USUAL)
    ring: Ring | None = None
    match record.status:
        case Status.PENDING:
            ring, phases = _queue_ring(record, usual), _queued(record, usual, ahead, is_owner)
        case Status.PROCESSING:
            ring = _writing_ring(record, usual)
            phases = _being_written(record, ring.ready_at, usual)
        case Status.COMPLETED:
            phases = [Phase(line=took(record))]
        case _:
            phases = [_ended(record, is_owner)]
    steps = draw_up_steps(record, usual)
    badge = None if ring or record.status is Status.COMPLETED else _badge(record)
    return Progress(
        now=now, state=record.status, badge=badge, ring=ring, phases=phases, steps=steps
    )


def _whole(duration: timedelta) -> timedelta:
    """In whole seconds, so that all that is said of it adds up."""
    return max(SECOND, timedelta(seconds=round(duration.total_seconds())))


# ── In the queue, and being written ─────────────────────────────────────────────────────────


def _queue_ring(record: AnalysisRecord, usual: timedelta) -> Ring:
    due_at = record.next_attempt_at
    return Ring(
        part="retry" if record.attempt else "queue",
        place="waiting to try again" if record.attempt else "in the queue",
        starts_at=round_start(record),
        writes_at=due_at,
        ready_at=due_at + usual,
    )


def _writing_ring(record: AnalysisRecord, usual: timedelta) -> Ring:
    begun_at = record.claimed_at
    assert begun_at, "a claimed record says when"
    return Ring(
        part="writing",
        place="being written",
        starts_at=round_start(record),
        writes_at=begun_at,
        ready_at=begun_at + usual,
    )


def _queued(
    record: AnalysisRecord, usual: timedelta, ahead: int | None, is_owner: bool | None
) -> list[Phase]:
    """What is said before the attempt, and when that should have begun already."""
    line = texts.queue_line(None if record.attempt else ahead, is_owner)
    phase = Phase(
        until=record.next_attempt_at + GRACE,
        headline=READY_AT,
        line=line,
        unit=TO_GO,
        counts=True,
        ready="about {at}",
        note=_retry_note(record, "in {time}", record.attempt + 1),
    )
    subject = "Ready" if usual <= SOON else "Starting"
    late = {
        "until": None,
        "headline": f"{subject} any moment now",
        "unit": "any moment",
        "counts": False,
        "ready": "soon",
        "note": _retry_note(record, "any moment now", record.attempt + 1),
    }
    return [phase, phase.model_copy(update=late)]


def _being_written(record: AnalysisRecord, ready_at: datetime, usual: timedelta) -> list[Phase]:
    """What is said until it should be ready, a little later, and much later."""
    phase = Phase(
        until=ready_at,
        headline=READY_AT,
        line="Being written now · you can close this page",
        unit=TO_GO,
        counts=True,
        ready="about {at}",
        note=_retry_note(record, "now", record.attempt),
    )
    late = {
        "until": ready_at + max(usual, SLOW),
        "headline": "Ready any moment now",
        "unit": "any moment",
        "counts": False,
        "ready": "soon",
    }
    is_last = record.attempt >= MAX_ATTEMPTS
    slow = {
        "until": None,
        "headline": "Taking a little longer than usual",
        "unit": "still writing",
        "line": f"This is the {try_of_all(record.attempt)}."
        if is_last
        else "If it fails, we try again automatically.",
    }
    return [phase, phase.model_copy(update=late), phase.model_copy(update=late | slow)]


def _retry_note(record: AnalysisRecord, when: str, attempt: int) -> Note | None:
    if attempt <= 1:
        return None
    text = f"({try_of_all(attempt)}): {texts.last_reason(record)} There is nothing for you to do."
    return Note(lead=f"Trying again {when}", text=text)


# ── The end ─────────────────────────────────────────────────────────────────────────────────


def _ended(record: AnalysisRecord, is_owner: bool | None) -> Phase:
    if record.status is Status.CANCELLED:
        return Phase(headline=texts.ended_title(record), line=texts.cancelled_text(record))
    can_go_on = record.input is not None and record.has_rounds_left
    return Phase(
        headline=texts.ended_title(record),
        line=texts.failure_text(record, is_owner),
        ready="not yet" if can_go_on else "",
    )


def _badge(record: AnalysisRecord) -> Literal["wrench", "stopped"]:
    """A wrench for what is ours to fix."""
    failure = record.failure or Failure.INTERNAL_ERROR
    is_ours = record.status is Status.FAILED and failure.kind is Kind.OPERATOR
    return "wrench" if is_ours else "stopped"
