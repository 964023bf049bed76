"""The sentences of the page: plain functions of what they are about."""

from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from common.failures import Failure, Kind, Limit
from common.ports import LimitReached
from common.questions import in_words
from common.record import MAX_ATTEMPTS, AnalysisRecord
from common.settings import Settings
from common.states import Status
from common.task import TASK
from page.snapshot import Snapshot

STAND_IN_MODEL = "local-stand-in"
SECOND = timedelta(seconds=1)
UNKNOWN_USUAL = timedelta(seconds=10)  # of writing, while nobody knows
NOT_SENT = "Not sent yet."
GONE = "No longer kept"
UNREADABLE = "No longer readable here"
UNREADABLE_TEXT = (
    "What is stored under this link can't be shown any more. Trying again will not help; "
    "please send a new request."
)
UNAVAILABLE = "We can't reach our store just now, and keep trying. There is nothing for you to do."
TEXT_KEPT = "Your text is still here."
NOT_SUBMITTED = "We can't take your request just now."
KEPT_TRY_AGAIN = "Your text is still here: please try again."
AT_LIMIT = "We're at our limit right now."
NO_LONGER_POSSIBLE = "That was not possible any more."
EDITED_TOO_LATE = (
    "Too late for that: writing has begun, with your text as it was. "
    "This is the text as you changed it; send it as another request, if you like."
)
NOT_REACHED = "We can't reach our store just now. Please try again."
DELETE_WARNING = (
    "**Delete for good?** The request, its result and its place in the queue are removed "
    "at once, for everybody who has the link. Our storage's own log may hold a copy until "
    "it is next rewritten."
)


class StatusTexts(NamedTuple):
    """How a status is shown: in the browser's tab and list, and as the headline of the page."""

    mark: str
    label: str
    title: str


STATUSES = {
    Status.PENDING: StatusTexts("⏳", "Waiting", "Your request is in the queue"),
    Status.PROCESSING: StatusTexts("✎", "Writing", f"Writing your {TASK.noun}"),
    Status.COMPLETED: StatusTexts("✓", "Ready", f"Your {TASK.noun}"),
    Status.FAILED: StatusTexts("✕", "Did not work", "This did not work"),
    Status.CANCELLED: StatusTexts("✕", "Cancelled", "Cancelled"),
}


def title(snapshot: Snapshot, is_listed: bool | None = None) -> str:
    """The headline of the page.

    `is_listed` says whether the browser has this request in its list; None until it has replied.
    """
    record = snapshot.record
    if snapshot.is_gone and is_listed is not None:
        return GONE if is_listed else "Nothing here"
    if snapshot.is_unreadable:
        return UNREADABLE
    if record is None:
        return "One moment"
    is_retry = record.status is Status.PENDING and record.attempt
    return "Trying again soon" if is_retry else STATUSES[record.status].title


def result_title(is_owner: bool | None) -> str:
    """The heading over a result; None while it isn't known who reads it."""
    if is_owner is None:
        return in_words(TASK.noun)
    return f"Your {TASK.noun}" if is_owner else f"{in_words(TASK.noun)}, shared with you"


def announcement(snapshot: Snapshot, is_listed: bool | None = None) -> str:
    """What is read aloud, once each time that it changes: the state, and no time that ticks."""
    sentences = [f"{title(snapshot, is_listed)}."]
    if snapshot.record and snapshot.record.status is Status.PROCESSING:
        sentences.append(f"{attempt_text(snapshot.record.attempt)}.")
    if snapshot.says_unavailable:
        sentences.append(UNAVAILABLE)
    return " ".join(sentences)


def tab_title(snapshot: Snapshot) -> str:
    """The title of the browser's tab, its state first."""
    if snapshot.is_gone:
        return f"Not found · {TASK.name}"
    if snapshot.record is None:
        return TASK.name
    status = STATUSES[snapshot.record.status]
    return f"{status.mark} {status.label} · {TASK.name}"


def attempt_text(number: int) -> str:
    """`Attempt 1 of 3`."""
    return f"Attempt {number} of {MAX_ATTEMPTS}"


def last_reason(record: AnalysisRecord) -> str:
    """Why the latest attempt failed."""
    return (record.last_failure or Failure.INTERNAL_ERROR).sentence


# ── The form ────────────────────────────────────────────────────────────────────────────────


def promise(settings: Settings, kept: timedelta, usual: timedelta | None) -> str:
    """How soon, and kept how long, in one line."""
    whole = settings.qstash_delay + max(usual or UNKNOWN_USUAL, SECOND)
    return f"Ready in {about(whole)} · deleted after {spoken(kept)}"


