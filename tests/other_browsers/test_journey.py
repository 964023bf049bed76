"""The main journey, as a person goes it: written once, for each browser, on both screens."""

import re

import pytest

from tests.fakes import ADA, ANALYSIS
from tests.other_browsers.conftest import OpenTab
from tests.other_browsers.tab import BRIGHTNESS, HREF, SIDEWAYS, Tab
from tests.product import Product
from tests.toy.task import TASK

# All that the page says and shows here, in the order of the journey.
FIELDS = {"Name": "Ada", "Age": "36", "Short description": ADA.description}
TEXT_FIELD = "Short description"
SEND = "Send request"
WAITING = "Your request is in the queue"
RING = ".ring"
RESULT = "Your analysis"
COPY_LINK, COPY_TEXT, COPIED = "Copy link", "Copy text", "Copied"
DOWNLOADS = {"Download Markdown": ".md", "Download JSON": ".json"}
NEW = "New request"
READY, FORGET = "Ready", "Forget all"
ENTRY = "a[href*='?request=']"
DELETE, YES_DELETE = "Delete now", "Yes, delete it"
NOTHING = "Nothing here yet"

SCREENS = {"desktop, light": ((1280, 900), False), "phone, dark": ((390, 844), True)}


@pytest.mark.parametrize(("size", "is_dark"), SCREENS.values(), ids=SCREENS)
def test_the_main_journey(
    open_tab: OpenTab, product: Product, size: tuple[int, int], is_dark: bool
) -> None:
    product.gate.clear()
    tab = open_tab(size, is_dark)
    tab.open(product.page.url)
    tab.expect(TASK.headline)
    tab.expect_text(NOTHING)
    expect_looks(tab, size, is_dark)

    for label, text in FIELDS.items():
        tab.write(label, text)
    tab.press(SEND)
    tab.expect(WAITING)
    tab.expect(RING, "any")
    expect_looks(tab, size, is_dark)

    [request_id] = re.findall("[0-9a-f]{32}", tab.run("() => location.href"))
    product.put(request_id, "done")
    tab.expect(RESULT)
    tab.expect_text(ANALYSIS.summary)
    expect_looks(tab, size, is_dark)

    for button, ending in DOWNLOADS.items():
        tab.press(button)
        assert ANALYSIS.summary in tab.expect_download(ending)
    for button, what in ((COPY_TEXT, ANALYSIS.summary), (COPY_LINK, request_id)):
        tab.open(f"{product.page.url}/?request={request_id}")
        tab.expect_text(ANALYSIS.summary)
        tab.press(button)
        tab.expect(COPIED, "button")
        tab.press(NEW)
        tab.expect(TASK.headline)
        assert what in tab.paste(TEXT_FIELD)

    tab.expect(ENTRY, "any")
    tab.expect_text(READY)
    expect_looks(tab, size, is_dark)
    tab.open(tab.run(HREF, ENTRY))
    tab.press(DELETE)
    tab.press(YES_DELETE)
    tab.expect(TASK.headline)
    tab.expect_text(NOTHING)
    assert not product.client.keys(f"*{request_id}*")


def expect_looks(tab: Tab, size: tuple[int, int], is_dark: bool) -> None:
    """It fits the screen, and is as bright as the visitor wants it."""
    tab.rest()
    assert tab.run("() => innerWidth") == size[0]
    tab.wait_for("it fits", lambda: tab.run(SIDEWAYS) == [0, 0, 0])
    assert tab.run(BRIGHTNESS) < 64 if is_dark else tab.run(BRIGHTNESS) > 192
