"""The page, in the order the person sees it: the form, or one analysis from waiting to result.

The request id in the URL is all that is needed to come back; what to say about an analysis is
computed in `page/words.py`. Text from people and from the model is drawn with `_html` alone:
Streamlit's Markdown would let it load images from anywhere.
"""

import html
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import NoReturn

import streamlit as st
from pydantic import ValidationError

from common.connection import StoreUnavailable, Unreadable
from common.failures import Failure
from common.logs import get_logger, start_logging
from common.options import load_with_options, plug_in, process_started
from common.ports import LimitReached
from common.qstash import Queue
from common.record import AnalysisRecord, Reason, Status, TransitionError
from common.settings import Settings, SettingsError
from common.store import NotFound, open_store
from common.submission import (
    NotOwner,
    OtherInput,
    Submissions,
    Timing,
    new_owner_token,
    new_request_id,
)
from common.task import AnalysisInput, input_problems
from common.visitors import visitor_of
from page import browser, words
from page.words import Snapshot

log = get_logger("page")


@st.cache_resource
def _connect() -> tuple[Settings, Submissions, timedelta]:
    """Connect once per process."""
    settings, chosen = load_with_options(Settings)
    start_logging(settings)
    process_started("page", chosen)
    store = open_store(settings)
    options = plug_in("page", settings, chosen, store)
    limits, history = options.limits, options.history
    submissions = Submissions(store, Queue(settings), settings, limits=limits, history=history)
    return settings, submissions, max(settings.ttl, history.keeps)


@st.cache_resource
def _timings() -> list[Timing]:
    """Hold the latest one, for while Redis can't be asked."""
    return [Timing()]


@st.cache_resource(ttl=30, show_spinner=False)
def _timing() -> Timing:
    """Ask for it now and then, once for all who wait."""
    with suppress(StoreUnavailable):
        _timings()[0] = submissions.timing()
    return _timings()[0]


def _now() -> datetime:
    return datetime.now(UTC) + _timing().ahead


def _html(text: str, tag: str = "p", style: str = "") -> None:
    """Draw untrusted text as text."""
    st.html(f'<{tag} class="{style}" dir="auto">{html.escape(text)}</{tag}>')


def _name_tab(title: str = "Ask later") -> None:
    st.set_page_config(page_title=title, page_icon="⏳")


def _open(request_id: str | None, notice: str = "") -> NoReturn:
    """Go to an analysis, or to an empty form, and end this run."""
    st.query_params.from_dict({"request": request_id} if request_id else {})
    if not request_id:
        st.session_state.pop("draft", None)
    st.session_state.pop("fresh", None)  # what was seen before
    st.session_state["notice"] = notice
    st.rerun()


# ── The form ────────────────────────────────────────────────────────────────────────────────


def _draw_form() -> None:
    st.title(words.form_title(settings.qstash_delay), anchor=False)
    _draw_promise()
    summary = st.empty()
    with st.form("analysis", enter_to_submit=False):
        left, right = st.columns([2, 1])
        below = st.container()
        values = {
            "name": left.text_input("Name", key="name", autocomplete="name"),
            "age": right.number_input("Age", key="age", value=None, step=1.0, format="%g"),
            "description": below.text_area(
                "Short description (10 to 2,000 characters)",
                key="description",
                height=140,
                placeholder="What you do, what you like, what you would like to know",
            ),
        }
        slots = {"name": left.empty(), "age": right.empty(), "description": below.empty()}
        is_sent = st.form_submit_button("Send request", type="primary", width="stretch")
    if not is_sent:
        return
    try:
        input = AnalysisInput.model_validate(values)
    except ValidationError as error:
        problems = input_problems(error)
        for field, problem in problems.items():
            slots[field].markdown(f":red[:small[:material/error: {problem}]]")
        fields = "1 field" if len(problems) == 1 else f"{len(problems)} fields"
        summary.error(f"Nothing was sent yet. Please look at {fields} below.")
        return
    with summary, st.spinner("Sending…"):
        trouble = _submit(input)
    summary.error(trouble)


def _draw_promise() -> None:
    said = words.promise(settings, _timing().usual)
    lines = "".join(f"<dt>{topic}</dt><dd>{html.escape(text)}</dd>" for topic, text in said.items())
    st.html(f'<dl class="promise">{lines}</dl>')


