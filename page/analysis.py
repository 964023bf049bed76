"""One analysis, from waiting to its result.

Text from people and from the model is drawn with `_draw_text` or escaped into HTML: Streamlit's
Markdown would let it load images from anywhere.
"""

import html
from functools import partial

import streamlit as st

from common.owners import owns
from common.record import AnalysisRecord
from common.states import Status
from common.versions import Why
from page import browser, looks, texts
from page.actions import Kind, draw_actions, draw_dead_end_actions
from page.connection import connect, now, pause_of, timing
from page.entries import entry
from page.favicon import favicon
from page.head import draw_header, draw_heading
from page.notices import draw_notice, draw_notify
from page.progress import progress
from page.result import draw_result
from page.sharing import draw_sharing
from page.snapshot import Snapshot, has_changed
from page.state import look, page_state, refresh
from page.unreadable import unreadable_text, unreadable_title
from page.written import draw_edit


def draw_analysis(request_id: str) -> None:
    """Draw the analysis, and fetch it every few seconds, as long as it may still change."""
    state = page_state()
    snapshot = state.snapshot
    if not state.is_fresh or snapshot is None or snapshot.request_id != request_id:
        snapshot = refresh(request_id)
    state.is_fresh = False
    browser.name_tab(texts.tab_title(snapshot), favicon(snapshot))
    owner_token = _owner_token(request_id)
    if owner_token and snapshot.record and state.editing == request_id:
        draw_edit(snapshot.record, owner_token)
        _keep_in_browser(snapshot, owner_token)
        return  # the text stays in view; whether it came in time shows when it is saved
    _draw_snapshot(snapshot, owner_token)
    _keep_in_browser(snapshot, owner_token)
    pause = pause_of(state.visitor, snapshot)
    if pause is not None:
        state.is_fresh = True  # for the first run of the fragment, which is part of this one
        st.fragment(_poll, run_every=pause)(snapshot, pause)


def _poll(drawn: Snapshot, pause: float) -> None:
    """Fetch again. This draws nothing; the next time the server looks first whether to run it."""
    state = page_state()
    if state.is_fresh:
        state.is_fresh = False
    else:
        snapshot = refresh(drawn.request_id)
        is_news = has_changed(drawn, snapshot)
        if is_news:
            state.notice = ""  # it was about what was to be seen before
        if is_news or pause_of(state.visitor, snapshot) != pause:
            state.is_fresh = True
            st.rerun()
    is_well = state.snapshot is not None and not state.snapshot.failures  # else each one counts
    question = partial(_has_news, state.visitor, drawn, pause) if is_well else None
    looks.leave(st.context.headers.get(looks.HEADER), question)


def _has_news(visitor: str, drawn: Snapshot, pause: float) -> bool:
    """Whether the fragment has something to do. Nothing of the session is used or changed."""
    snapshot = look(drawn.request_id, drawn)
    return (
        snapshot.failures > 0
        or has_changed(drawn, snapshot)
        or pause_of(visitor, snapshot) != pause
    )


def _draw_snapshot(snapshot: Snapshot, owner_token: str | None) -> None:
    request_id = snapshot.request_id
    is_listed = browser.is_listed(request_id)
    draw_header(offers_new=not (snapshot.is_gone or snapshot.is_unreadable))
    if snapshot.is_unreadable:
        _draw_unreadable(snapshot, owner_token)
    elif snapshot.is_gone and is_listed is not None:
        _draw_dead_end(texts.title(snapshot, is_listed), texts.gone_text(is_listed))
        draw_dead_end_actions(request_id, None, "primary")
    elif snapshot.record is None:
        draw_heading(texts.title(snapshot))
    with st.empty():  # a place of its own, so that the rest stays where it is
        if snapshot.says_unavailable:
            _draw_text(texts.unavailable_text(snapshot), "note calm")
    if snapshot.record:
        _draw_record(snapshot.record, owner_token, snapshot.ahead, is_listed=is_listed)


def _keep_in_browser(snapshot: Snapshot, owner_token: str | None) -> None:
    """Let the browser's list know, ask it for the owner token, and have changes read aloud."""
    request_id = snapshot.request_id
    new_token = page_state().owner_tokens.get(request_id)
    is_owner = snapshot.record is not None and owns(snapshot.record, owner_token)
    browser.draw_requests(
        [entry(snapshot, connect().kept, new_token, is_owner=is_owner)],
        wanted=request_id,
        announcement=texts.announcement(snapshot, browser.is_listed(request_id)),
        is_shown=snapshot.is_gone,
    )


def _draw_text(text: str, style: str) -> None:
    """Draw untrusted text as text."""
    st.html(f'<p class="{style}" dir="auto">{html.escape(text)}</p>')


def _draw_unreadable(snapshot: Snapshot, owner_token: str | None) -> None:
    is_owner = owns(snapshot, owner_token)
    _draw_dead_end(unreadable_title(snapshot), unreadable_text(snapshot, is_owner=is_owner))
    kind: Kind = "secondary" if snapshot.why is Why.NEWER else "primary"
    draw_dead_end_actions(snapshot.request_id, owner_token if is_owner else None, kind)


def _draw_dead_end(title: str, text: str) -> None:
    draw_heading(title)
    _draw_text(text, "")
    draw_notice()


def _owner_token(request_id: str) -> str | None:
    """Return the submitter's: from the browser's storage, or from this session until it is there.

    Once it is there the session drops it, so that the browser can forget it.
    """
    reply, owner_tokens = browser.storage_reply(), page_state().owner_tokens
    if reply.request_id != request_id:
        return owner_tokens.get(request_id)
    owner_tokens.pop(request_id, None)
    return reply.owner_token


def _draw_record(
    record: AnalysisRecord, owner_token: str | None, ahead: int | None, *, is_listed: bool | None
) -> None:
    is_known = owner_token or is_listed is not None
    if not owns(record, owner_token):
        owner_token = None  # a token that is not this one's: nothing of it works
    is_owner = bool(owner_token) if is_known else None
    shown = progress(record, now(), timing().usual, ahead=ahead, is_owner=is_owner)
    # Two places: what was drawn of the waiting goes, and none of it moves to make room.
    ready, under_way = st.container(key="ready"), st.container(key="under-way")
    if record.status is Status.COMPLETED:
        with ready:
            draw_heading(texts.result_title(is_owner), is_minor=True)
            _draw_result(record)
            draw_notice()
            draw_sharing(record, owner_token)
            draw_notify(record)
            _draw_origin(record)
            _draw_reference(record)
            browser.draw_progress(shown)  # last, as it folds once it is there
    else:
        with under_way:
            browser.draw_progress(shown)
            draw_notice()
            if is_known:
                draw_actions(record, owner_token)
            _draw_reference(record)


def _draw_reference(record: AnalysisRecord) -> None:
    _draw_text(f"Reference: {record.request_id}", "quiet")


def _draw_result(record: AnalysisRecord) -> None:
    assert record.result, "a completed analysis has a result"
    with st.container(key="card"):
        draw_result(record.result)


def _draw_origin(record: AnalysisRecord) -> None:
    """Draw who wrote the result; on paper, where it is, too."""
    ending, style = f"Written by <bdi>{html.escape(str(record.model))}</bdi>. ", "quiet"
    ending += texts.CAN_BE_WRONG
    if record.model == texts.STAND_IN_MODEL:
        ending, style = texts.ending(record), "note amber"
    link = html.escape(browser.link_to(record.request_id))
    st.html(f'<p class="{style}">{ending}</p><p class="printed">{link}</p>')
