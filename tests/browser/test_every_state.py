"""Every state: it is accessible, fits, and moves only for those who like it."""

from importlib import import_module
from typing import Any, Literal

import pytest
from playwright.sync_api import expect

from tests.browser.visits import SCREENS, Visiting
from tests.chromium import Visit
from tests.conftest import leave_out
from tests.fakes import ID
from tests.product import Product
from tests.walk import walk

pytestmark = pytest.mark.browser


@pytest.fixture(scope="session")
def axe() -> Any:
    """The checker; there is no list of exceptions, for it finds nothing in Streamlit either."""
    try:
        return import_module("axe_playwright_python.sync_playwright").Axe()
    except ImportError:
        remedy = ".venv/bin/pip install axe-playwright-python"
        leave_out("the accessibility check", because="there is no axe-core", remedy=remedy)


CHECK = "axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations)"


def violations(axe: Any, tab: Visit) -> list[tuple[str, str, str]]:
    """What is wrong: rule, impact, and with what."""
    if not tab.page.evaluate("'axe' in window"):  # reading it takes as long as a check
        tab.page.evaluate(axe.axe_script)
    found = tab.page.evaluate(CHECK)
    return [(each["id"], each["impact"], node["html"]) for each in found for node in each["nodes"]]


DARK = "getComputedStyle(document.querySelector('.stApp')).backgroundColor === 'rgb(14, 17, 23)'"


def test_every_state_is_accessible_and_fits(visit: Visiting, product: Product, axe: Any) -> None:
    """In the light on a desktop, and in the dark on a phone."""
    tab = visit()  # without motion: else a colour is measured in mid-change
    for number, state in enumerate(walk(tab, product)):
        for screen, scheme in SCREENS if number % 2 else reversed(SCREENS):
            tab.page.set_viewport_size(screen)
            tab.page.emulate_media(color_scheme=scheme)
            tab.expect_value(DARK, scheme == "dark")
            tab.rest()
            assert violations(axe, tab) == [], (state, scheme)
            tab.expect_fits()


def test_the_accessibility_check_sees_into_streamlits_page_and_our_components(
    visit: Visiting, product: Product, axe: Any
) -> None:
    product.put(ID, "processing")
    reader = visit(ID)
    reader.expect_text("Being written now")
    reader.settle()
    with product.page.frozen():  # else the next poll may repair it
        for place in (".headline", ".steps strong"):
            reader.page.locator(place).first.evaluate(
                'e => { e.innerHTML = \'<img src="data:,"><span style="color:#ddd">pale</span>\' }'
            )

        found = [rule for rule, _, _ in violations(axe, reader)]

    assert found.count("image-alt") == found.count("color-contrast") == 2


def test_whoever_wants_no_motion_sees_none(visit: Visiting, product: Product) -> None:
    product.put(ID, "processing")
    reader = visit(ID)
    looks: dict[Literal["no-preference", "reduce"], tuple[str, str]] = {
        "no-preference": ("write", "0.3s, 0.3s"),
        "reduce": ("none", "0s"),
    }
    for wish, (animation, transition) in looks.items():
        reader.page.emulate_media(reduced_motion=wish)

        expect(reader.page.locator(".mark")).to_have_css("animation-name", animation)
        expect(reader.page.locator(".arc.queue")).to_have_css("transition-duration", transition)
