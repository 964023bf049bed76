"""The icon in the browser's tab: one for each state, drawn here, so that it depends on no font."""

from urllib.parse import quote

from common.states import Status
from page.snapshot import Snapshot

# In the middle between light and dark: a tab may be either, whatever the page is.
ACCENT, GREEN, RED, GREY = "#6366f1", "#1f9d6b", "#d9483b", "#8b8795"


def _icon(shapes: str) -> str:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="none" '
        f'stroke-width="5" stroke-linecap="round" stroke-linejoin="round">{shapes}</svg>'
    )
    return f"data:image/svg+xml,{quote(svg)}"


def _sign(colour: str, path: str) -> str:
    return _icon(
        f'<circle cx="16" cy="16" r="16" fill="{colour}"/><path d="{path}" stroke="#fff"/>'
    )


WAITING = _icon(
    f'<circle cx="16" cy="16" r="13" stroke="{GREY}" stroke-opacity=".5"/>'
    f'<path d="M16 3a13 13 0 0 1 0 26" stroke="{ACCENT}"/>'
)
READY = _sign(GREEN, "m9 17 5 5 9-11")
FAILED = _sign(RED, "m11 11 10 10m0-10L11 21")
GONE = _sign(GREY, "M10 16h12")
BY_STATUS = {Status.COMPLETED: READY, Status.FAILED: FAILED, Status.CANCELLED: FAILED}


def favicon(snapshot: Snapshot) -> str:
    """The icon for an analysis, as a URL that holds it."""
    if snapshot.record is None:
        return GONE if snapshot.is_over else WAITING
    return BY_STATUS.get(snapshot.record.status, WAITING)
