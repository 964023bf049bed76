"""What the page remembers of one session, and how it gets to another analysis or form.

A reload in the browser begins a new session: what must outlive it is in the URL and in Redis.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import NamedTuple, NoReturn

import streamlit as st

from common.connection import StoreUnavailable
from common.events import RecordNotRead
from common.form import Form
from common.logs import get_logger
from common.owners import new_owner_token
from common.store import NotFound
from common.submission import OfOtherTask
from common.versions import Unreadable
from common.visitors import visitor_of
from page.connection import ahead, connect
from page.snapshot import Snapshot, has_become_ready

KEY = "page_state"

log = get_logger("page")


class Draft(NamedTuple):
    """A form that was sent. The same form sent again, by a double click, is the same analysis."""

    form: Form
    request_id: str
    owner_token: str


@dataclass
class PageState:
    """What belongs to this session, besides the widgets, which Streamlit keeps by their keys."""

    visitor: str = field(default_factory=new_owner_token)
    draft: Draft | None = None
    prefilled: Form | Mapping[str, object] | None = None  # see `begin_form`
    reason: str = ""  # why there is this form, if somebody has to be told
    form_id: str = ""  # of what was begun with: a part of its widgets' keys
    drawn: str | None = None  # the form's id, once the browser has drawn it
    editing: str | None = None  # the request id, while its owner changes what was written
    notice: str = ""  # what came of the last press
    snapshot: Snapshot | None = None  # of the analysis that is in view
    arrived: str | None = None  # the request id, if its result came while the person waited
    is_fresh: bool = False  # the snapshot was fetched a moment ago, and is not fetched again
    owner_tokens: dict[str, str] = field(default_factory=dict)  # those the browser doesn't have yet
    deleted: str | None = None  # the request id, which the browser is to forget

    def begin_form(
        self, prefilled: Form | Mapping[str, object] | None = None, reason: str = ""
    ) -> None:
        """Have new widgets, which begin with a form or with values of widgets, or empty."""
        self.prefilled, self.reason, self.form_id = prefilled, reason, token_hex(4)


def page_state() -> PageState:
    """Return what the page remembers of this session."""
    if KEY not in st.session_state:
        st.session_state[KEY] = PageState()
    state: PageState = st.session_state[KEY]
    return state


def visitor() -> str:
    """Return who is here, for the limit that each visitor has."""
    return visitor_of(st.context.ip_address, page_state().visitor)


def go_to(
    request_id: str | None,
    notice: str = "",
    *,
    prefilled: Form | None = None,
    is_editing: bool = False,
    reason: str = "",
) -> NoReturn:
    """Go to an analysis, or to a form that is empty or `prefilled`, and end this run."""
    state = page_state()
    if is_editing or not request_id:  # else a second press of Send must still find its form
        state.begin_form(prefilled, reason)
    state.editing = request_id if is_editing else None
    if not request_id:
        state.draft = None
    state.is_fresh = False
    state.notice = notice
    st.query_params.from_dict({"request": request_id} if request_id else {})
    st.rerun()


def fetch(request_id: str, last: Snapshot | None = None) -> Snapshot:
    """Look an analysis up; while the store can't be reached, the last record stays in view."""
    try:
        return Snapshot(request_id, connect().submissions.look_up(request_id))
    except OfOtherTask as error:
        return Snapshot(request_id, is_unreadable=True, owner_hash=error.owner_hash)
    except NotFound:
        return Snapshot(request_id, is_gone=True)
    except Unreadable as error:
        connect().events.emit(RecordNotRead(error))
        whose = error.owner_hash
        return Snapshot(request_id, is_unreadable=True, why=error.why, owner_hash=whose)
    except StoreUnavailable as error:
        log.error("not read", request_id=request_id, cause=str(error))
        last = last or Snapshot(request_id)
        return replace(last, failures=last.failures + 1)


def look(request_id: str, last: Snapshot) -> Snapshot:
    """Fetch an analysis, and how many come before it. This may run in any thread."""
    snapshot = fetch(request_id, last)
    if snapshot.record:
        snapshot = replace(snapshot, ahead=ahead(snapshot.record))
    return snapshot


def refresh(request_id: str) -> Snapshot:
    """Fetch the analysis in view, and note if it has become ready since the last time."""
    state = page_state()
    last = state.snapshot
    if last is None or last.request_id != request_id:
        last = Snapshot(request_id)
    state.snapshot = look(request_id, last)
    if has_become_ready(last, state.snapshot):
        state.arrived = request_id
    return state.snapshot
