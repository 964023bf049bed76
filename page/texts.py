"""The sentences of the page: plain functions of what they are about."""

from datetime import timedelta
from typing import NamedTuple

from common.failures import Failure, Kind, Limit
from common.ports import LimitReached
from common.questions import in_words
from common.record import MAX_ATTEMPTS, AnalysisRecord
from common.settings import Settings
from common.states import Status
from common.task import TASK
from page.quoted import first_words
from page.snapshot import Snapshot
from page.times import about, in_zone, spoken
from page.unreadable import unreadable_title

STAND_IN_MODEL = "local-stand-in"
SECOND = timedelta(seconds=1)
UNKNOWN_USUAL = timedelta(seconds=10)  # of writing, while nobody knows
ALL_TRIES = ("one", "two", "three")[MAX_ATTEMPTS - 1]
NTH = ("first", "second", "third")
DAYS, MONTHS = timedelta(days=2), timedelta(days=300)  # from here on, no time; and with the year
CAN_BE_WRONG = "AI can be wrong; check anything that matters."
NOT_SENT = "Not sent yet."
GONE = "No longer kept"
UNAVAILABLE = "We can't look this up just now, and keep trying. There is nothing for you to do."
UNAVAILABLE_FROM_THE_START = (
    "We can't look this up just now. We keep trying as long as this page is open; "
    "you can also come back later, as the link stays the same."
)
TEXT_KEPT = "Your text is still here."
NOT_SUBMITTED = "We can't take your request just now."
KEPT_TRY_AGAIN = "Your text is still here: please try again."
AT_LIMIT = "We're at our limit right now."
NO_LONGER_POSSIBLE = "That was not possible any more."
EDITED_TOO_LATE = (
    "Too late for that: writing has begun, with your text as it was. "
    "This is the text as you changed it; send it as another request, if you like."
)
NOT_DONE = "We couldn't do that just now. Please try again."
DELETED = "Deleted."
DELETE_WARNING = (
    "**Delete for good?** The request, its result and its place in the queue are removed "
    "at once, for everybody who has the link. Our storage's own log may hold a copy until "
    "it is next rewritten."
)


class StatusTexts(NamedTuple):
    """How a status is shown: in the browser's tab and list, and read aloud."""

    mark: str
    label: str
    title: str


STATUSES = {
    Status.PENDING: StatusTexts("⏳", "Waiting", "In the queue"),
    Status.PROCESSING: StatusTexts("✎", "Writing", "Being written now"),
    Status.COMPLETED: StatusTexts("✓", "Ready", f"The {TASK.noun} is ready"),
    Status.FAILED: StatusTexts("✕", "Did not work", "That didn't work"),
    Status.CANCELLED: StatusTexts("✕", "Cancelled", "Cancelled"),
}


def title(snapshot: Snapshot, is_listed: bool | None = None) -> str:
    """The state in a few words; the headline of a page without a record.

    `is_listed` says whether the browser has this request in its list; None until it has replied.
    """
    record = snapshot.record
    if snapshot.is_gone and is_listed is not None:
        return GONE if is_listed else "Nothing here"
    if snapshot.is_unreadable:
        return unreadable_title(snapshot)
    if record is None:
        return "One moment"
    if record.status is Status.PENDING and record.attempt:
        return f"Trying again soon, {try_of_all(record.attempt + 1)}"
    return ended_title(record) if record.failure else STATUSES[record.status].title


def result_title(is_owner: bool | None) -> str:
    """The heading over a result; None while it isn't known who reads it."""
    if is_owner is None:
        return in_words(TASK.noun)
    return f"Your {TASK.noun}" if is_owner else f"{in_words(TASK.noun)}, shared with you"


def announcement(snapshot: Snapshot, is_listed: bool | None = None) -> str:
    """What is read aloud, once each time that it changes: the state, and no time that ticks."""
    record = snapshot.record
    sentences = [f"{title(snapshot, is_listed)}."]
    if record and record.status is Status.FAILED:
        sentences.append((record.failure or Failure.INTERNAL_ERROR).sentence)
    if record and record.status is Status.PENDING and record.attempt:
        sentences.append(last_reason(record))
    if snapshot.says_unavailable:
        sentences.append(unavailable_text(snapshot))
    return " ".join(sentences)


def unavailable_text(snapshot: Snapshot) -> str:
    """What is said while the store is away, or has an error of its own."""
    return UNAVAILABLE if snapshot.record else UNAVAILABLE_FROM_THE_START


