"""From the form to the result and back, in a real headless Chromium, through all real processes."""

import json
from collections.abc import Callable
from threading import Event

import pytest
from playwright.sync_api import (
    Browser,
    Locator,
    WebSocketRoute,
    expect,
)
from streamlit.proto.BackMsg_pb2 import BackMsg

from tests.browser.visits import WATCH, Visiting, frames_while, send, wait_for_quiet, wait_in
from tests.chromium import (
    Visit,
    open_context,
)
from tests.fakes import ADA, ANALYSIS, ID
from tests.product import Product
from tests.toy.task import TASK
from tests.walk import HEADINGS

pytestmark = pytest.mark.browser


def test_fill_submit_wait_read_and_rest(visit: Visiting, product: Product) -> None:
    sender = visit()
    sender.expect_text("Nothing here yet")
    sender.page.evaluate(WATCH)
    sender.submit()
    sender.expect_heading("Your analysis")

    assert "In the queue" in str(sender.page.evaluate("window.shown"))
    sender.expect_text(ANALYSIS.summary)
    heading = sender.page.locator("h1.minor")
    expect(heading).to_be_focused()
    expect(heading).to_have_css("outline-style", "none")
    expect(sender.page).to_have_title("✓ Ready · Ask later")
    sender.settle()
    assert "sketch" not in sender.page.inner_text("body")
    wait_for_quiet(sender)
    assert frames_while(sender, 4500) == 0  # two polls, were there any
    sender.page.keyboard.press("Tab")  # what comes next is what stands next
    expect(sender.button("Share")).to_be_focused()

    sender.page.reload()
    sender.expect_text(ANALYSIS.summary)
    sender.settle()
    expect(sender.page.locator("h1.minor")).not_to_be_focused()


# The element in focus, and whether it or its frame can be seen to be.
FOCUSED = """() => {
    let focused = document.activeElement;
    while (focused.shadowRoot?.activeElement) focused = focused.shadowRoot.activeElement;
    let frame = focused;
    while (frame && getComputedStyle(frame).outline !== "rgb(99, 102, 241) solid 3px" &&
           getComputedStyle(frame).outlineStyle === "none") frame = frame.parentElement;
    return [focused.getAttribute("aria-label") || focused.innerText || "", frame !== null];
}"""


def tab_to(visit: Visit, label: str) -> None:
    """Press Tab until what has this label is in focus; each stop on the way can be seen."""
    for _ in range(20):
        visit.page.keyboard.press("Tab")
        wait_in(visit, lambda: visit.page.evaluate(FOCUSED)[1])  # the focus can be seen
        name = visit.page.evaluate(FOCUSED)[0]
        if name.strip().startswith(label):
            return
    pytest.fail(f"no {label} can be reached")


def test_the_keyboard_alone_is_enough(visit: Visiting, product: Product) -> None:
    product.gate.clear()
    sender = visit()
    sender.expect_text("Nothing here yet")
    fields = {"Name": "Ada", "Age": "36", "Short description": ADA.description}
    for label, written in fields.items():
        tab_to(sender, label)
        sender.page.keyboard.type(written)
    tab_to(sender, f"Get my {TASK.noun}")
    sender.page.keyboard.press("Enter")
    sender.expect_heading(HEADINGS["waiting"])
    expect(sender.button("Cancel")).to_be_visible()

    tab_to(sender, "Cancel")
    sender.page.keyboard.press("Enter")
    expect(sender.button("Yes, cancel it")).to_be_visible()
    tab_to(sender, "Yes, cancel it")
    sender.page.keyboard.press("Enter")

    sender.expect_heading("Cancelled")


def test_wrong_fields_are_named_and_the_text_stays(visit: Visiting, product: Product) -> None:
    sender = visit()
    sender.fill(name=" ", age="36.5", description="Short.")
    sender.send.click()

    sender.expect_text("Please fill this in.")
    sender.expect_text("Please enter a whole number from 1 to 120.")
    sender.expect_text("Please write at least 10 characters.")
    sender.expect_text("Not sent yet. 3 fields need a look.")
    sender.rest()
    expect(sender.page.get_by_label("Short description")).to_have_value("Short.")
    assert sender.request_id == ""


def test_a_text_far_too_long_is_kept_and_named(visit: Visiting, product: Product) -> None:
    sender = visit()
    sender.fill(name="a" * 600, description="🚀" * 10_000)
    sender.send.click()

    sender.expect_text("That's 600 characters; please keep it to 80 or fewer.")
    sender.expect_text("That's 10,000 characters; please keep it to 2,000 or fewer.")
    expect(sender.page.get_by_label("Short description")).to_have_value("🚀" * 10_000)
    sender.expect_fits()


def enter_twice(button: Locator) -> None:
    button.focus()
    button.press("Enter", no_wait_after=True)
    button.page.keyboard.press("Enter")


