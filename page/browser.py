"""What the page needs the visitor's browser for: ticking clocks, its storage, its clipboard.

Components without an iframe or a build step: `progress`, `requests`, `copy`, `counter` and `form`,
each of them files of its name in `components/`. Their scripts write text as text alone.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import streamlit as st
from pydantic import AwareDatetime, Field, ValidationError

from common.fields import Model, RequestId
from common.task import TASK
from page.connection import now
from page.progress import Progress
from page.snapshot import Snapshot
from page.texts import GONE, STATUSES, UNREADABLE

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

STYLE = Path(__file__).parent / "page.css"
COMPONENTS = Path(__file__).parent / "components"
REQUESTS = "requests"  # the key of the one list
FORM = "form"


def _component(name: str) -> "ComponentRenderer":
    html, css, js = ((COMPONENTS / f"{name}.{kind}").read_text() for kind in ("html", "css", "js"))
    return st.components.v2.component(f"page_{name}", html=html, css=css, js=js)


_progress = _component("progress")
_requests = _component(REQUESTS)
_copy = _component("copy")
_counter = _component("counter")
_form = _component(FORM)


class StorageReply(Model):
    """What the browser says is in its storage; nobody has to believe it.

    requests.js compares what it gets back as text: there, the fields have the same order.
    """

    wanted: str | None = None  # the one whose owner token was asked for
    request_id: RequestId | None = None  # the same, if it is in the list
    owner_token: Annotated[str, Field(max_length=100)] | None = None
    unfinished: Annotated[tuple[RequestId, ...], Field(max_length=20)] = ()


def storage_reply() -> StorageReply:
    """Return the browser's latest reply; an empty one if any of it is not as it should be."""
    state = st.session_state.get(REQUESTS)
    try:
        return StorageReply.model_validate(state.get("reply") if isinstance(state, Mapping) else {})
    except ValidationError:
        return StorageReply()


def is_listed(request_id: str) -> bool | None:
    """Whether this one is in the browser's list; None until it has replied about this very one."""
    reply = storage_reply()
    return reply.request_id == request_id if reply.wanted == request_id else None


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
    if snapshot.is_unreadable:
        return Entry(request_id=snapshot.request_id, state=UNREADABLE, is_over=True)
    if record is None:
        return None
    return Entry(
        request_id=record.request_id,
        state=STATUSES[record.status].label,
        is_over=snapshot.is_over,
        created_at=record.created_at,
        kept_until=(record.finished_at or record.deadline_at) + kept,
        owner_token=owner_token,
    )


def name_tab(title: str = TASK.name) -> None:
    """Give the browser's tab its title and icon."""
    st.set_page_config(page_title=title, page_icon=TASK.icon)


def draw_progress(progress: Progress) -> None:
    """Draw the ring and the timeline, which tick by themselves."""
    _progress(key="progress", data=progress.model_dump(mode="json", by_alias=True))


def draw_copy(label: str, text: str) -> None:
    """Draw a button that copies the text."""
    _copy(key=f"copy-{label}", data={"label": label, "text": text}, width="content")


class Under(Model):
    """What is drawn under a text: widgets are known by their keys."""

    area: str = ""  # whose text is counted, if any is
    at_least: int = 0
    at_most: int = 0
    examples: tuple[str, ...] = ()  # what each is called
    texts: tuple[str, ...] = ()  # the examples are offered as long as these are empty


def draw_under(under: Under) -> None:
    """Draw how long a text is, and how long it may be; and examples to tap."""
    offers = "examples-" if under.examples else ""
    name = f"counter-{offers}{under.area.replace('_', '-')}"  # Streamlit takes no `__` in this key
    _counter(key=name, data=under.model_dump(mode="json", by_alias=True))


class FormOnPage(Model):
    """What the browser has to know of a form."""

    form_id: str
    task: str
    fields: tuple[dict[str, str], ...]  # of each its key, its widget's key and its kind
    keeps: bool  # what is typed, until it is sent
    asks: bool  # to be told once all of it is drawn
    press: str  # another one at each press of its button; empty in a run without
    refused: tuple[str, ...]  # the fields' keys


def draw_form(form: FormOnPage, react: Callable[[str, object], None]) -> None:
    """Look after a form in the browser, which may reply with what was `typed` or tapped.

    `react` is called before the page is drawn; nobody has to believe what it is given.
    """

    def reaction(event: str) -> Callable[[], None]:
        def run() -> None:
            state = st.session_state.get(FORM)
            react(event, state.get(event) if isinstance(state, Mapping) else None)

        return run

    _form(
        key=FORM,
        data=form.model_dump(mode="json", by_alias=True),
        on_typed_change=reaction("typed"),
        on_example_change=reaction("example"),
        on_drawn_change=reaction("drawn"),
    )


def draw_requests(
    entries: Sequence[Entry | None],
    *,
    forget: str | None = None,
    wanted: str | None = None,
    announcement: str = "",
    is_shown: bool = True,
) -> None:
    """Keep the list in the browser's storage up to date, and draw it if it is to be shown.

    A new entry is kept only with its owner token. `forget` is the id of one that was deleted,
    `wanted` of the one whose owner token is needed. The announcement is read aloud.
    """
    reply = storage_reply()
    data = {
        "now": now().isoformat(),  # by Redis's clock, as the visitor's may be wrong
        "entries": [entry.model_dump(mode="json", by_alias=True) for entry in entries if entry],
        "forget": forget,
        "wanted": wanted,
        "announcement": announcement,
        "isShown": is_shown,
        "reply": reply.model_dump(mode="json", by_alias=True),
    }
    _draw_requests(data, drawn_for=reply)


@st.fragment
def _draw_requests(data: Mapping[str, object], drawn_for: StorageReply) -> None:
    """Draw the list, and the whole page anew once the browser has replied something new.

    In a fragment, as a reply that asked for a run of the whole page would end the run of a click,
    and so undo the click. Only what is validated is compared: anything else may differ from itself
    (NaN does), and the page would run for ever.
    """
    if storage_reply() != drawn_for:
        st.rerun()
    _requests(key=REQUESTS, data=data, on_reply_change=lambda: None)
