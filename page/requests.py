"""The list of the requests that were sent from this browser."""

from page import browser
from page.connection import connect
from page.state import fetch, page_state


def draw_requests() -> None:
    """List the requests of this browser; look up those that may have changed."""
    snapshots = []
    for request_id in browser.storage_reply().unfinished:
        snapshots.append(fetch(request_id))
        if snapshots[-1].failures:
            break  # each further one would only wait for the store, too
    browser.draw_requests(
        [browser.entry(snapshot, connect().kept) for snapshot in snapshots],
        forget=page_state().deleted,
    )