@pytest.mark.parametrize(
    "send", [Locator.dblclick, enter_twice], ids=["double click", "Enter twice"]
)
def test_sending_twice_makes_one_analysis(
    visit: Visiting, product: Product, send: Callable[[Locator], None]
) -> None:
    before = product.page.output.count('"event": "submitted"')
    sender = visit()
    sender.fill()

    send(sender.send)

    sender.expect_heading("Your analysis")
    assert product.page.output.count('"event": "submitted"') == before + 1


def test_a_click_counts_even_if_the_browser_sends_its_list_just_after(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    entries = json.dumps([{"requestId": ID, "state": "Waiting"}])  # else there is nothing to send
    stored = [{"name": "ask-later-requests", "value": entries}]
    origins = [{"origin": product.page.url, "localStorage": stored}]
    context = open_context(browser, storage_state={"origins": origins})
    context.route_web_socket(lambda url: True, swap_click_and_list)

    visit(context=context).submit()


def swap_click_and_list(tab: WebSocketRoute) -> None:
    """Hold what the browser sends of its list, and the click, and pass both on at once."""
    server = tab.connect_to_server()
    replies: list[bytes] = []
    clicks: list[bytes] = []

    def pass_on(message: str | bytes) -> None:
        assert isinstance(message, bytes)
        is_click = b"-send" in message
        if replies and clicks:
            server.send(message)
        elif is_click or b'"unfinished"' in message:
            (clicks if is_click else replies).append(message)
            if replies and clicks:
                server.send(clicks[0])
                server.send(replies[0])
        else:
            server.send(message)

    tab.on_message(pass_on)


def test_what_was_confirmed_is_done_even_if_the_next_click_comes_at_once(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    context, waits, asked = open_context(browser), Event(), list[bytes]()
    context.route_web_socket(lambda url: True, lambda tab: hold_first_of_two(tab, waits, asked))
    sender = send(visit, product, "done", context=context)
    request_id = sender.request_id
    sender.button("Delete").click()
    expect(sender.button("Yes, delete it")).to_be_visible()

    waits.set()
    sender.button("Yes, delete it").click()
    sender.button("New").click()

    expect(sender.page.get_by_label("Name")).to_be_visible()
    wait_in(sender, lambda: not product.client.keys(f"*{request_id}*"))
    # A second request for the whole page undoes the first only now and then: here it never may.
    assert [BackMsg.FromString(each).rerun_script.fragment_id != "" for each in asked] == [True] * 2


def hold_first_of_two(tab: WebSocketRoute, waits: Event, held: list[bytes]) -> None:
    """Once it waits, pass two messages on at once: the second meets the run of the first."""
    server = tab.connect_to_server()

    def pass_on(message: str | bytes) -> None:
        assert isinstance(message, bytes)
        if not waits.is_set():
            server.send(message)
            return
        held.append(message)
        if len(held) == 2:
            waits.clear()
            for each in held:
                server.send(each)

    tab.on_message(pass_on)


def test_a_double_click_does_what_one_does(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "waiting")
    request_id = sender.request_id
    for state, action, heading in (
        ("waiting", "Yes, cancel it", "Cancelled"),
        ("failed at last", "Try again", HEADINGS["waiting"]),
        ("done", "Yes, delete it", TASK.headline),
    ):
        product.put(request_id, state)
        sender.open(request_id)
        sender.expect_heading(HEADINGS[state])
        if state == "waiting":
            sender.button("Cancel").click()
        if state == "done":
            sender.button("Delete").click()
        expect(sender.button(action)).to_be_visible()
        sender.settle()

        sender.button(action).dblclick()

        sender.expect_heading(heading)
        sender.rest()
        expect(sender.text("That was not possible any more.")).to_have_count(0)


def test_two_tabs_of_one_browser_show_the_same_and_may_do_the_same(
    visit: Visiting, product: Product
) -> None:
    first = send(visit, product, "waiting")
    second = visit(first.request_id, context=first.context)
    second.expect_heading(HEADINGS["waiting"])
    expect(second.button("Cancel")).to_be_visible()

    product.put(first.request_id, "done")

    for tab in (first, second):
        tab.expect_text(ANALYSIS.summary)
        tab.button("Delete").click()
        expect(tab.button("Yes, delete it")).to_be_visible()


def test_a_refresh_changes_nothing(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "waiting")
    owners = {name: "Cancel" for name in ("waiting", "processing", "retrying")} | {"done": "More"}
    for state in ("waiting", "processing", "retrying", "done", "failed", "cancelled"):
        product.put(sender.request_id, state)

        sender.page.reload()

        sender.expect_heading(HEADINGS[state])
        expect(sender.button(owners.get(state, "Delete"))).to_be_visible()


def test_going_back_to_an_analysis_never_takes_its_owner_for_a_stranger(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "failed")
    sender.page.reload()  # so that only the browser knows the owner token
    expect(sender.button("Try again")).to_be_visible()
    sender.button("New").click()
    sender.expect_text("Your requests on this device")
    wait_for_quiet(sender)
    sender.page.evaluate(WATCH)

    sender.page.go_back()

    expect(sender.button("Try again")).to_be_visible()
    sender.settle()
    assert "Only the browser that sent this" not in str(sender.page.evaluate("window.shown"))