def _submit(input: AnalysisInput) -> str:
    """Submit and go to the analysis; else say why that did not work.

    The same text sent again, by a double click say, keeps its id until a new form is opened.
    """
    draft = st.session_state.get("draft")
    if draft is None or draft[0] != input:
        draft = st.session_state["draft"] = (input, new_request_id(), new_owner_token())
    _, request_id, owner_token = draft
    try:
        record = submissions.submit(
            input, request_id=request_id, owner_token=owner_token, visitor=_visitor()
        )
    except LimitReached as error:
        return f"{words.limit_text(error)} Your text is still here."
    except (StoreUnavailable, NotFound, OtherInput, TransitionError) as error:
        cause = str(error) or type(error).__name__
        log.error("not submitted", request_id=request_id, cause=cause)
        return "We can't take your request just now. Your text is still here: please try again."
    if record.failure is Failure.NOT_QUEUED:
        failure = record.failure
        return f"{failure.sentence} {failure.next_step} Your text is still here."
    st.session_state.setdefault("owner_tokens", {})[request_id] = owner_token
    _open(request_id)


def _visitor() -> str:
    """Who is here, for the limit that each visitor has; a reload makes a new session."""
    session = st.session_state.setdefault("visitor", new_owner_token())
    return visitor_of(st.context.ip_address, session)


def _draw_requests() -> None:
    """List the requests of this browser; look up those that may have changed."""
    snapshots = []
    for request_id in browser.storage_reply().unfinished:
        snapshots.append(_fetch(request_id))
        if snapshots[-1].failures:
            break  # each further one would only wait for the store, too
    entries = [words.entry(snapshot, kept) for snapshot in snapshots]
    browser.draw_requests(
        [entry for entry in entries if entry], now=_now(), forget=st.session_state.get("deleted")
    )


# ── One analysis ────────────────────────────────────────────────────────────────────────────


def _fetch(request_id: str, last: Snapshot | None = None) -> Snapshot:
    """Look an analysis up; while the store is away, the last record stays in view."""
    try:
        return Snapshot(request_id, submissions.look_up(request_id))
    except NotFound:
        return Snapshot(request_id, is_gone=True)
    except Unreadable as error:
        log.error("record not read", request_id=request_id, cause=str(error))
        return Snapshot(request_id, is_unreadable=True)
    except StoreUnavailable as error:
        log.error("not read", request_id=request_id, cause=str(error))
        last = last or Snapshot(request_id)
        return replace(last, failures=last.failures + 1)


def _refresh(request_id: str) -> Snapshot:
    """Look, and note it when the analysis has become ready since the last time."""
    last = st.session_state.get("snapshot")
    if last is None or last.request_id != request_id:
        last = Snapshot(request_id)
    snapshot = st.session_state["snapshot"] = _fetch(request_id, last)
    if words.has_become_ready(last, snapshot) and not st.session_state.get("notice"):
        st.session_state["notice"] = "Your analysis is ready."
    return snapshot


def _draw_analysis(request_id: str) -> None:
    """Draw the analysis, and look every few seconds whether there is something new to draw."""
    snapshot = st.session_state.pop("fresh", None)
    if snapshot is None or snapshot.request_id != request_id:
        snapshot = _refresh(request_id)
    _name_tab(words.tab_title(snapshot))
    _draw_snapshot(snapshot)
    pause = words.poll_seconds(snapshot, _now())
    if pause is not None:
        st.session_state["is_first_look"] = True
        st.fragment(_watch, run_every=pause)(snapshot, pause)


def _watch(drawn: Snapshot, pause: int) -> None:
    """Look again. This draws nothing, so that a poll costs little more than its read."""
    if st.session_state.pop("is_first_look", False):
        return  # it was drawn a moment ago
    snapshot = _refresh(drawn.request_id)
    if words.poll_seconds(snapshot, _now()) != pause or words.has_changed(drawn, snapshot):
        st.session_state["fresh"] = snapshot
        st.rerun()


