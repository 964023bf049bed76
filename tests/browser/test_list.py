"""The list of the requests that were sent from this browser."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Locator, expect
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.browser.visits import (
    HOUR,
    Visiting,
    frames_while,
    send,
    wait_for_poll,
    wait_for_quiet,
)
from tests.chromium import Visit, open_context
from tests.fakes import ADA, ANALYSIS, ID, OTHER_ID
from tests.product import Product

pytestmark = pytest.mark.browser


# In a tab: what a browser that translates does with each text of the list.
TRANSLATE = """() => {
    const root = document.querySelector(".requests") ?? [...document.querySelectorAll("*")]
        .find((node) => node.shadowRoot?.querySelector(".requests")).shadowRoot;
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), found = [];
    while (texts.nextNode()) if (texts.currentNode.data.trim()) found.push(texts.currentNode);
    for (const text of found) {
        const font = document.createElement("font");
        font.textContent = text.data;
        text.replaceWith(font);
    }
}"""


def send_and_open_form(visit: Visiting, product: Product, **fields: str) -> Visit:
    """Send a form that nothing delivers, and open another one."""
    product.gate.clear()
    sender = visit()
    product.put(sender.submit(**fields), "waiting")
    sender.page.goto(product.page.url)
    expect(rows(sender).first).to_be_visible()
    wait_for_poll(sender)
    return sender


def rows(visit: Visit) -> Locator:
    return visit.page.locator(".requests li")


def kept(visit: Visit) -> list[dict[str, object]]:
    found = visit.page.evaluate("JSON.parse(localStorage['ask-later-requests'])")
    assert isinstance(found, list)
    return found


def runs_of_the_whole_page(visit: Visit) -> int:
    messages = map(ForwardMsg.FromString, visit.received)
    starts = [each for each in messages if each.HasField("new_session")]
    return sum(not start.metadata.run.fragment_ids for start in starts)


def test_the_list_follows_what_happens_while_somebody_writes(
    visit: Visiting, product: Product
) -> None:
    sender = send_and_open_form(visit, product)
    request_id = str(kept(sender)[0]["requestId"])
    row = rows(sender)
    expect(row).to_contain_text(re.compile(r"Sent \d\d:\d\d · waiting"))
    expect(row).to_contain_text(re.compile(r"0:\d\d left"))
    expect(row).to_contain_text(ADA.description)
    name = sender.page.get_by_label("Name")
    name.press_sequentially("What is")
    whole_runs = runs_of_the_whole_page(sender)
    sender.page.evaluate(TRANSLATE)

    product.put(request_id, "done")

    expect(row).to_contain_text("Ready")
    expect(row).not_to_contain_text("waiting")
    expect(row).not_to_contain_text("left")
    expect(sender.page).to_have_title("✓ Ready · Ask later")
    expect(sender.page.locator("#announcer")).to_have_text("One request is ready.")
    name.press_sequentially(" being written")
    wait_for_quiet(sender)
    assert frames_while(sender, 2500) == 0
    assert runs_of_the_whole_page(sender) == whole_runs
    sender.page.evaluate("dispatchEvent(new Event('focus'))")  # the person is back at the tab
    expect(sender.page).to_have_title("Ask later")

    with sender.page.expect_popup() as opened:
        row.get_by_role("link").click()
    expect(opened.value.get_by_text(ANALYSIS.summary)).to_be_visible()
    expect(opened.value).to_have_url(f"{product.page.url}/?request={request_id}")
    expect(name).to_have_value("What is being written")


def test_the_list_of_one_tab_follows_what_another_one_sends(
    visit: Visiting, product: Product
) -> None:
    product.gate.clear()
    reader = visit()
    reader.expect_text("Nothing here yet")
    sender = visit(context=reader.context)
    product.put(sender.submit(), "waiting")
    expect(rows(reader)).to_contain_text("waiting")

    product.put(sender.request_id, "failed")

    expect(rows(reader)).to_contain_text("Did not work")
    expect(reader.page).to_have_title("Ask later")


def test_the_first_words_stay_in_this_browser_and_can_be_switched_off(
    visit: Visiting, product: Product
) -> None:
    sender = send_and_open_form(visit, product, description="Zebras graze near my window.")
    expect(rows(sender)).to_contain_text("Zebras graze near my window.")
    assert not [url for url in sender.requests if "Zebras" in url]
    assert "Zebras" not in product.page.output

    sender.button("Don't keep first words").click()
    expect(rows(sender)).not_to_contain_text("Zebras")
    expect(rows(sender)).to_contain_text(re.compile(r"Sent \d\d:\d\d:\d\d"))
    assert "label" not in kept(sender)[0]

    sender.submit(description="Zebras graze near my door.")
    sender.page.goto(product.page.url)
    expect(rows(sender)).to_have_count(2)
    assert "Zebras" not in str(sender.page.evaluate("JSON.stringify(localStorage)"))
    sender.button("Keep first words").click()
    expect(sender.button("Don't keep first words")).to_be_visible()


def test_times_are_english_and_tell_two_requests_apart(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    # Whose own language has other months, and other digits.
    context = open_context(browser, locale="ar-EG", timezone_id="Europe/London")
    day = product.store.now().replace(year=2020, month=1, day=26, hour=14, minute=2)
    both = {"state": "Ready", "mark": "ready", "isOver": True, "keptUntil": "2099-02-03T12:00:00Z"}
    entries = [
        {**both, "requestId": f"{number:032x}", "createdAt": day.replace(second=second).isoformat()}
        for number, second in enumerate((7, 5))
    ]
    same_words = [{**entry, "requestId": "f" * 32, "label": "The same"} for entry in entries[:1]]
    same_words += [{**entries[1], "requestId": "e" * 32, "label": "The same"}]
    reader = visit(context=context)
    reader.page.evaluate(
        "x => localStorage['ask-later-requests'] = JSON.stringify(x)", entries + same_words
    )

    reader.page.reload()

    for second in ("05", "07"):
        expect(rows(reader).filter(has_text=f"26 Jan 2020, 14:02:{second}")).to_have_count(2)
    expect(rows(reader).first).to_contain_text("ept until 3 Feb 2099")


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
        expect(reader.button("New" if ID in url else "Clear the list")).to_be_visible()

        frames_while(reader, 1000)  # what was on its way
        assert frames_while(reader, 1000) == 0


def test_the_servers_clock_says_what_is_no_longer_kept(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    now, context = product.store.now(), open_context(browser)
    reader = visit(context=context)
    entries = [
        {"requestId": request_id, "state": "Ready", "isOver": True, "keptUntil": until.isoformat()}
        for request_id, until in ((ID, now + HOUR), (OTHER_ID, now - HOUR))
    ]
    reader.page.evaluate("x => localStorage['ask-later-requests'] = JSON.stringify(x)", entries)

    for ahead in (2 * HOUR, -2 * HOUR):
        context.clock.set_fixed_time(now + ahead)
        reader.page.reload()

        expect(rows(reader).filter(has_text=ID)).to_contain_text("Ready")
        expect(rows(reader).filter(has_text=OTHER_ID)).to_contain_text("No longer kept")


def test_a_double_click_clears_nothing_and_yes_takes_the_rights_away(
    visit: Visiting, product: Product
) -> None:
    sender = send_and_open_form(visit, product)
    clear, yes = sender.page.locator(".clear"), sender.button("Yes, clear it")
    take_back: list[Callable[[], object]] = [
        sender.button("Keep the list").click,
        lambda: sender.page.keyboard.press("Escape"),
        sender.page.get_by_label("Name").click,
    ]
    for take in take_back:
        box = clear.bounding_box()
        clear.dblclick()
        sender.expect_text("you can't cancel, retry or delete it any more")
        assert clear.bounding_box() == box  # what takes it back is where the pointer is
        take()
        expect(yes).to_be_hidden()
        expect(clear).to_have_text("Clear the list")
    assert kept(sender)[0]["ownerToken"]
    request_id = kept(sender)[0]["requestId"]

    clear.click()
    yes.click()
    sender.expect_text("Nothing here yet")
    wait_for_quiet(sender)

    assert kept(sender) == []
    sender.open(str(request_id))
    sender.settle()
    expect(sender.button("New")).to_be_visible()
    expect(sender.button("Cancel")).to_have_count(0)


def test_what_is_gone_can_be_removed_one_by_one(visit: Visiting, product: Product) -> None:
    sender = send_and_open_form(visit, product)
    gone = [
        {"requestId": f"{number:032x}", "state": "Waiting", "createdAt": f"2020-01-0{number}"}
        for number in (1, 2)
    ]
    sender.page.evaluate(
        "x => localStorage['ask-later-requests'] = JSON.stringify(x)", [*kept(sender), *gone]
    )
    sender.page.reload()
    lost = rows(sender).filter(has_text="no longer kept")
    expect(lost).to_have_count(2)
    expect(rows(sender).first.get_by_role("button")).to_have_count(0)

    lost.first.get_by_role("button").dblclick()

    expect(lost).to_have_count(1)
    expect(rows(sender)).to_have_count(2)
    assert [entry["requestId"] for entry in kept(sender)][1:] == [gone[0]["requestId"]]


def test_a_link_that_has_expired_says_so_to_its_sender_alone(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "done")
    product.client.delete(f"analysis:{{{sender.request_id}}}")
    sender.page.reload()
    sender.expect_heading("No longer kept")

    sender.page.goto(product.page.url)
    item = sender.page.get_by_role("listitem").filter(has=sender.page.get_by_role("link"))
    expect(item).to_contain_text("no longer kept")


def test_an_unknown_link_says_that_it_leads_nowhere(visit: Visiting, product: Product) -> None:
    reader = visit(OTHER_ID)
    reader.expect_text("not found, or is no longer kept")
    for request_id in ("no-such", "x" * 5000, "%00", "<b>"):
        reader.page.goto(f"{product.page.url}/?request={request_id}")

        reader.expect_text("not found, or is no longer kept")

    reader.button("New request").click()
    expect(reader.page.get_by_label("Short description")).to_be_visible()
    expect(reader.page).to_have_url(re.compile(r"^[^?]+$"))
