"""A whole product, and visitors who each have a browser of their own."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
)

from tests.browser.visits import Visiting
from tests.chromium import (
    Visit,
    open_context,
)
from tests.product import Product


@pytest.fixture(scope="session")
def usual_tab(browser: Browser, whole_product: Product) -> Callable[[], Page]:
    """A tab that stays open in one visitor's browser, and keeps all that is compiled there.

    After a crash it is another one.
    """
    tabs: list[Page] = []

    def find() -> Page:
        if not tabs:
            tabs.append(open_context(browser).new_page())
            tabs[0].on("crash", lambda _: tabs.clear())
            tabs[0].goto(f"{whole_product.page.url}/robots.txt")
        return tabs[0]

    return find


@pytest.fixture
def visit(usual_tab: Callable[[], Page], browser: Browser, product: Product) -> Iterator[Visiting]:
    """Open the page, as a new visitor or in a known one's browser.

    In the end, no tab may have asked anybody else for anything, or have met an error.
    """
    kept = usual_tab()
    usual = kept.context
    usual.clear_cookies()
    kept.evaluate("localStorage.clear()")  # the first visitor is a new one; the cache is not
    visits: list[Visit] = []

    def open_tab(
        request_id: str = "", *, context: BrowserContext | None = None, **options: Any
    ) -> Visit:
        url = f"{product.page.url}/?request={request_id}" if request_id else product.page.url
        context = context or (open_context(browser) if visits else usual)
        visits.append(Visit(context, url, **options))
        return visits[-1]

    yield open_tab
    for visit in visits:
        if visit.context is not usual:
            visit.context.close()
    for page in usual.pages:
        if page is not kept:
            page.close()
    assert [visit.foreign_requests for visit in visits] == [[]] * len(visits)
    assert [visit.trouble for visit in visits] == [[]] * len(visits)