def _draw_snapshot(snapshot: Snapshot) -> None:
    request_id = snapshot.request_id
    owner_token = _owner_token(request_id)
    if snapshot.is_gone:
        _draw_gone(snapshot)
        return
    st.title(words.title(snapshot), anchor=False)
    if snapshot.is_unreadable:
        st.markdown(words.UNREADABLE_TEXT)
        st.button("New request", type="primary", on_click=_open, args=(None,))
    with st.empty():
        if snapshot.says_unavailable:
            _html(words.AWAY, style="quiet")
    if snapshot.record:
        is_known = owner_token or browser.is_listed(request_id) is not None
        _draw_end(snapshot.record, is_owner=bool(owner_token) if is_known else None)
        browser.draw_progress(words.progress(snapshot.record, _now(), _timing().usual))
        if is_known:
            _draw_actions(snapshot.record, owner_token)
        _html(f"Reference: {request_id}", style="quiet")
    _keep(snapshot, owner_token)


def _owner_token(request_id: str) -> str | None:
    """The submitter's: from the browser's storage, or from this session until it is there."""
    told = browser.storage_reply()
    if told.request_id == request_id or request_id in st.session_state.get("kept", ()):
        return told.owner_token if told.request_id == request_id else None
    token: str | None = st.session_state.get("owner_tokens", {}).get(request_id)
    return token


def _keep(snapshot: Snapshot, owner_token: str | None) -> None:
    """Have the browser remember the analysis; once, so that it can forget it."""
    kept = st.session_state.setdefault("kept", set())
    if browser.storage_reply().request_id == snapshot.request_id:
        kept.add(snapshot.request_id)
    token = None if snapshot.request_id in kept else owner_token
    entry = words.entry(snapshot, kept, token)
    browser.draw_requests(
        [entry] if entry else [],
        now=_now(),
        wanted=snapshot.request_id,
        announcement=words.announcement(snapshot),
        is_shown=False,
    )


def _draw_gone(snapshot: Snapshot) -> None:
    was_here = browser.is_listed(snapshot.request_id)
    st.title(words.title(snapshot, was_here), anchor=False)
    if was_here is not None:
        st.markdown(words.gone_text(was_here))
        st.button("New request", type="primary", on_click=_open, args=(None,))
    gone = words.entry(snapshot, kept)
    assert gone
    browser.draw_requests(
        [gone],
        now=_now(),
        wanted=snapshot.request_id,
        announcement=words.announcement(snapshot, was_here),
    )


def _draw_end(record: AnalysisRecord, is_owner: bool | None) -> None:
    """Draw what came of it, if it is over."""
    if record.status is Status.COMPLETED:
        _draw_result(record)
    elif record.status is Status.FAILED:
        st.error(words.failure_text(record, is_owner))
    elif record.status is Status.CANCELLED:
        st.markdown(words.cancelled_text(record))
    else:
        st.markdown("You can close this page. Its link brings you back to exactly this place.")


def _draw_result(record: AnalysisRecord) -> None:
    assert record.result, "a completed analysis has a result"
    with st.container(border=True):
        _html(record.result.summary, style="analysis lead")
        _html(f"Tone: {record.result.tone}", style="analysis")
        for title, lines in (
            ("Themes", record.result.themes),
            ("Suggestions", record.result.suggestions),
        ):
            items = "".join(f'<li dir="auto">{html.escape(line)}</li>' for line in lines)
            st.html(f'<div class="analysis"><h2>{title}</h2><ul>{items}</ul></div>')
        _draw_downloads(record)
    if record.model == words.STAND_IN_MODEL:
        st.warning(words.ending(record))
    else:
        _html(words.ending(record), style="quiet")
    model = html.escape(str(record.model))
    dates = words.dates(record, kept, st.context.timezone)
    st.html(f'<p class="quiet">Model: <bdi>{model}</bdi> · {dates}</p>')


def _draw_downloads(record: AnalysisRecord) -> None:
    assert record.result
    ending = words.ending(record)
    with st.container(horizontal=True):
        browser.draw_copy("Copy text", words.as_text(record.result, ending))
        st.download_button(
            "Download Markdown",
            words.as_markdown(record.result, ending),
            "analysis.md",
            "text/markdown",
            on_click="ignore",
        )
        st.download_button(
            "Download JSON",
            record.result.model_dump_json(by_alias=True, indent=2),
            "analysis.json",
            "application/json",
            on_click="ignore",
        )


