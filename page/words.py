"""What the page says about an analysis, and when it looks again: plain functions of a record.

In a sentence, `{time}` and `{at}` are filled in by the browser, which ticks by itself.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AwareDatetime

from common.failures import Failure, Kind
from common.fields import Model
from common.ports import LimitReached
from common.record import MAX_ATTEMPTS, AnalysisRecord, Status
from common.settings import Settings
from common.task import Analysis

STAND_IN_MODEL = "local-stand-in"
NEAR_SECONDS, FAR_SECONDS, MAX_PAUSE_SECONDS = 2, 5, 30
SECOND = timedelta(seconds=1)
FAR = timedelta(seconds=10)  # from here on the due time counts as near
LONG_WITHOUT_USUAL = timedelta(seconds=20)

TITLES = {
    Status.PENDING: "Your request is in the queue",
    Status.PROCESSING: "Writing your analysis",
    Status.COMPLETED: "Your analysis",
    Status.FAILED: "This did not work",
    Status.CANCELLED: "Cancelled",
}
STATES = {
    Status.PENDING: "Waiting",
    Status.PROCESSING: "Writing",
    Status.COMPLETED: "Ready",
    Status.FAILED: "Did not work",
    Status.CANCELLED: "Cancelled",
}
MARKS = {
    Status.PENDING: "⏳",
    Status.PROCESSING: "✎",
    Status.COMPLETED: "✓",
    Status.FAILED: "✕",
    Status.CANCELLED: "✕",
}
GONE = "No longer kept"
UNREADABLE = "This analysis can't be read"
UNREADABLE_TEXT = (
    "What is stored under this link can't be shown. Trying again will not help; "
    "please send a new request."
)
AWAY = "We can't reach our store just now, and keep trying. There is nothing for you to do."


@dataclass(frozen=True)
class Snapshot:
    """What is known of an analysis after looking: its last record, or that there is none."""

    request_id: str
    record: AnalysisRecord | None = None
    is_gone: bool = False
    is_unreadable: bool = False
    failures: int = 0  # how often in a row the store was away

    @property
    def is_unavailable(self) -> bool:
        """Whether the store is. One miss is none: drawing anew for it makes a busy page busier."""
        return self.failures > 1

    @property
    def is_over(self) -> bool:
        return (
            self.is_gone
            or self.is_unreadable
            or (self.record is not None and self.record.status.is_terminal)
        )

    @property
    def says_unavailable(self) -> bool:
        """Whether to say that the store is away: not to who has all there is, or soon has."""
        return not self.is_over and (self.is_unavailable or self.record is None)


def poll_seconds(snapshot: Snapshot, now: datetime) -> int | None:
    """When to look again: never once it is over, and more and more rarely while Redis is away."""
    if snapshot.is_over:
        return None
    if snapshot.is_unavailable:
        return min(NEAR_SECONDS << min(snapshot.failures - 1, 8), MAX_PAUSE_SECONDS)
    record = snapshot.record
    is_far = record and record.status is Status.PENDING and record.next_attempt_at - now > FAR
    return FAR_SECONDS if is_far else NEAR_SECONDS


def has_changed(before: Snapshot, after: Snapshot) -> bool:
    """Whether there is something new to draw."""
    return (before.record, before.is_gone, before.is_unreadable, before.is_unavailable) != (
        after.record,
        after.is_gone,
        after.is_unreadable,
        after.is_unavailable,
    )


def has_become_ready(before: Snapshot, after: Snapshot) -> bool:
    """Whether the analysis was completed before the person's eyes."""
    return (
        before.record is not None
        and not before.is_over
        and after.record is not None
        and after.record.status is Status.COMPLETED
    )


def title(snapshot: Snapshot, was_here: bool | None = None) -> str:
    """The headline of the page. The browser tells a little later whether a dead link `was_here`."""
    record = snapshot.record
    if snapshot.is_gone and was_here is not None:
        return GONE if was_here else "Nothing here"
    if snapshot.is_unreadable:
        return UNREADABLE
    if record is None:
        return "One moment"
    is_retry = record.status is Status.PENDING and record.attempt
    return "Trying again soon" if is_retry else TITLES[record.status]


