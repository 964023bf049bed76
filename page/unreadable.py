"""What the page says of a request that is there and can't be shown."""

from common.versions import Why
from page.snapshot import Snapshot

TITLE = "No longer readable here"
TITLE_OF_NEWER = "Not readable here yet"
NO_USE = "Trying again will not help; please send a new request."
TEXT = f"What is stored under this link can't be shown any more. {NO_USE}"
TEXTS = {
    Why.OLDER: "This request was made with an earlier version of this page and can't be shown any "
    f"more. {NO_USE}",
    Why.NEWER: "This request is with a newer version of this page, which is just being put in "
    "place. Please reload the page in a minute.",
}
DELETABLE = "You can delete it here."


def unreadable_title(snapshot: Snapshot) -> str:
    """Whether waiting helps, in a few words."""
    return TITLE_OF_NEWER if snapshot.why is Why.NEWER else TITLE


def unreadable_text(snapshot: Snapshot, *, is_owner: bool) -> str:
    """Why it can't be shown, and what to do."""
    text = TEXTS.get(snapshot.why, TEXT) if snapshot.why else TEXT
    return f"{text} {DELETABLE}" if is_owner else text