@st.fragment
def _draw_actions(record: AnalysisRecord, owner_token: str | None) -> None:
    """Offer what can be done now; changing anything needs the submitter's owner token.

    In a fragment, where clicks wait for each other: one that asks for a run of the whole page can
    undo the one before, if they come over a slow line together.
    """
    with st.container(horizontal=True):
        if owner_token and record.status is Status.FAILED and record.input:
            _draw_second_try(record, owner_token)
        address = (st.context.url or "").rstrip("/")
        browser.draw_copy("Copy link", f"{address}/?request={record.request_id}")
        st.button("New request", on_click=_open, args=(None,))
        if owner_token and not record.status.is_terminal:
            _draw_cancel(record, owner_token)
        if owner_token:
            _draw_delete(record, owner_token)


def _draw_second_try(record: AnalysisRecord, owner_token: str) -> None:
    if record.has_rounds_left:
        is_best = not words.needs_other_text(record)
        retry = partial(_retry, _visitor())
        _action_button("Try again", retry, record, owner_token, is_primary=is_best)
    if words.needs_other_text(record):
        _action_button("Change the text", _change_text, record, owner_token, is_primary=True)


def _retry(visitor: str, request_id: str, owner_token: str) -> None:
    try:
        submissions.retry(request_id, owner_token, visitor)
    except TransitionError as error:
        if error.reason is not Reason.NOT_FAILED:  # else another click was quicker
            raise


def _change_text(request_id: str, owner_token: str) -> None:
    """Open the form with what was written before."""
    input = submissions.input_of(request_id, owner_token)
    for field, value in input.model_dump().items() if input else ():
        st.session_state[field] = float(value) if isinstance(value, int) else value
    _open(None)


def _draw_cancel(record: AnalysisRecord, owner_token: str) -> None:
    with st.popover("Cancel", key="cancel"):
        st.markdown(f"**Cancel this request?** {words.cancel_warning(record)}")
        _action_button("Yes, cancel it", _cancel, record, owner_token)


def _cancel(request_id: str, owner_token: str) -> None:
    try:
        submissions.cancel(request_id, owner_token)
    except TransitionError:
        if submissions.look_up(request_id).status is not Status.CANCELLED:
            raise
    st.session_state.pop("draft", None)  # the same text is another request from here on


def _draw_delete(record: AnalysisRecord, owner_token: str) -> None:
    with st.popover("Delete now", key="delete"):
        st.markdown(
            "**Delete for good?** The request, its result and its place in the queue are removed "
            "at once, for everybody who has the link. Our storage's own log may hold a copy until "
            "it is next rewritten."
        )
        _action_button("Yes, delete it", _delete, record, owner_token)


def _delete(request_id: str, owner_token: str) -> None:
    with suppress(NotFound):
        submissions.delete(request_id, owner_token)
    st.session_state["deleted"] = request_id
    _open(None, notice="Deleted.")


def _action_button(
    label: str,
    do: Callable[[str, str], None],
    record: AnalysisRecord,
    owner_token: str,
    *,
    is_primary: bool = False,
) -> None:
    """Draw a button for what only the owner may do."""
    st.button(
        label,
        type="primary" if is_primary else "secondary",
        on_click=_run_action,
        args=(do, record.request_id, owner_token),
    )


def _run_action(do: Callable[[str, str], None], request_id: str, owner_token: str) -> None:
    """Do it, and then show what came of it, unless it has led elsewhere itself."""
    notice = ""
    try:
        do(request_id, owner_token)
    except (NotFound, NotOwner, TransitionError) as error:
        cause = str(error) or type(error).__name__
        log.info("not done", request_id=request_id, cause=cause)
        notice = "That was not possible any more."
    except LimitReached as error:
        notice = words.limit_text(error)
    except StoreUnavailable as error:
        log.error("not done", request_id=request_id, cause=str(error))
        notice = "We can't reach our store just now. Please try again."
    _open(request_id, notice)


# ── The page itself ─────────────────────────────────────────────────────────────────────────

st.html(browser.STYLE)
st.markdown(":primary[:material/hourglass_top:] **Ask later**")
try:
    settings, submissions, kept = _connect()
except SettingsError as error:
    start_logging()
    log.error("not set up", cause=str(error))
    _name_tab()
    st.title("Not ready yet", anchor=False)
    st.markdown("This page is not set up. Its operator finds the reason in the log.")
    st.stop()

if "request" in st.query_params:
    _draw_analysis(st.query_params["request"])
else:
    _name_tab()
    _draw_form()
    _draw_requests()
if notice := st.session_state.pop("notice", ""):
    st.toast(notice, duration="long")
