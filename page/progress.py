"""The ring and the timeline: what the browser draws of an analysis that is under way, or over.

In a sentence, `{time}` and `{at}` are filled in by the browser, which ticks by itself.
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime

from common.fields import Model
from common.record import MAX_ATTEMPTS, AnalysisRecord
from common.states import Status
from common.task import TASK
from page.texts import SECOND, attempt_text, last_reason, short

LONG_WITHOUT_USUAL = timedelta(seconds=20)


class Shape(StrEnum):
    """How a step is drawn; shapes differ, not colours alone."""

    DONE = "done"
    NOW = "now"
    AHEAD = "ahead"
    STOPPED = "stopped"


class Step(Model):
    """One line of the timeline."""

    shape: Shape
    title: str
    note: str = ""
    at: AwareDatetime | None = None


class Caption(Model):
    """What stands beside the ring."""

    headline: str
    note: str = ""


class Clock(Model):
    """A ring that drains to `end`, or counts up from `start`."""

    counts: Literal["down", "up"]
    start: AwareDatetime
    end: AwareDatetime
    before: Caption  # until `end`
    after: Caption


class Progress(Model):
    """All that the browser draws of the waiting; `now` is Redis's clock."""

    now: AwareDatetime
    clock: Clock | None
    steps: list[Step]


def progress(
    record: AnalysisRecord,
    now: datetime,
    usual: timedelta | None,
    *,
    ahead: int | None = None,
    is_owner: bool | None = None,
) -> Progress:
    """Tell how far the analysis is, and how long it still takes."""
    return Progress(now=now, clock=_clock(record, usual), steps=_steps(record))


def _clock(record: AnalysisRecord, usual: timedelta | None) -> Clock | None:
    if record.status is Status.PROCESSING and record.claimed_at:
        return _writing_clock(record.claimed_at, record.attempt, usual)
    if record.status is not Status.PENDING:
        return None
    if record.attempt:
        next_one = attempt_text(record.attempt + 1).lower()
        reason = f"{last_reason(record)} There is nothing for you to do."
        before = Caption(headline=f"Trying again in {{time}}, {next_one}", note=reason)
        after = Caption(headline=f"Trying again any moment now, {next_one}", note=reason)
        start = record.last_failed_at or record.claimed_at or record.created_at
    else:
        before = Caption(headline="Starts in {time}", note="Planned for {at}")
        after = Caption(headline="Starting any moment now", note="There is nothing for you to do.")
        start = _round_start(record)
    end = record.next_attempt_at
    return Clock(counts="down", start=start, end=end, before=before, after=after)


def _writing_clock(start: datetime, attempt: int, usual: timedelta | None) -> Clock:
    usually = f"Usually about {short(max(usual, SECOND))}" if usual else "This takes some seconds"
    late = max(2 * usual, usual + timedelta(seconds=5)) if usual else LONG_WITHOUT_USUAL
    next_one = "Should it fail, the next one begins by itself." if attempt < MAX_ATTEMPTS else ""
    return Clock(
        counts="up",
        start=start,
        end=start + late,
        before=Caption(headline=usually, note=f"{attempt_text(attempt)}."),
        after=Caption(
            headline="This takes longer than usual",
            note=f"{f'{usually}. ' if usual else ''}{attempt_text(attempt)}. {next_one}".strip(),
        ),
    )


def _steps(record: AnalysisRecord) -> list[Step]:
    received = Step(shape=Shape.DONE, title="Received", at=record.created_at)
    writing, ready = f"Writing the {TASK.noun}", Step(shape=Shape.AHEAD, title="Ready")
    match record.status:
        case Status.PENDING:
            ahead = Step(shape=Shape.AHEAD, title=writing)
            return [received, _waiting(record), ahead, ready]
        case Status.PROCESSING:
            now = Step(shape=Shape.NOW, title=writing, note=attempt_text(record.attempt))
            return [received, _waited(record), now, ready]
        case Status.COMPLETED:
            return [received, _waited(record), *_written(record)]
    stopped = "Cancelled" if record.status is Status.CANCELLED else "Stopped"
    if record.attempt:
        note = f"{_at_or_after(record)} {attempt_text(record.attempt).lower()}"
        return [received, _waited(record), _stopped(record, stopped, note)]
    return [received, _stopped(record, f"{stopped} while waiting")]


def _waiting(record: AnalysisRecord) -> Step:
    if not record.attempt:
        return Step(shape=Shape.NOW, title="Waiting in the queue")
    reason = f"{attempt_text(record.attempt)} did not work: {last_reason(record)}"
    return Step(shape=Shape.NOW, title="Waiting to try again", note=reason)


def _waited(record: AnalysisRecord) -> Step:
    """The record knows when its latest attempt began: if the first, that ended the waiting."""
    if record.attempt != 1 or record.claimed_at is None:
        return Step(shape=Shape.DONE, title="Waited in the queue")
    note = f"for {short(record.claimed_at - _round_start(record))}"
    return Step(shape=Shape.DONE, title="Waited in the queue", note=note, at=record.claimed_at)


def _written(record: AnalysisRecord) -> list[Step]:
    finished_at = record.finished_at
    assert finished_at, "a terminal record says when"
    took = f"in {short(finished_at - record.claimed_at)}" if record.claimed_at else ""
    which = f", {attempt_text(record.attempt).lower()}" if record.attempt > 1 else ""
    after = f"{short(finished_at - record.created_at)} after it was sent"
    return [
        Step(shape=Shape.DONE, title=f"Wrote the {TASK.noun}", note=f"{took}{which}"),
        Step(shape=Shape.DONE, title="Ready", note=after, at=finished_at),
    ]


def _stopped(record: AnalysisRecord, title: str, note: str = "") -> Step:
    return Step(shape=Shape.STOPPED, title=title, note=note, at=record.finished_at)


def _at_or_after(record: AnalysisRecord) -> str:
    """Whether the latest attempt was still under way in the end, or had failed before."""
    claimed_at, failed_at = record.claimed_at, record.last_failed_at
    return "After" if claimed_at and failed_at and claimed_at <= failed_at else "At"


def _round_start(record: AnalysisRecord) -> datetime:
    return record.created_at if record.round == 1 else record.published_at
