"""The list of what was sent from this device: on the form page it follows what becomes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import streamlit as st

from page import browser, texts
from page.connection import connect, now, timing
from page.entries import entry
from page.snapshot import SOON_SECONDS, Snapshot, has_become_ready, has_changed, poll_seconds
from page.state import fetch, page_state

LookUp = Callable[[str, Snapshot | None], Snapshot]
Pace = Callable[[Snapshot], float | None]  # after how many seconds to look again, if ever


@dataclass
class Following:
    """What is known of the unfinished requests of the list, and which of them is looked up next.

    Each is looked up once at first, and then one at a time, so that a poll costs one read.
    """

    look_up: LookUp
    clock: Callable[[], datetime]
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    looked_at: dict[str, datetime] = field(default_factory=dict)  # when each was
    failures: int = 0  # how often in a row the store could not be reached
    ready: list[Snapshot] = field(default_factory=list)  # those that became so meanwhile
    changed_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.changed_at = self.clock()

    def meet(self, unfinished: Sequence[str]) -> None:
        """Look those up that are new here, and forget those that are over."""
        for request_id in self.snapshots.keys() - set(unfinished):
            del self.snapshots[request_id], self.looked_at[request_id]
        for request_id in unfinished:
            if request_id in self.snapshots:
                continue
            self.snapshots[request_id] = Snapshot(request_id)
            self.looked_at[request_id] = self.changed_at
            if not self.failures:  # else each further one would only wait for the store, too
                self._fetch(request_id)

    def poll(self, pace: Pace) -> None:
        """Look up the one that has waited longest beyond its time."""
        due = {
            snapshot.request_id: self.looked_at[snapshot.request_id] + timedelta(seconds=pause)
            for snapshot in self._unfinished()
            if (pause := pace(snapshot)) is not None
        }
        if due:
            self._fetch(min(due, key=due.__getitem__))

    def soonest(self, pace: Pace) -> Snapshot | None:
        """Return the one that is to be looked up most often; None if nothing is unfinished."""
        return min(self._unfinished(), key=lambda each: pace(each) or 0, default=None)

    def _unfinished(self) -> list[Snapshot]:
        """The store is away for all of them, or for none."""
        snapshots = self.snapshots.values()
        return [replace(each, failures=self.failures) for each in snapshots if not each.is_over]

    def _fetch(self, request_id: str) -> None:
        before = self.snapshots[request_id]
        after = self.snapshots[request_id] = self.look_up(request_id, before)
        self.failures = self.failures + 1 if after.failures else 0
        self.looked_at[request_id] = self.clock()
        if has_changed(before, after):
            self.changed_at = self.looked_at[request_id]
        if has_become_ready(before, after):
            self.ready.append(after)


def draw_requests() -> None:
    """List the requests of this device, and follow those that may still change."""
    _draw(Following(fetch, now))


@st.fragment
def _draw(following: Following) -> None:
    """Draw the list alone: somebody may be writing in the form.

    It is the browser that asks for news, as only it can be told a new pause by a fragment's run.
    """
    reply = browser.storage_reply()
    following.meet(reply.unfinished)
    kept, usual, ready = connect().kept, timing().usual, following.ready
    entries = [entry(snapshot, kept, usual=usual) for snapshot in following.snapshots.values()]
    pace = _pace()
    soonest = following.soonest(pace)
    browser.draw_listing(
        browser.Listing(
            now=following.changed_at,  # so that what is the same is not drawn again
            entries=tuple(entry for entry in entries if entry),
            forget=page_state().deleted,
            announcement=_news(len(ready)),
            reply=reply,
            pause=pace(soonest) if soonest else None,
            ready=len(ready),
            title=texts.tab_title(ready[-1]) if ready else "",
        ),
        on_poll=lambda: following.poll(_pace()),
    )


def _pace() -> Pace:
    """As on the page of the request itself, but in less of a hurry."""
    time, usual = now(), timing().usual

    def pace(snapshot: Snapshot) -> float | None:
        pause = poll_seconds(snapshot, time, usual)
        return pause and max(pause, SOON_SECONDS)

    return pace


def _news(ready: int) -> str:
    """What is read aloud."""
    if ready == 1:
        return "One request is ready."
    return f"{ready} requests are ready." if ready else ""
