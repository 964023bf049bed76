"""What the page needs the visitor's browser for: ticking clocks, its storage, its clipboard.

Three components without an iframe or a build step: `progress`, `requests` and `copy`, each of them
files of its name beside this one. Their scripts write text as text (`textContent`) alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import streamlit as st
from pydantic import Field, ValidationError

from common.models import Model, RequestId
from page.words import Entry, Progress

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

HERE = Path(__file__).parent
STYLE = HERE / "page.css"
REQUESTS = "requests"  # the key of the one list


def _component(name: str) -> "ComponentRenderer":
    html, css, js = ((HERE / f"{name}.{kind}").read_text() for kind in ("html", "css", "js"))
    return st.components.v2.component(f"ask_later_{name}", html=html, css=css, js=js)


_progress = _component("progress")
_requests = _component(REQUESTS)
_copy = _component("copy")


class Told(Model):
    """What the browser tells from its storage, and nobody has to believe."""

    request_id: RequestId | None = None  # the one that was asked for, if it is in the list
    owner_token: Annotated[str, Field(max_length=100)] | None = None
    unfinished: Annotated[tuple[RequestId, ...], Field(max_length=20)] = ()


def is_listed(request_id: str) -> bool | None:
    """Whether this one is in the browser's list; None until it has told about this very one."""
    raw = _raw_told()
    has_told = isinstance(raw, Mapping) and raw.get("wanted") == request_id
    return told().request_id == request_id if has_told else None


def told() -> Told:
    """What the browser has told by now."""
    try:
        return Told.model_validate(_raw_told() or {})
    except ValidationError:
        return Told()


def _raw_told() -> object:
    state = st.session_state.get(REQUESTS)
    return state.get("told") if state else None


def draw_progress(progress: Progress) -> None:
    """Draw the ring and the timeline, which tick by themselves."""
    _progress(key="progress", data=progress.model_dump(mode="json", by_alias=True))


def draw_copy(label: str, text: str) -> None:
    """Draw a button that copies the text."""
    _copy(key=f"copy-{label}", data={"label": label, "text": text}, width="content")


def draw_requests(
    entries: list[Entry],
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
    data = {
        "entries": [entry.model_dump(mode="json", by_alias=True) for entry in entries],
        "forget": forget,
        "wanted": wanted,
        "announcement": announcement,
        "isShown": is_shown,
    }
    _draw_requests(data, drawn_for=_raw_told())


@st.fragment
def _draw_requests(data: Mapping[str, object], drawn_for: object) -> None:
    """Draw the list, and the whole page anew once the browser has told something new.

    In a fragment, as what the browser tells would cut the run of a click off, and undo the click,
    if it asked for a run of the whole page.
    """
    if _raw_told() != drawn_for:
        st.rerun()
    _requests(key=REQUESTS, data={**data, "told": drawn_for}, on_told_change=lambda: None)
