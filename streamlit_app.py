"""The page, in the order the person sees it: the form, or one analysis from waiting to result.

The request id in the URL is all that is needed to come back. Text from people and from the model
is drawn with `_html` alone: Streamlit's Markdown would let it load images from anywhere.
"""

import html
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import streamlit as st
from pydantic import ValidationError

from common.failures import Failure
from common.logs import start_logging
from common.models import (
    MAX_ATTEMPTS,
    AnalysisInput,
    AnalysisRecord,
    Refused,
    Status,
    input_problems,
)
from common.queue import Queue
from common.settings import Settings, SettingsError, load
from common.store import NotFound, Store, StoreUnavailable, connect
from common.submission import (
    NotOwner,
    Submissions,
    new_owner_token,
    new_request_id,
)

POLL_SECONDS = 2
STAND_IN_MODEL = "local-stand-in"

log = logging.getLogger("page")


@st.cache_resource
def _submissions() -> Submissions:
    """Connect once per process."""
    start_logging()
    settings = load(Settings)
    store = Store(connect(settings), ttl=settings.ttl, lease=settings.times.lease)
    return Submissions(store, Queue(settings), settings)


def _html(text: str, tag: str = "p") -> None:
    """Draw untrusted text as text."""
    st.html(f"<{tag}>{html.escape(text)}</{tag}>")


def _open(request_id: str | None) -> None:
    """Go to an analysis, or to an empty form."""
    st.query_params.clear()
    if request_id:
        st.query_params["request"] = request_id
    else:
        st.session_state.pop("draft", None)
    st.session_state.pop("finished", None)
    st.rerun()


# ── The form ────────────────────────────────────────────────────────────────────────────────


def _draw_form() -> None:
    st.title("Ask now, read in a minute")
    st.markdown(
        f"Tell us a little about yourself. Your text waits {_duration(submissions.delay)} in the "
        "queue, then an AI model reads it and writes an analysis. You get a link, so you can "
        "close this page."
    )
    summary = st.empty()
    with st.form("analysis", enter_to_submit=False):
        left, right = st.columns([3, 1])
        below = st.container()
        values = {
            "name": left.text_input("Name", max_chars=80, autocomplete="name"),
            "age": right.number_input("Age", value=None, step=1.0, format="%g"),
            "description": below.text_area("Short description", max_chars=2000, height=140),
        }
        slots = {"name": left.empty(), "age": right.empty(), "description": below.empty()}
        is_sent = st.form_submit_button("Send request", type="primary", width="stretch")
    st.caption(
        "The text is sent to OpenAI, which is asked not to store it, and is removed here as soon "
        "as the analysis is ready. Anyone who has the link can read the analysis; it is gone "
        f"{_duration(submissions.ttl)} after it is ready."
    )
    if not is_sent:
        return
    try:
        input = AnalysisInput.model_validate(values)
    except ValidationError as error:
        problems = input_problems(error)
        for field, problem in problems.items():
            slots[field].caption(f":red[{problem}]")
        summary.error(f"Nothing was sent yet. Please look at {_count(len(problems), 'field')}.")
        return
    with summary, st.spinner("Sending…"):
        trouble = _submit(input)
    summary.error(trouble)


def _submit(input: AnalysisInput) -> str:
    """Submit and go to the analysis; else say why that did not work.

    The same text sent again, by a double click say, keeps its id until a new form is opened.
    """
    draft = st.session_state.get("draft")
    if draft is None or draft[0] != input:
        draft = st.session_state["draft"] = (input, new_request_id(), new_owner_token())
    _, request_id, owner_token = draft
    try:
        record = submissions.submit(input, request_id=request_id, owner_token=owner_token)
    except (StoreUnavailable, NotFound, Refused) as error:
        log.error("not submitted request_id=%s: %s", request_id, error)
        return "We can't take your request just now. Your text is still here: please try again."
    if record.failure is Failure.NOT_QUEUED:
        failure = record.failure
        return f"{failure.sentence} {failure.next_step} Your text is still here."
    st.session_state.setdefault("owner_tokens", {})[request_id] = owner_token
    _open(request_id)
    return ""


# ── One analysis ────────────────────────────────────────────────────────────────────────────


def _draw_analysis(request_id: str) -> None:
    """Draw the analysis, every few seconds anew until it is terminal."""
    is_live = st.session_state.get("finished") != request_id
    st.fragment(_draw_panel, run_every=POLL_SECONDS if is_live else None)(request_id, is_live)


def _draw_panel(request_id: str, is_live: bool) -> None:
    try:
        record = submissions.look_up(request_id)
        st.session_state["last_record"] = record
    except NotFound:
        _draw_not_found(request_id, is_live)
        return
    except StoreUnavailable as error:
        log.error("not read request_id=%s: %s", request_id, error)
        last = st.session_state.get("last_record")
        st.caption("We can't reach our store just now, and keep trying.")
        if last is None or last.request_id != request_id:
            return
        record = last
    if is_live and record.status.is_terminal:
        _stop_polling(request_id)
    _draw_state(record)
    _draw_actions(record)


