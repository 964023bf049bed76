"""What can be done with an analysis; changing anything needs the submitter's owner token."""

from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import streamlit as st

from common.connection import StoreUnavailable
from common.failures import Kind as FailureKind
from common.logs import get_logger
from common.ports import LimitReached
from common.record import AnalysisRecord
from common.states import Reason, Status, TransitionError
from common.store import NotFound
from common.submission import NotOwner
from common.versions import Unreadable
from page import browser, texts
from page.connection import connect
from page.notices import draw_notify, draw_notify_line
from page.state import go_to, page_state, visitor
from page.written import draw_written

Action = Callable[[str, str], None]  # of a request id and an owner token
Kind = Literal["primary", "secondary", "tertiary"]

log = get_logger("page")


@st.fragment
def draw_actions(record: AnalysisRecord, owner_token: str | None) -> None:
    """Offer what can be done now; the token is the owner's, or None.

    In a fragment, where clicks wait for each other: one that asks for a run of the whole page can
    undo the one before, if they come over a slow line together.
    """
    with st.container(key="actions", horizontal=True, horizontal_alignment="center"):
        draw_notify(record)
        if owner_token and record.status is Status.FAILED and record.input:
            _draw_second_try(record, owner_token)
        link = browser.link_to(record.request_id)
        browser.draw_copy(browser.CopyButton(label="Copy link", text=link))
    draw_notify_line(record)
    if not owner_token:
        return
    if record.input:
        with st.container(key="written", horizontal=True, vertical_alignment="top"):
            draw_written(record.input)
            if record.status is Status.PENDING and not record.attempt:
                action_button("Edit", _edit, record.request_id, owner_token, "tertiary")
    draw_quiet_actions(record, owner_token)


def draw_quiet_actions(record: AnalysisRecord, owner_token: str) -> None:
    """Offer to cancel and to delete; each asks before it does."""
    with st.container(key="quiet-actions", horizontal=True, horizontal_alignment="center"):
        if not record.status.is_terminal:
            with st.popover("Cancel", type="tertiary", key="cancel"):
                st.markdown(f"**Cancel this request?** {texts.cancel_warning(record)}")
                action_button("Yes, cancel it", _cancel, record.request_id, owner_token)
        _draw_delete(record.request_id, owner_token)


@st.fragment
def draw_dead_end_actions(request_id: str, owner_token: str | None, kind: Kind) -> None:
    """Offer to make another; and to the owner of what can't be shown, to delete it.

    In a fragment, for the reason that `draw_actions` has.
    """
    new_request_button(kind)
    if owner_token:
        with st.container(key="quiet-actions", horizontal=True):
            _draw_delete(request_id, owner_token)


def _draw_delete(request_id: str, owner_token: str) -> None:
    with st.popover("Delete", type="tertiary", key="delete"):
        st.markdown(texts.DELETE_WARNING)
        action_button("Yes, delete it", _delete, request_id, owner_token)


def new_request_button(kind: Kind = "secondary") -> None:
    """Draw a button that leads to an empty form."""
    st.button("New request", type=kind, on_click=go_to, args=(None,))


def _draw_second_try(record: AnalysisRecord, owner_token: str) -> None:
    needs_other_text = texts.needs_other_text(record)
    if record.has_rounds_left:
        is_worth_it = record.failure is not None and record.failure.kind is FailureKind.LOST
        kind: Kind = "primary" if is_worth_it else "secondary"
        action_button("Try again", _retry, record.request_id, owner_token, kind)
    if needs_other_text:
        action_button("Change the text", _change_text, record.request_id, owner_token, "primary")


def action_button(
    label: str, action: Action, request_id: str, owner_token: str, kind: Kind = "secondary"
) -> None:
    """Draw a button for what only the owner may do.

    It acts before the page is drawn: a further click could end the run before it gets that far.
    """
    st.button(label, type=kind, on_click=run_action, args=(action, request_id, owner_token))


def run_action(action: Action, request_id: str, owner_token: str) -> None:
    """Do it, and then show what came of it, unless it has led elsewhere itself."""
    notice = ""
    try:
        action(request_id, owner_token)
    except (NotFound, NotOwner, TransitionError) as error:
        log.info("not done", request_id=request_id, cause=str(error) or type(error).__name__)
        notice = texts.NO_LONGER_POSSIBLE
    except LimitReached as error:
        notice = texts.limit_text(error)
    except Unreadable:
        pass  # since it was drawn: the page says so now
    except StoreUnavailable as error:
        log.error("not done", request_id=request_id, cause=str(error))
        notice = texts.NOT_DONE
    go_to(request_id, notice)


# The second click of a double one finds the action done, and that is no error.


def _retry(request_id: str, owner_token: str) -> None:
    try:
        connect().submissions.retry(request_id, owner_token, visitor())
    except TransitionError as error:
        if error.reason is not Reason.NOT_FAILED:
            raise


def _cancel(request_id: str, owner_token: str) -> None:
    submissions = connect().submissions
    try:
        submissions.cancel(request_id, owner_token)
    except TransitionError:
        if submissions.look_up(request_id).status is not Status.CANCELLED:
            raise
    page_state().draft = None  # the same text is another request from here on


def _delete(request_id: str, owner_token: str) -> None:
    with suppress(NotFound):
        connect().submissions.delete(request_id, owner_token)
    page_state().deleted = request_id
    go_to(None, notice=texts.DELETED)


def _edit(request_id: str, owner_token: str) -> None:
    """Open the form with what was written, which stays in it whatever becomes of the request."""
    form = connect().submissions.input_of(request_id, owner_token)
    go_to(request_id, prefilled=form, is_editing=True)


def _change_text(request_id: str, owner_token: str) -> None:
    """Open the form with what was written before."""
    form = connect().submissions.input_of(request_id, owner_token)
    snapshot = page_state().snapshot
    failure = snapshot.record.failure if snapshot and snapshot.record else None
    go_to(None, prefilled=form, reason=texts.reason(failure) if failure else "")
