"""The list of the requests that were sent from this browser."""

import re
from datetime import timedelta

import pytest
from playwright.sync_api import (
    Browser,
    expect,
)

from tests.browser.visits import HOUR, Visiting, frames_while, send, wait_for_quiet
from tests.chromium import (
    open_context,
)
from tests.fakes import ANALYSIS, ID, OTHER_ID
from tests.product import Product
from tests.walk import HEADINGS

pytestmark = pytest.mark.browser


def test_the_list_leads_back_and_follows_the_state(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "waiting")
    request_id = sender.request_id
    sender.page.goto(product.page.url)
    item = sender.page.get_by_role("listitem").filter(has=sender.page.get_by_role("link"))
    expect(item).to_contain_text("Waiting")

    product.put(request_id, "done")
    sender.page.reload()
    expect(item).to_contain_text("Ready")
    sender.fill(name="What is being written")
    with sender.page.expect_popup() as opened:
        item.get_by_role("link").click()

    expect(opened.value.get_by_text(ANALYSIS.summary)).to_be_visible()
    expect(opened.value).to_have_url(f"{product.page.url}/?request={request_id}")
    expect(sender.page.get_by_label("Name")).to_have_value("What is being written")


def test_an_entry_that_is_damaged_does_not_hide_the_others(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "done")
    damage = """id => {
        const [entry] = JSON.parse(localStorage["ask-later-requests"]);
        Object.assign(entry, { state: "Waiting", isOver: false }); // as if it was left then
        const damaged = [{ requestId: id }, { requestId: id + "1", createdAt: "?" }, null, entry];
        localStorage["ask-later-requests"] = JSON.stringify(damaged);
    }"""
    sender.page.evaluate(damage, OTHER_ID)

    sender.page.goto(product.page.url)

    expect(sender.page.locator(".requests li")).to_have_count(3)
    expect(sender.page.locator(".requests li", has_text="Ready")).to_have_count(1)


def test_what_is_damaged_in_the_list_is_not_sent_again_and_again(
    visit: Visiting, product: Product
) -> None:
    product.put(ID, "done")
    reader = visit()
    damaged = [
        {"requestId": ID, "ownerToken": "x" * 200, "state": "Ready"},
        {"requestId": [OTHER_ID], "ownerToken": {}},
        {"requestId": 1, "ownerToken": "\ud800"},
        *({"requestId": f"{number:032x}", "state": "Waiting"} for number in range(30)),
    ]
    reader.page.evaluate("x => localStorage['ask-later-requests'] = JSON.stringify(x)", damaged)
    for url in (product.page.url, f"{product.page.url}/?request={ID}"):
        reader.page.goto(url)
        expect(reader.button("New request" if ID in url else "Forget all")).to_be_visible()

        frames_while(reader, 1000)  # what was on its way
        assert frames_while(reader, 1000) == 0


@pytest.mark.parametrize("hours", [2, -2], ids=["fast", "slow"])
def test_the_servers_clock_says_what_is_no_longer_kept(
    visit: Visiting, product: Product, browser: Browser, hours: int
) -> None:
    now, context = product.store.now(), open_context(browser)
    context.clock.set_fixed_time(now + timedelta(hours=hours))
    reader = visit(context=context)
    entries = [
        {"requestId": request_id, "state": "Ready", "isOver": True, "keptUntil": until.isoformat()}
        for request_id, until in ((ID, now + HOUR), (OTHER_ID, now - HOUR))
    ]
    reader.page.evaluate("x => localStorage['ask-later-requests'] = JSON.stringify(x)", entries)

    reader.page.reload()

    expect(reader.page.locator(".requests li", has_text=ID)).to_contain_text("Ready")
    expect(reader.page.locator(".requests li", has_text=OTHER_ID)).to_contain_text("No longer kept")


def test_forgetting_all_takes_the_rights_away(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "waiting")
    sender.button("New").click()
    sender.button("Forget all").click()
    sender.button("Yes, forget all").click()
    sender.expect_text("Nothing here yet")
    wait_for_quiet(sender)

    for go in (sender.page.go_back, sender.page.reload):
        go()

        sender.expect_heading(HEADINGS["waiting"])
        expect(sender.button("New")).to_be_visible()
        sender.settle()
        expect(sender.button("Cancel")).to_have_count(0)


def test_a_link_that_has_expired_says_so_to_its_sender_alone(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "done")
    product.client.delete(f"analysis:{{{sender.request_id}}}")
    sender.page.reload()
    sender.expect_heading("No longer kept")

    sender.page.goto(product.page.url)
    item = sender.page.get_by_role("listitem").filter(has=sender.page.get_by_role("link"))
    expect(item).to_contain_text("No longer kept")


def test_an_unknown_link_says_that_it_leads_nowhere(visit: Visiting, product: Product) -> None:
    reader = visit(OTHER_ID)
    for request_id in (OTHER_ID, "no-such", "x" * 5000, "%00", "<b>"):
        reader.page.goto(f"{product.page.url}/?request={request_id}")

        reader.expect_text("not found, or is no longer kept")

    reader.button("New").click()
    expect(reader.page.get_by_label("Short description")).to_be_visible()
    expect(reader.page).to_have_url(re.compile(r"^[^?]+$"))