def explanation(settings: Settings, kept: timedelta, usual: timedelta | None) -> dict[str, str]:
    """What happens, and who gets to see the text."""
    waiting = spoken(settings.qstash_delay).capitalize()
    writing = f"about {spoken(max(usual, SECOND))}" if usual else "some seconds"
    return {
        "How it works": f"{TASK.description} {waiting} in the queue, then {writing} of writing. "
        "You can close this page meanwhile.",
        "Who reads it": f"{_reader(settings)} Whoever has the link can read the {TASK.noun}.",
        "How long": f"Your text is removed once the {TASK.noun} is ready, and from our storage's "
        f"own log when that is next rewritten; everything is deleted {spoken(kept)} later.",
    }


def not_sent(refused: int) -> str:
    """That some fields need a look, if any do."""
    if not refused:
        return ""
    return "One field needs a look." if refused == 1 else f"{refused} fields need a look."


def _reader(settings: Settings) -> str:
    """Say who reads the text."""
    if settings.openai_model == STAND_IN_MODEL:
        return "No AI model reads it: on this machine a stand-in counts its words."
    if settings.is_openai:
        return "An AI model at OpenAI reads it, which is asked not to store it."
    return f"An AI model reads it, which is reached through {settings.openai_host}."


# ── The end, and what can be done ───────────────────────────────────────────────────────────


def failure_text(record: AnalysisRecord, is_owner: bool | None) -> str:
    """What happened, and, once it is known who reads this, whose turn it is."""
    failure = record.failure or Failure.INTERNAL_ERROR
    sentences = [failure.sentence]
    if failure is Failure.ATTEMPTS_EXHAUSTED and record.last_failure:
        sentences.append(f"The last time: {record.last_failure.sentence}")
    if is_owner is None:
        pass
    elif not is_owner:
        sentences.append("Only the browser that sent this request can try it again.")
    elif record.input is None:
        sentences.append("Its text is no longer kept; please send a new request.")
    elif record.has_rounds_left or needs_other_text(record):
        sentences.append(failure.next_step)
    elif failure.kind is Kind.OPERATOR:
        sentences.append("We need to fix this. Please send a new request later.")
    else:
        sentences.append("It has been tried as often as we can; please send a new request.")
    return " ".join(sentences)


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


def gone_text(is_listed: bool) -> str:
    """Why there is nothing under a link; only the browser that sent it knows that it existed."""
    if is_listed:
        return "This request was sent from this browser. Its time is over: all it held was removed."
    return "There is nothing under this link: it was not found, or is no longer kept."


def limit_text(error: LimitReached) -> str:
    """Why nothing new is taken just now, and when it may be."""
    return f"{error.limit.sentence} Please try again in {spoken(error.retry_after)}."


def limit_note(error: LimitReached) -> tuple[str, str]:
    """The same beside a form, which keeps what was written."""
    is_ours = error.limit not in (Limit.PAUSED, Limit.VISITOR)
    head = AT_LIMIT if is_ours else error.limit.sentence
    return head, f"{TEXT_KEPT.removesuffix('.')}: try again in {spoken(error.retry_after)}."


def reason(failure: Failure) -> str:
    """Why a text is to be changed."""
    return f"{failure.sentence} {failure.next_step}"


def dates(record: AnalysisRecord, kept: timedelta, timezone: str | None) -> str:
    """When it was ready, and until when it is kept, in the visitor's time zone."""
    ready_at = record.finished_at
    assert ready_at, "a terminal record says when"
    ready, until = (
        in_zone(time, timezone, "%-d %B, %H:%M") for time in (ready_at, ready_at + kept)
    )
    return f"Ready {ready} · Kept until {until}"


def edit_until(record: AnalysisRecord, timezone: str | None) -> str:
    """How long there is to edit what was written."""
    until = in_zone(record.next_attempt_at, timezone, "%H:%M:%S")
    return f"Save it before {until}, when writing begins. Link and time stay the same."


def in_zone(time: datetime, timezone: str | None, form: str) -> str:
    """A time in the visitor's zone, in the form of `strftime`."""
    try:
        zone, suffix = ZoneInfo(timezone or "UTC"), ""
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a directory, too long
        zone, suffix = ZoneInfo("UTC"), " UTC"
    return f"{time.astimezone(zone):{form}}{suffix}"


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


def about(duration: timedelta) -> str:
    """`about 20 seconds`, `about a minute`, `about 2 minutes`, `about an hour`."""
    seconds = duration.total_seconds()
    if 50 <= seconds < 90:
        return "about a minute"
    if 90 <= seconds < 3300:
        return f"about {round(seconds / 60)} minutes"
    return f"about {spoken(duration)}".replace("one hour", "an hour")


def spoken(duration: timedelta) -> str:
    """`5 seconds`, `one minute`, `90 minutes`, `2 hours`: never off by more than a tenth."""
    seconds = round(duration.total_seconds())
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        number = round(seconds / size)
        if number >= (2 if unit == "day" else 1) and abs(number * size - seconds) <= seconds / 10:
            return f"one {unit}" if number == 1 else f"{number} {unit}s"
    return "no time"
