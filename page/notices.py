"""What the page has to say besides what it shows: that it is ready, what came of a press, and that
the connection is lost.
"""

import html

import streamlit as st

from common.record import AnalysisRecord
from common.states import Status
from common.task import TASK
from page import texts
from page.browser import component
from page.state import page_state

LOST = {
    "offline": ("You’re offline.", "We’ll catch up when you’re back."),
    "server": ("We’ve lost touch with our server", "and keep trying."),
}
GOES_ON = f"Your {TASK.noun} goes on without you."
TELLING = {
    "off": "Tell me when it’s ready",
    "on": "We’ll tell you",
    "isOff": "We won’t tell you.",
    "howTo": "To be told, keep this tab open. The link works any time.",
    "keepOpen": "Keep this tab open. The link works any time.",
    "sound": "This browser allows no notifications: we’ll play a sound.",
}
OVER = {
    Status.COMPLETED: f"Your {TASK.noun} is ready.",
    Status.FAILED: f"Your {TASK.noun} didn’t work out.",
    Status.CANCELLED: f"Your {TASK.noun} was cancelled.",
}

_notify = component("notify")
_connection = component("connection")


def draw_connection() -> None:
    """Draw the place for the note that the connection is lost, which the browser itself fills."""
    snapshot = page_state().snapshot
    goes_on = "request" in st.query_params and snapshot and snapshot.record and not snapshot.is_over
    said = LOST | {"offline": (*LOST["offline"], GOES_ON)} if goes_on else LOST
    _connection(key="connection", data={"texts": said})


def draw_notify(record: AnalysisRecord) -> None:
    """Draw "Tell me when it's ready"; nothing to see once it is over, but then it tells.

    To be drawn in every state, or nobody is told.
    """
    part = "over" if record.status.is_terminal else "button"
    _draw_notify(record, part)


def draw_notify_line(record: AnalysisRecord) -> None:
    """Draw what to know about that button, as long as it is there."""
    if not record.status.is_terminal:
        _draw_notify(record, "line")


def _draw_notify(record: AnalysisRecord, part: str) -> None:
    data = {
        "part": part,
        "requestId": record.request_id,
        "message": OVER.get(record.status),
        "texts": TELLING,
    }
    _notify(key=f"notify-{part}", data=data)


def draw_notice() -> None:
    """Draw what came of the last press, until there is something newer to say."""
    if text := page_state().notice:
        style = "calm" if text == texts.DELETED else "amber"
        st.html(f'<p class="note {style}" role="alert">{html.escape(text)}</p>')