def _stop_polling(request_id: str) -> None:
    st.session_state["finished"] = request_id
    st.rerun()


def _draw_not_found(request_id: str, is_live: bool) -> None:
    if is_live:
        _stop_polling(request_id)
    st.title("Nothing here")
    st.markdown("There is no analysis under this link, or it is no longer kept.")
    if st.button("New request", type="primary"):
        _open(None)


def _draw_state(record: AnalysisRecord) -> None:
    """Say where the analysis is, and draw what came of it."""
    now = datetime.now(UTC)
    if record.status is Status.COMPLETED:
        _draw_result(record)
    elif record.status is Status.FAILED:
        failure = record.failure or Failure.INTERNAL_ERROR
        st.title("This did not work")
        st.error(f"{failure.sentence} {failure.next_step}")
    elif record.status is Status.CANCELLED:
        st.title("Cancelled")
        st.markdown("This request was cancelled, and its text was removed.")
    elif record.status is Status.PROCESSING:
        st.title("Writing your analysis")
        st.info(f"Attempt {record.attempt} of {MAX_ATTEMPTS}. This takes some seconds.")
    elif record.last_failure:
        st.title("Trying again soon")
        st.warning(
            f"{record.last_failure.sentence} Attempt {record.attempt + 1} of "
            f"{MAX_ATTEMPTS} {_in_seconds(record.next_attempt_at, now)}."
        )
    else:
        st.title("Your request is in the queue")
        st.info(f"The analysis starts {_in_seconds(record.due_at, now)}.")
    if not record.status.is_terminal:
        st.markdown("You can close this page. This link brings you back to exactly this place:")
        st.code(f"{st.context.url}?request={record.request_id}", language=None, wrap_lines=True)
    st.caption(f"Request {record.request_id}, sent {_local_time(record.created_at)}")


def _draw_result(record: AnalysisRecord) -> None:
    assert record.result, "a completed analysis has a result"
    assert record.finished_at, "and a time"
    st.title("Your analysis")
    with st.container(border=True):
        _html(record.result.summary)
        _html(f"Tone: {record.result.tone}")
        for title, lines in (
            ("Themes", record.result.themes),
            ("Suggestions", record.result.suggestions),
        ):
            st.markdown(f"**{title}**")
            st.html("<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>")
    if record.model == STAND_IN_MODEL:
        st.warning("No AI model was asked: the local stand-in counted words in your text.")
    else:
        st.caption("Written by an AI model. It can be wrong; check anything that matters.")
        _html(f"Model: {record.model}", tag="small")
    st.caption(f"Ready {_local_time(record.finished_at)}")


def _draw_actions(record: AnalysisRecord) -> None:
    """Offer what can be done now; changing anything needs the submitter's owner token."""
    owner_token = st.session_state.get("owner_tokens", {}).get(record.request_id)
    row = st.container(horizontal=True)
    if owner_token and not record.status.is_terminal and row.button("Cancel"):
        _act(lambda: submissions.cancel(record.request_id, owner_token), record.request_id)
    if owner_token and record.status is Status.FAILED and row.button("Try again", type="primary"):
        _act(lambda: submissions.retry(record.request_id, owner_token), record.request_id)
    if owner_token and record.status.is_terminal and row.button("Delete now"):
        _act(lambda: submissions.delete(record.request_id, owner_token), record.request_id)
    if row.button("New request"):
        _open(None)


def _act(act: Callable[[], object], request_id: str) -> None:
    try:
        act()
    except (NotFound, NotOwner, Refused) as error:
        log.info("not done request_id=%s: %s", request_id, error)
        st.toast("That was not possible any more.")
        return
    except StoreUnavailable as error:
        log.error("not done request_id=%s: %s", request_id, error)
        st.error("We can't reach our store just now. Please try again.")
        return
    _open(request_id)


# ── Words ───────────────────────────────────────────────────────────────────────────────────


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _duration(duration: timedelta) -> str:
    seconds = round(duration.total_seconds())
    return _count(seconds, "second") if seconds < 120 else _count(round(seconds / 60), "minute")


def _in_seconds(time: datetime, now: datetime) -> str:
    seconds = round((time - now).total_seconds())
    return f"in about {_count(seconds, 'second')}" if seconds > 0 else "any moment now"


def _local_time(time: datetime) -> str:
    """In the visitor's time zone, as the browser tells it."""
    try:
        return time.astimezone(ZoneInfo(st.context.timezone or "UTC")).strftime("%d %B, %H:%M")
    except (ZoneInfoNotFoundError, ValueError):
        return time.strftime("%d %B, %H:%M UTC")


# ── The page itself ─────────────────────────────────────────────────────────────────────────

st.set_page_config(page_title="Ask later", page_icon="⏳")
try:
    submissions = _submissions()
except SettingsError as error:
    log.error("%s", error)
    st.title("Not ready yet")
    st.markdown("This page is not set up. Its operator finds the reason in the log.")
    st.stop()

if "request" in st.query_params:
    _draw_analysis(st.query_params["request"])
else:
    _draw_form()