def tab_title(snapshot: Snapshot) -> str:
    """The title of the browser's tab, its state first."""
    if snapshot.is_gone:
        return f"Not found · {TASK.name}"
    if snapshot.record is None:
        return TASK.name
    status = STATUSES[snapshot.record.status]
    return f"{status.mark} {status.label} · {TASK.name}"


# ── The waiting ─────────────────────────────────────────────────────────────────────────────


def nth_try(number: int) -> str:
    """`second try`."""
    return f"{NTH[number - 1]} try"


def try_of_all(number: int) -> str:
    """`second try of three`."""
    return f"{nth_try(number)} of {ALL_TRIES}"


def queue_line(ahead: int | None, is_owner: bool | None) -> str:
    """What stands below the heading of the waiting: how many come before, where that is known."""
    you = "this one" if is_owner is False else "you"
    if ahead is None:
        return "You can close this page"
    return f"{f'{ahead} before {you}' if ahead else 'Next in line'} · you can close this page"


def last_reason(record: AnalysisRecord) -> str:
    """Why the latest attempt failed."""
    return (record.last_failure or Failure.INTERNAL_ERROR).sentence


# ── The form ────────────────────────────────────────────────────────────────────────────────


def promise(settings: Settings, kept: timedelta, usual: timedelta | None) -> str:
    """How soon, and kept how long, in one line."""
    whole = settings.qstash_delay + max(usual or UNKNOWN_USUAL, SECOND)
    return f"Ready in {about(whole)} · deleted after {spoken(kept)}"


def names_of_examples() -> tuple[str, ...]:
    """The first words of each, or its number where none has a text."""
    begins = [first_words(example, most=18) for example in TASK.examples]
    return tuple(
        f"“{text}”" if text else f"Example {number}" for number, text in enumerate(begins, 1)
    )


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


def ended_title(record: AnalysisRecord) -> str:
    """The headline over what failed, by whose fault, or was cancelled."""
    if record.failure and record.failure.kind is Kind.OPERATOR:
        return "That was us, not you"
    if needs_other_text(record):
        return "This text didn't get through"
    return STATUSES[record.status].title


def failure_text(record: AnalysisRecord, is_owner: bool | None) -> str:
    """What happened, and, once it is known who reads this, whose turn it is."""
    failure = record.failure or Failure.INTERNAL_ERROR
    sentences = [failure.sentence]
    if failure is Failure.ATTEMPTS_EXHAUSTED and record.last_failure:
        reason = record.last_failure.sentence
        sentences.append(f"The last time, {reason[0].lower()}{reason[1:]}")
    if is_owner is None:
        pass
    elif not is_owner:
        sentences.append("Only the browser that sent this request can try it again.")
    elif record.input is None:
        sentences.append("Its text is no longer kept; please send a new request.")
    elif record.has_rounds_left or needs_other_text(record):
        sentences.append(failure.next_step)
    elif failure.kind is Kind.OPERATOR:
        sentences.append("That's ours to fix; please send a new request later.")
    else:
        sentences.append("It has been tried as often as we can; please send a new request.")
    return " ".join(sentences)


def cancelled_text(record: AnalysisRecord) -> str:
    """What cancelling came to."""
    if record.attempt:
        return "The AI had been asked by then; no answer was kept. The text has been deleted."
    return f"Nothing was sent to the AI{_this_time(record)}. The text has been deleted."


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
        return "You sent this from here. It has expired and was deleted."
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


def readable_until(record: AnalysisRecord, kept: timedelta, timezone: str | None) -> str:
    """Who can read the result, and how long: to the day, or to the minute if that is soon."""
    ready_at = record.finished_at
    assert ready_at, "a terminal record says when"
    form = "%-d %B %Y" if kept > MONTHS else "%-d %B" if kept > DAYS else "%-d %B, %H:%M"
    until = in_zone(ready_at + kept, timezone, form)
    return f"Whoever has the link can read this, until {until}."


def edit_until(record: AnalysisRecord, timezone: str | None) -> str:
    """How long there is to edit what was written."""
    until = in_zone(record.next_attempt_at, timezone, "%H:%M:%S")
    return f"Save it before {until}, when writing begins. Link and time stay the same."


def ending(record: AnalysisRecord) -> str:
    """Who wrote the result, and what that means."""
    if record.model == STAND_IN_MODEL:
        return "No AI model was asked: the local stand-in counted the words of the text."
    return f"Written by {record.model}. {CAN_BE_WRONG}"
