"""What the page needs the visitor's browser for: ticking clocks, its storage, its clipboard.

Three components without an iframe or a build step: `progress`, `requests` and `copy`, each of them
files of its name beside this one. Their scripts write text as text (`textContent`) alone.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import streamlit as st
from pydantic import Field, ValidationError

from common.fields import Model, RequestId
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


class StorageReply(Model):
    """What the browser tells from its storage, and nobody has to believe.

    requests.js compares what it is sent back as text: there, the fields have the same order.
    """

    wanted: str | None = None  # the one whose owner token was asked for
    request_id: RequestId | None = None  # the same, if it is in the list
    owner_token: Annotated[str, Field(max_length=100)] | None = None
    unfinished: Annotated[tuple[RequestId, ...], Field(max_length=20)] = ()


def is_listed(request_id: str) -> bool | None:
    """Whether this one is in the browser's list; None until it has told about this very one."""
    heard = storage_reply()
    return heard.request_id == request_id if heard.wanted == request_id else None


def storage_reply() -> StorageReply:
    """What the browser has told by now; nothing if any of it is not as it should be."""
    state = st.session_state.get(REQUESTS)
    try:
        return StorageReply.model_validate(state.get("told") if isinstance(state, Mapping) else {})
    except ValidationError:
        return StorageReply()


def draw_progress(progress: Progress) -> None:
    """Draw the ring and the timeline, which tick by themselves."""
    _progress(key="progress", data=progress.model_dump(mode="json", by_alias=True))


def draw_copy(label: str, text: str) -> None:
    """Draw a button that copies the text."""
    _copy(key=f"copy-{label}", data={"label": label, "text": text}, width="content")


def draw_requests(
    entries: list[Entry],
    *,
    now: datetime,
    forget: str | None = None,
    wanted: str | None = None,
    announcement: str = "",
    is_shown: bool = True,
) -> None:
    """Keep the list in the browser's storage up to date, and draw it if it is to be shown.

    A new entry is kept only with its owner token. `now` is Redis's clock, as the visitor's may be
    wrong. `forget` is the id of one that was deleted,
    `wanted` of the one whose owner token is needed. The announcement is read aloud.
    """
    heard = storage_reply()
    data = {
        "now": now.isoformat(),
        "entries": [entry.model_dump(mode="json", by_alias=True) for entry in entries],
        "forget": forget,
        "wanted": wanted,
        "announcement": announcement,
        "isShown": is_shown,
        "told": heard.model_dump(mode="json", by_alias=True),
    }
    _draw_requests(data, drawn_for=heard)


@st.fragment
def _draw_requests(data: Mapping[str, object], drawn_for: StorageReply) -> None:
    """Draw the list, and the whole page anew once the browser has told something new.

    In a fragment, as what the browser tells would cut the run of a click off, and undo the click,
    if it asked for a run of the whole page. Only what is validated is compared: anything else may
    differ from itself (NaN does), and the page would run for ever.
    """
    if storage_reply() != drawn_for:
        st.rerun()
    _requests(key=REQUESTS, data=data, on_told_change=lambda: None)
