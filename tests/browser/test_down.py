"""What goes down comes up again, while somebody waits or writes."""

import pytest
from playwright.sync_api import (
    expect,
)

from tests.browser.visits import SIGN_OF_LIFE, Visiting, send, wait_in
from tests.chromium import Visit
from tests.fakes import ADA, ANALYSIS
from tests.product import Product
from tests.walk import HEADINGS

pytestmark = pytest.mark.browser


def test_the_service_is_down_and_comes_up_while_somebody_waits(
    visit: Visiting, product: Product
) -> None:
    product.service.stop()
    sender = visit()
    sender.submit()
    sender.expect_text("any moment now")

    product.service.start()

    sender.expect_text(ANALYSIS.summary)


def test_redis_goes_down_and_comes_up_while_somebody_waits(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "processing")
    product.redis.refuse_connections()
    sender.expect_text("We can't look this up just now")
    sender.expect_heading(HEADINGS["processing"])

    product.put(sender.request_id, "done")
    product.redis.repair()

    sender.expect_text(ANALYSIS.summary)
    expect(sender.text("We can't look this up just now")).to_have_count(0)


def test_redis_is_away_when_the_form_is_sent_and_the_text_stays(
    visit: Visiting, product: Product
) -> None:
    sender = visit()
    product.redis.refuse_connections()
    sender.fill()
    sender.send.click()
    sender.expect_text("Your text is still here")
    expect(sender.page.get_by_label("Short description")).to_have_value(ADA.description)

    product.redis.repair()
    sender.send.click()

    sender.expect_text(ANALYSIS.summary)


def test_a_lost_connection_is_said_on_the_page_which_then_catches_up(
    visit: Visiting, product: Product
) -> None:
    product.gate.clear()
    sender = visit()
    product.put(sender.submit(), "any moment now")
    sender.expect_text("Reference")
    sender.page.clock.install()
    sender.page.evaluate("""() => {
        window.heard = [];
        document.addEventListener("ask-connection", ({ detail }) => heard.push(detail.isLost));
    }""")
    sender.context.set_offline(True)
    sender.expect_text("You’re offline.")
    sender.expect_text("goes on without you")
    sender.context.set_offline(False)
    expect(sender.text("You’re offline.")).to_have_count(0)

    product.page.stop()
    sender.expect_text("We’ve lost touch with our server")
    expect(sender.page.get_by_role("status").filter(has_text="lost touch")).to_have_count(1)
    tries = len(sender.requests)
    while len(sender.requests) <= tries + 12:  # Streamlit's dialog came before
        try_to_connect(sender)
    expect(sender.page.get_by_test_id("stDialog")).to_have_count(0)
    product.put(sender.request_id, "failed")
    product.page.start()
    try_to_connect(sender)

    sender.expect_heading(HEADINGS["failed"])
    expect(sender.button("Try again")).to_be_visible()
    expect(sender.text("We’ve lost touch")).to_have_count(0)
    assert sender.page.evaluate("heard") == [True, False, True, False]


def try_to_connect(visit: Visit) -> None:
    """Let the time come at which the page tries it again, which it does more and more rarely."""
    tries = len(visit.requests)
    visit.page.clock.fast_forward("01:00")
    wait_in(visit, lambda: len(visit.requests) > tries)


def test_a_page_that_streamlit_has_given_up_loads_itself_again(visit: Visiting) -> None:
    tab = visit()
    tab.expect_text("Nothing here yet")
    tab.page.evaluate("""() => {
        window.isOld = true;
        const app = document.querySelector("[data-test-connection-state]");
        app.setAttribute("data-test-connection-state", "DISCONNECTED_FOREVER");
    }""")

    tab.page.wait_for_function("!window.isOld")

    tab.expect_text("Nothing here yet")


def test_what_takes_long_gives_a_sign_of_life(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "done", reduced_motion="no-preference")
    sender.button("Delete").click()
    expect(sender.button("Yes, delete it")).to_be_visible()
    product.redis.break_with(lambda exchange: None)  # no answer comes

    sender.button("Yes, delete it").click()
    sender.page.wait_for_function(f"{SIGN_OF_LIFE} > 0.5")
    sender.page.emulate_media(reduced_motion="reduce")
    sender.page.wait_for_function(f"{SIGN_OF_LIFE} === 1")

    product.redis.repair()
    sender.expect_value(f"{SIGN_OF_LIFE} === undefined", True)


def test_the_pages_own_server_restarts_while_somebody_writes(
    visit: Visiting, product: Product
) -> None:
    product.gate.clear()
    sender = visit()
    sender.expect_text("Nothing here yet")
    sender.fill()
    product.page.stop()
    product.page.start()

    sender.send.click()

    sender.expect_heading(HEADINGS["waiting"])
    assert product.store.read(sender.request_id).input == ADA
