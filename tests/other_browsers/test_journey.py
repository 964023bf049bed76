"""The main journey, as a person goes it: written once, for each browser, on both screens.

In the dark, and without motion: Chromium's tests go in the light, and see what moves.
"""

import os
import re
from functools import partial
from pathlib import Path

import pytest

from tests.fakes import ADA, ANALYSIS
from tests.other_browsers.tab import BRIGHTNESS, HREF, SIDEWAYS, TEXT, Tab
from tests.product import Product
from tests.toy.task import TASK

# What the page says and shows here: names are patterns, the rest selectors.
FIELDS = {"Name": "Ada", "Age": "36", "Short description": ADA.description}
TEXT_FIELD = "Short description"
SEND = ".st-key-send button"
WAITING, RING = r"Ready (at about \d\d:\d\d|any moment now)", ".ring"
RESULT = f"Your {TASK.noun}"
MORE, DOWNLOADS = "More", {"Download Markdown": ".md", "Download JSON": ".json"}
COPY_TEXT, COPY_LINK, COPIED = "Copy text", "Share", "(Link copied|Copied) ✓"
NEW = "New"
ENTRY = "a[href*='?request=']"
READY = "Ready"
DELETE, CONFIRM = "Delete", "Yes, delete it"

SCREENS = ((1280, 900), (390, 844))


@pytest.mark.browser
def test_the_main_journey(tab: Tab, product: Product) -> None:
    product.gate.clear()
    tab.open(product.page.url)
    tab.expect(TASK.headline)
    tab.expect(ENTRY, "any", times=0)
    expect_looks(tab, "form")

    for label, text in FIELDS.items():
        tab.write(label, text)
    tab.press(SEND, "any")
    tab.expect(WAITING)
    tab.expect(RING, "any")
    expect_looks(tab, "waiting")

    [request_id] = re.findall("[0-9a-f]{32}", tab.run("() => location.href"))
    product.put(request_id, "done")
    tab.expect(RESULT)
    tab.expect_text(ANALYSIS.summary)
    expect_looks(tab, "result")
    tab.press(MORE)
    for button, ending in DOWNLOADS.items():
        tab.press(button)
        assert ANALYSIS.summary in tab.expect_download(ending)

    address = tab.run("() => location.href")
    for button, what in ((COPY_TEXT, ANALYSIS.summary), (COPY_LINK, address)):
        tab.open(address)
        tab.expect_text(ANALYSIS.summary)
        tab.press(button)
        tab.expect(COPIED, "button")
        tab.press(NEW)
        assert what in tab.paste(TEXT_FIELD)

    tab.open(product.page.url)
    tab.expect(ENTRY, "any")
    tab.wait_for(f"the entry says {READY}", lambda: READY in tab.run(TEXT, ENTRY))
    expect_looks(tab, "list")
    assert tab.run(HREF, ENTRY) == address
    tab.open(address)
    tab.press(DELETE)
    tab.press(CONFIRM)
    tab.expect(TASK.headline)
    tab.expect(ENTRY, "any", times=0)
    assert not product.client.keys(f"*{request_id}*")


def expect_looks(tab: Tab, step: str) -> None:
    """It fits both screens, and is as dark as the visitor wants it. With PICTURES, keep some."""
    tab.rest()
    for width, height in SCREENS:
        tab.resize(width, height)
        tab.wait_for(
            f"it is {width} wide", partial(tab.run, "(width) => innerWidth === width", width)
        )
        tab.wait_for("it fits", lambda: tab.run(SIDEWAYS) == [0, 0, 0])
        assert tab.run(BRIGHTNESS) < 64
        if folder := os.environ.get("PICTURES"):
            name = f"{type(tab).__name__}-{width}-{step}.png".lower()
            (Path(folder) / name).write_bytes(tab.picture())