def announcement(snapshot: Snapshot, was_here: bool | None = None) -> str:
    """What is read aloud, once each time that it changes: the state, and no time that ticks."""
    said = f"{title(snapshot, was_here)}."
    if snapshot.record and snapshot.record.status is Status.PROCESSING:
        said += f" {_attempt(snapshot.record.attempt)}."
    return f"{said} {AWAY}" if snapshot.says_unavailable else said


def tab_title(snapshot: Snapshot) -> str:
    """The title of the browser's tab, its state first."""
    if snapshot.is_gone:
        return "Not found · Ask later"
    if snapshot.record is None:
        return "Ask later"
    return f"{MARKS[snapshot.record.status]} {STATES[snapshot.record.status]} · Ask later"


# ── The form ────────────────────────────────────────────────────────────────────────────────


def form_title(delay: timedelta) -> str:
    """What the page offers; the writing comes on top of the delay, so small ones have no number."""
    if delay < timedelta(seconds=45):
        return "Ask now, read in a moment"
    return f"Ask now, read in {spoken(delay).replace('one minute', 'a minute')}"


def promise(settings: Settings, usual: timedelta | None) -> dict[str, str]:
    """What happens, how long it takes, and who gets to see the text."""
    waiting = spoken(settings.qstash_delay).capitalize()
    writing = f"about {short(max(usual, SECOND))}" if usual else "some seconds"
    return {
        "What happens": "You tell a little about yourself and get an analysis of it to read.",
        "How long": f"{waiting} in the queue, then {writing} of writing. "
        "You may close the page meanwhile.",
        "Your text": f"{_reader(settings)} It is removed here once the analysis is ready, and from "
        "our storage's own log when that is next rewritten. "
        f"Whoever has the link can read the analysis; {spoken(settings.kept)} later all is gone.",
    }


def _reader(settings: Settings) -> str:
    """Say who reads the text."""
    if settings.openai_model == STAND_IN_MODEL:
        return "No AI model reads it: on this machine a stand-in counts its words."
    if settings.is_openai:
        return "An AI model at OpenAI reads it, which is asked not to store it."
    return f"An AI model reads it, which is reached through {settings.openai_host}."


# ── Time left, and the way so far ───────────────────────────────────────────────────────────


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


def progress(record: AnalysisRecord, now: datetime, usual: timedelta | None) -> Progress:
    """Say how far the analysis is, and how long it still takes."""
    return Progress(now=now, clock=_clock(record, usual), steps=_steps(record))


def _clock(record: AnalysisRecord, usual: timedelta | None) -> Clock | None:
    if record.status is Status.PROCESSING and record.claimed_at:
        return _writing_clock(record.claimed_at, record.attempt, usual)
    if record.status is not Status.PENDING:
        return None
    if record.attempt:
        next_one = _attempt(record.attempt + 1).lower()
        reason = f"{_last_reason(record)} There is nothing for you to do."
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
        before=Caption(headline=usually, note=f"{_attempt(attempt)}."),
        after=Caption(
            headline="This takes longer than usual",
            note=f"{f'{usually}. ' if usual else ''}{_attempt(attempt)}. {next_one}".strip(),
        ),
    )


def _steps(record: AnalysisRecord) -> list[Step]:
    received = Step(shape=Shape.DONE, title="Received", at=record.created_at)
    writing, ready = "Writing the analysis", Step(shape=Shape.AHEAD, title="Ready")
    match record.status:
        case Status.PENDING:
            ahead = Step(shape=Shape.AHEAD, title=writing)
            return [received, _waiting(record), ahead, ready]
        case Status.PROCESSING:
            now = Step(shape=Shape.NOW, title=writing, note=_attempt(record.attempt))
            return [received, _waited(record), now, ready]
        case Status.COMPLETED:
            return [received, _waited(record), *_written(record)]
    stopped = "Cancelled" if record.status is Status.CANCELLED else "Stopped"
    if record.attempt:
        note = f"{_at_or_after(record)} {_attempt(record.attempt).lower()}"
        return [received, _waited(record), _stopped(record, stopped, note)]
    return [received, _stopped(record, f"{stopped} while waiting")]


