"""What the page needs the visitor's browser for: ticking clocks, its storage, its clipboard.

Components without an iframe or a build step: `progress`, `requests`, `copy`, `counter`, `form` and
`arrival`, each of them files of its name in `components/`. Their scripts write text as text
(`textContent`) alone.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import streamlit as st
from pydantic import AwareDatetime, Field, ValidationError

from common.fields import Model, RequestId
from common.task import TASK
from page.connection import now
from page.entries import Entry
from page.progress import Progress

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

STYLE = Path(__file__).parent / "page.css"
COMPONENTS = Path(__file__).parent / "components"
REQUESTS = "requests"  # the key of the one list
FORM = "form"


def component(name: str) -> "ComponentRenderer":
    """Register the component whose files in `components/` have this name."""
    html, css, js = ((COMPONENTS / f"{name}.{kind}").read_text() for kind in ("html", "css", "js"))
    return st.components.v2.component(f"page_{name}", html=html, css=css, js=js)


_progress = component("progress")
_requests = component(REQUESTS)
_copy = component("copy")
_counter = component("counter")
_arrival = component("arrival")
_form = component(FORM)


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


class Listing(Model):
    """All that the list's component is given; the same again changes nothing in the browser."""

    now: AwareDatetime  # by Redis's clock, as the visitor's may be wrong
    entries: tuple[Entry, ...]
    forget: str | None = None  # the id of one that was deleted
    wanted: str | None = None  # the id of the one whose owner token is needed
    announcement: str = ""  # is read aloud
    is_shown: bool = True
    reply: StorageReply
    pause: float | None = None  # seconds, after which to ask for news
    ready: int = 0  # how many became ready since the page was opened
    title: str = ""  # of the tab, each time that one has


def name_tab(title: str = TASK.name, icon: str = TASK.icon) -> None:
    """Give the browser's tab its title and icon: an emoji, or a URL."""
    st.set_page_config(page_title=title, page_icon=icon)


def draw_progress(progress: Progress) -> None:
    """Draw the card of the waiting, which ticks by itself, or of how it ended.

    Under the key `progress` the page reserves room for what waits (page.css).
    """
    key = "progress" if progress.ring else "progress-over"
    _progress(key=key, data=progress.model_dump(mode="json", by_alias=True))


class CopyButton(Model):
    """A button that copies a text.

    With `shared_as`, the title of a link, the system's own sheet opens where there is one for
    fingers.
    """

    label: str
    text: str
    shared_as: str | None = None


def draw_copy(*buttons: CopyButton) -> None:
    """Draw the buttons in a row."""
    key = "copy-" + "-".join(button.label for button in buttons)
    given = [button.model_dump(mode="json", by_alias=True) for button in buttons]
    _copy(key=key, data={"buttons": given}, width="content")


def link_to(request_id: str) -> str:
    """The address of an analysis."""
    return f"{(st.context.url or '').rstrip('/')}/?request={request_id}"


def draw_arrival(view: str, *, has_arrived: bool) -> None:
    """Begin a new view at its top, and one whose result came while the person waited, too.

    A screen reader then goes on from its heading.
    """
    _arrival(key="arrival", data={"view": view, "hasArrived": has_arrived})


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
    wanted: str | None = None,
    announcement: str = "",
    is_shown: bool = True,
) -> None:
    """Keep the list in the browser's storage up to date, and draw it if it is to be shown.

    A new entry is kept only with its owner token. `wanted` is the id of the one whose owner token
    is needed: the whole page is drawn anew once the browser has replied.
    """
    listing = Listing(
        now=now(),
        entries=tuple(entry for entry in entries if entry),
        wanted=wanted,
        announcement=announcement,
        is_shown=is_shown,
        reply=storage_reply(),
    )
    _draw_for_page(listing)


@st.fragment
def _draw_for_page(listing: Listing) -> None:
    """Draw the list, and the whole page anew once the browser has replied something new.

    In a fragment, as a reply that asked for a run of the whole page would end the run of a click,
    and so undo the click. Only what is validated is compared: anything else may differ from itself
    (NaN does), and the page would run for ever.
    """
    if storage_reply() != listing.reply:
        st.rerun()
    draw_listing(listing)


def draw_listing(listing: Listing, on_poll: Callable[[], None] = lambda: None) -> None:
    """Draw the list; when the browser asks for news, `on_poll` comes before the fragment's run."""
    data = listing.model_dump(mode="json", by_alias=True)
    _requests(key=REQUESTS, data=data, on_reply_change=lambda: None, on_poll_change=on_poll)
