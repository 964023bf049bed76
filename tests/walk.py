"""Every state of the page in one walk: for all that is true of each of them."""

from collections.abc import Iterator

from playwright.sync_api import expect

from tests.browser import Visit
from tests.fakes import OTHER_ID
from tests.product import Product

HEADINGS = {
    "waiting": "Your request is in the queue",
    "processing": "Writing your analysis",
    "slow": "Writing your analysis",
    "retrying": "Trying again soon",
    "done": "Your analysis",
    "done by the stand-in": "Your analysis",
    "failed": "This did not work",
    "failed for us to mend": "This did not work",
    "failed at last": "This did not work",
    "cancelled": "Cancelled",
}


def walk(tab: Visit, product: Product) -> Iterator[str]:
    """Bring a new visitor's tab into each state in turn, and name it once it is there."""
    tab.expect_text("Nothing here yet")
    yield "form"
    tab.button("Send request").click()
    tab.expect_text("Nothing was sent yet")
    yield "errors"

    product.gate.clear()
    request_id = tab.submit()
    for state, heading in HEADINGS.items():
        product.put(request_id, state)
        tab.page.reload()
        tab.expect_heading(heading)
        expect(tab.button("Delete now")).to_be_visible()
        yield state
        if state == "waiting":
            tab.button("Cancel").click()
            expect(tab.button("Yes, cancel it")).to_be_visible()
            yield "asking"
        if state == "processing":
            product.redis.refuse_connections()
            tab.expect_text("We can't reach our store just now")
            yield "store away"
            product.redis.mend()

    tab.page.goto(product.page.url)
    expect(tab.button("Forget all")).to_be_visible()
    yield "own list"
    product.client.delete(f"analysis:{{{request_id}}}")
    tab.page.goto(f"{product.page.url}/?request={request_id}")
    tab.expect_heading("No longer kept")
    yield "no longer kept"
    tab.page.goto(f"{product.page.url}/?request={OTHER_ID}")
    tab.expect_heading("Nothing here")
    yield "not found"
