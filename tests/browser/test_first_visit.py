"""What a first visitor's browser loads before the form is there."""

from collections import Counter

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.visits import wait_for_quiet
from tests.chromium import Visit, open_context
from tests.journey import expect_fields
from tests.product import Product
from tests.toy.task import TASK

pytestmark = pytest.mark.browser


def loaded(browser: Browser, url: str) -> Counter[str]:
    """The files that the form asks for, each with how often."""
    context = open_context(browser)
    visit = Visit(context, url)
    expect_fields(visit.page, TASK.form)
    expect(visit.page.locator("[data-testid=stSkeleton]")).to_have_count(0)
    wait_for_quiet(visit)
    context.close()
    return Counter(url.rpartition("/")[2] for url in visit.requests if url.startswith("http"))


def test_the_form_needs_what_is_loaded_before_it_and_each_file_is_loaded_once(
    browser: Browser, product: Product
) -> None:
    told = loaded(browser, product.page.url)
    untold = loaded(browser, f"{product.page.url}/index.html")  # Streamlit's own

    assert [name for name, times in told.items() if times > 1] == []
    assert {name for name in told if name.endswith(".js")} == {
        name for name in untold if name.endswith(".js")
    }
    assert {"health", "host-config"} <= set(told)
    assert [name for name in told if "Symbols" in name] == []
    assert [name for name in untold if "Symbols" in name] != []
