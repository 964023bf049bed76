"""The states of the page in one walk: for all that is true of each of them."""

import re
from collections.abc import Iterator
from datetime import timedelta

from playwright.sync_api import expect

from common.questions import in_words
from tests.chromium import Visit
from tests.fakes import ID, OTHER_ID
from tests.processes import ROOT
from tests.product import Product
from tests.toy.task import TASK

# On a busy machine the time may have come before anybody looks.
READY_SOON = re.compile(r"^Ready (at about \d\d:\d\d|any moment now)$")
DID_NOT_WORK = "That didn't work"
HEADINGS: dict[str, str | re.Pattern[str]] = {
    "waiting": READY_SOON,
    "any moment now": "Ready any moment now",
    "processing": READY_SOON,
    "slow": "Taking a little longer than usual",
    "retrying": READY_SOON,
    "done": f"Your {TASK.noun}",
    "done by the stand-in": f"Your {TASK.noun}",
    "failed": "This text didn't get through",
    "failed for us to fix": "That was us, not you",
    "failed at last": DID_NOT_WORK,
    "not delivered": DID_NOT_WORK,
    "timed out": DID_NOT_WORK,
    "cancelled": "Cancelled",
}
SHARED = f"{in_words(TASK.noun)}, shared with you"  # over a result, for who did not send it


def walk(tab: Visit, product: Product) -> Iterator[str]:
    """Bring a new visitor's tab into each state in turn, and name it once all of it is drawn."""
    for state in _walk(tab, product):
        tab.rest()
        yield state


def _walk(tab: Visit, product: Product) -> Iterator[str]:
    yield from _write(tab, product)
    request_id = tab.submit()
    for state, heading in HEADINGS.items():
        product.put(request_id, state)
        tab.page.reload()
        tab.expect_heading(heading)
        expect(tab.button("More" if state.startswith("done") else "Delete")).to_be_visible()
        tab.settle()
        yield state
        if state == "waiting":
            tab.button("Cancel").click()
            expect(tab.button("Yes, cancel it")).to_be_visible()
            yield "asking to cancel"
        if state == "processing":
            product.redis.refuse_connections()
            tab.expect_text("We can't look this up just now")
            yield "store away"
            product.redis.repair()
        if state == "done":
            tab.button("Delete").click()
            expect(tab.button("Yes, delete it")).to_be_visible()
            yield "asking to delete"

    tab.page.goto(product.page.url)
    expect(tab.button("Clear the list")).to_be_visible()
    yield "own list"
    product.client.delete(f"analysis:{{{request_id}}}")
    tab.open(request_id)
    tab.expect_heading("No longer kept")
    yield "no longer kept"
    yield from _read_without_owning(tab, product)


def _write(tab: Visit, product: Product) -> Iterator[str]:
    """The form, and all that it can be refused for."""
    product.gate.clear()
    tab.expect_text("Nothing here yet")
    yield "form"
    tab.send.click()
    tab.expect_text("Not sent yet")
    yield "errors"
    tab.fill()
    product.redis.refuse_connections()
    tab.send.click()
    tab.expect_text("Your text is still here: please try again.")
    yield "store away at sending"
    product.redis.repair()
    if not (ROOT / "operations" / "__init__.py").exists():
        return  # nothing else rejects
    product.client.set("paused", "1", px=timedelta(minutes=5))
    tab.send.click()
    tab.expect_text("Your text is still here: try again in 5 minutes.")
    yield "rejected"
    product.client.delete("paused")


def _read_without_owning(tab: Visit, product: Product) -> Iterator[str]:
    """What is under a link that somebody else sent."""
    tab.open(OTHER_ID)
    tab.expect_heading("Nothing here")
    yield "not found"
    for state in ("waiting", "failed"):
        product.put(ID, state)
        tab.open(ID)
        tab.expect_heading(HEADINGS[state])
        expect(tab.button("New")).to_be_visible()
        tab.settle()
        yield f"a stranger's {state}"
    product.redis.refuse_connections()
    tab.page.reload()
    tab.expect_heading("One moment")
    tab.expect_text("We can't look this up just now")
    yield "store away at the first look"
    product.redis.repair()
