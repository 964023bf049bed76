"""The four steps of an analysis, and how long each took.

All durations are between whole seconds of one clock, so that they add up to the whole.
"""

from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime

from common.failures import Failure
from common.fields import Model
from common.record import AnalysisRecord
from common.states import Status
from page.texts import ALL_TRIES, nth_try
from page.times import seconds_between, short


class Shape(StrEnum):
    """How a step is drawn; shapes differ, not colours alone."""

    DONE = "done"
    NOW = "now"
    AHEAD = "ahead"
    AGAIN = "again"
    STOPPED = "stopped"


class Step(Model):
    """One of the four; below its title a note, or a time of day."""

    shape: Shape
    title: str
    note: str = ""
    at: AwareDatetime | None = None


def draw_up_steps(record: AnalysisRecord, usual: timedelta) -> list[Step]:
    """The four, with what is known of each; `usual` is how long the writing takes."""
    received = Step(shape=Shape.DONE, title="Received", at=record.created_at)
    return [received, _queue_step(record), _writing_step(record, usual), _ready_step(record)]


def _queue_step(record: AnalysisRecord) -> Step:
    shape, note = Shape.DONE, _waited(record)
    if not record.attempt and record.status is not Status.COMPLETED:
        is_over = record.status.is_terminal
        shape, note = (Shape.STOPPED, _stopped_note(record)) if is_over else (Shape.NOW, "now")
    return Step(shape=shape, title="In the queue", note=note)


def _waited(record: AnalysisRecord) -> str:
    """The record knows when its latest attempt began: if the first, that ended the waiting."""
    if record.attempt != 1 or record.claimed_at is None:
        return ""
    return f"for {short(seconds_between(round_start(record), record.claimed_at))}"


def _writing_step(record: AnalysisRecord, usual: timedelta) -> Step:
    shape, note = Shape.AHEAD, f"about {short(usual)}"
    match record.status:
        case Status.PENDING if record.attempt:
            shape, note = Shape.AGAIN, nth_try(record.attempt + 1)
        case Status.PROCESSING:
            shape, note = Shape.NOW, nth_try(record.attempt) if record.attempt > 1 else note
        case Status.COMPLETED:
            shape, note = Shape.DONE, _wrote(record)
        case Status.FAILED | Status.CANCELLED:
            shape = Shape.STOPPED if record.attempt else Shape.AHEAD
            note = _stopped_note(record) if record.attempt else ""
    return Step(shape=shape, title="Writing", note=note)


def _wrote(record: AnalysisRecord) -> str:
    begun_at, finished_at = record.claimed_at, record.finished_at
    if begun_at is None or finished_at is None:
        return ""
    return f"in {short(seconds_between(begun_at, finished_at))}"


def _stopped_note(record: AnalysisRecord) -> str:
    if record.failure is Failure.ATTEMPTS_EXHAUSTED:
        return f"after {ALL_TRIES} tries"
    claimed_at, failed_at = record.claimed_at, record.last_failed_at
    if claimed_at and failed_at and claimed_at <= failed_at:  # it waited for the next one
        return f"after the {nth_try(record.attempt)}"
    return "cancelled here" if record.status is Status.CANCELLED else "stopped here"


def _ready_step(record: AnalysisRecord) -> Step:
    """Until it is ready, the phase says below it when that may be."""
    finished_at = record.finished_at
    if record.status is not Status.COMPLETED or finished_at is None:
        return Step(shape=Shape.AHEAD, title="Ready")
    if record.round > 1:  # the times of earlier rounds are not known
        return Step(shape=Shape.DONE, title="Ready", at=finished_at)
    took = short(seconds_between(record.created_at, finished_at))
    return Step(shape=Shape.DONE, title="Ready", note=f"after {took}")


def round_start(record: AnalysisRecord) -> datetime:
    """When the waiting of the present round began."""
    return record.created_at if record.round == 1 else record.published_at


def took(record: AnalysisRecord) -> str:
    """How long the waiting and the writing took, in one line."""
    begun_at, finished_at = record.claimed_at, record.finished_at
    if begun_at is None or finished_at is None:
        return "How it went"
    wrote = short(seconds_between(begun_at, finished_at))
    if record.attempt > 1:
        return f"Written in {wrote}, at the {nth_try(record.attempt)}"
    waited = short(seconds_between(round_start(record), begun_at))
    return f"Waited {waited} · written in {wrote}"