def _waiting(record: AnalysisRecord) -> Step:
    if not record.attempt:
        return Step(shape=Shape.NOW, title="Waiting in the queue")
    reason = f"{_attempt(record.attempt)} did not work: {_last_reason(record)}"
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
    which = f", {_attempt(record.attempt).lower()}" if record.attempt > 1 else ""
    after = f"{short(finished_at - record.created_at)} after it was sent"
    return [
        Step(shape=Shape.DONE, title="Wrote the analysis", note=f"{took}{which}"),
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


def _attempt(number: int) -> str:
    return f"Attempt {number} of {MAX_ATTEMPTS}"


def _last_reason(record: AnalysisRecord) -> str:
    return (record.last_failure or Failure.INTERNAL_ERROR).sentence


# ── The end, and what can be done ───────────────────────────────────────────────────────────


def failure_text(record: AnalysisRecord, is_owner: bool | None) -> str:
    """What happened, and, once it is known who reads this, whose turn it is."""
    failure = record.failure or Failure.INTERNAL_ERROR
    said = [failure.sentence]
    if failure is Failure.ATTEMPTS_EXHAUSTED and record.last_failure:
        said.append(f"The last time: {record.last_failure.sentence}")
    if is_owner is None:
        pass
    elif not is_owner:
        said.append("Only the browser that sent this request can try it again.")
    elif record.input is None:
        said.append("Its text is no longer kept; please send a new request.")
    elif record.has_rounds_left or needs_other_text(record):
        said.append(failure.next_step)
    elif failure.kind is Kind.OPERATOR:
        said.append("This is for us to mend. Please send a new request later.")
    else:
        said.append("It has been tried as often as we can; please send a new request.")
    return " ".join(said)


def cancelled_text(record: AnalysisRecord) -> str:
    """What cancelling came to."""
    asked = "after the model had been" if record.attempt else "before the model was"
    return f"This request was cancelled {asked} asked{_this_time(record)}. Its text was removed."


def cancel_warning(record: AnalysisRecord) -> str:
    """What cancelling now would mean."""
    if record.status is Status.PROCESSING:
        return "The model has already been asked. Its answer will be thrown away."
    if record.attempt:
        return "The model was asked already, without success. It will not be asked again."
    return f"The model has not been asked{_this_time(record) or ' yet'}, and will not be."


def _this_time(record: AnalysisRecord) -> str:
    """Only the latest round is known: whether an earlier one asked the model is not."""
    return " this time" if record.round > 1 else ""


def needs_other_text(record: AnalysisRecord) -> bool:
    """Whether the text itself is what can't be analysed."""
    return record.failure is not None and record.failure.kind is Kind.INPUT


def gone_text(was_here: bool) -> str:
    """Why there is nothing under a link; only the browser that sent it knows that it existed."""
    if was_here:
        return "This request was sent from this browser. Its time is over: all it held was removed."
    return "There is nothing under this link: it was not found, or is no longer kept."


def limit_text(error: LimitReached) -> str:
    """Why nothing new is taken just now, and when it may be."""
    return f"{error.limit.sentence} Please try again in {spoken(error.retry_after)}."


class Entry(Model):
    """One of "Your requests in this browser", as it goes there."""

    request_id: str
    state: str
    is_over: bool
    created_at: AwareDatetime | None = None
    kept_until: AwareDatetime | None = None
    owner_token: str | None = None


def entry(snapshot: Snapshot, kept: timedelta, owner_token: str | None = None) -> Entry | None:
    """What the browser should remember; None when nothing is known."""
    record = snapshot.record
    if snapshot.is_gone:
        return Entry(request_id=snapshot.request_id, state=GONE, is_over=True)
    if record is None:
        return None
    return Entry(
        request_id=record.request_id,
        state=STATES[record.status],
        is_over=snapshot.is_over,
        created_at=record.created_at,
        kept_until=(record.finished_at or record.deadline_at) + kept,
        owner_token=owner_token,
    )


def as_text(result: Analysis, ending: str) -> str:
    """The analysis to be pasted anywhere."""
    parts = [f"{title}\n{_plain(value)}" for title, value in _sections(result)]
    return "\n\n".join([*parts, f"{ending}\n"])


def as_markdown(result: Analysis, ending: str) -> str:
    """The analysis as a file; what the model wrote stays text there, too."""
    parts = [f"## {title}\n\n{_in_markdown(value)}" for title, value in _sections(result)]
    return "\n\n".join(["# Your analysis", *parts, f"---\n\n{_in_markdown(ending)}\n"])


def _sections(result: Analysis) -> list[tuple[str, str | list[str]]]:
    return [
        (name.replace("_", " ").capitalize(), value) for name, value in result.model_dump().items()
    ]


def _plain(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "\n".join(f"- {item}" for item in value)


# Links, entities, emphasis and the like begin anywhere; lists and underlines where a line does.
_MARKUP = re.compile(r"[\\`*_\[\]<>#|~$&]|[.:](?=\S)|/(?=/)|(?<=\d)[.)]|(?<=www)\.|^[-+=]")


def _line_in_markdown(text: str) -> str:
    """Escape all that Markdown and GitHub's extensions would not show as it is.

    White space becomes single spaces: several make code at the start, a line break at the end.
    GitHub itself links a mail address even when it is escaped; others show it as text.
    Source: https://github.github.com/gfm/#backslash-escapes
    """
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _in_markdown(value: str | list[str]) -> str:
    """Keep the lines of a text, and write each item of a list into one."""
    if isinstance(value, str):
        return "\n".join(map(_line_in_markdown, value.splitlines()))
    return "\n".join(f"- {_line_in_markdown(item)}" for item in value)


def dates(record: AnalysisRecord, kept: timedelta, timezone: str | None) -> str:
    """When it was ready, and until when it is kept, in the visitor's time zone."""
    ready_at = record.finished_at
    assert ready_at, "a terminal record says when"
    try:
        zone, told = ZoneInfo(timezone or "UTC"), ""
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a directory, too long
        zone, told = ZoneInfo("UTC"), " UTC"
    ready, until = (
        f"{t.astimezone(zone):%-d %B, %H:%M}{told}" for t in (ready_at, ready_at + kept)
    )
    return f"Ready {ready} · Kept until {until}"


def ending(record: AnalysisRecord) -> str:
    """Who wrote the analysis, and what that means."""
    if record.model == STAND_IN_MODEL:
        return "No AI model was asked: the local stand-in counted words in your text."
    return "Written by an AI model. It can be wrong; check anything that matters."


# ── Durations ───────────────────────────────────────────────────────────────────────────────


def short(duration: timedelta) -> str:
    """`under 1 s`, `8 s`, `1 min 5 s`, `2 h`."""
    seconds = round(duration.total_seconds())
    if seconds < 1:
        return "under 1 s"
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min" + (f" {seconds % 60} s" if seconds % 60 else "")
    return f"{round(seconds / 3600)} h"


def spoken(duration: timedelta) -> str:
    """`5 seconds`, `one minute`, `90 minutes`, `2 hours`: never off by more than a tenth."""
    seconds = round(duration.total_seconds())
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        number = round(seconds / size)
        if number >= (2 if unit == "day" else 1) and abs(number * size - seconds) <= seconds / 10:
            return f"one {unit}" if number == 1 else f"{number} {unit}s"
    return "no time"
