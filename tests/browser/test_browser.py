"""The journeys of people, in a real headless Chromium, through all real processes."""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib import import_module
from threading import Event
from typing import Any, Literal

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    ViewportSize,
    WebSocketRoute,
    expect,
)
from streamlit.proto.BackMsg_pb2 import BackMsg

from tests.chromium import (
    DESKTOP,
    PATIENCE,
    PHONE,
    Visit,
    open_context,
)
from tests.conftest import leave_out
from tests.fakes import ADA, ANALYSIS, ID, OTHER_ID
from tests.http_server import HttpServer, answer, hang, serve
from tests.model_replies import refusal, response
from tests.product import Product, start_product
from tests.toy.task import TASK, Analysis
from tests.walk import HEADINGS, walk

pytestmark = pytest.mark.browser

OWNER_HASH = "5ec2e7" * 10 + "beef"
JOURNEY = "the browser journeys"
HOUR = timedelta(hours=1)
Visiting = Callable[..., Visit]


@pytest.fixture(scope="session")
def whole_product(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with start_product(tmp_path_factory.mktemp("product")) as product:
        yield product


@pytest.fixture
def product(whole_product: Product) -> Product:
    whole_product.make_whole()
    return whole_product


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


def send(visit: Visiting, product: Product, state: str, **options: Any) -> Visit:
    """Send a form, and bring the analysis into a state for good: no delivery reaches it."""
    product.gate.clear()
    sender = visit(**options)
    product.put(sender.submit(), state)
    sender.expect_heading(HEADINGS[state])
    return sender


def frames_while(visit: Visit, milliseconds: int) -> int:
    before = len(visit.received)
    visit.page.wait_for_timeout(milliseconds)
    return len(visit.received) - before


def wait_for_poll(visit: Visit) -> None:
    """Wait until the page has asked, been answered, and drawn what came."""
    before = len(visit.received)
    wait_in(visit, lambda: len(visit.received) > before)
    wait_for_quiet(visit)


def wait_in(visit: Visit, is_so: Callable[[], object]) -> None:
    """Wait until a condition holds, while the browser's events go on coming in."""
    deadline = time.monotonic() + PATIENCE / 1000
    while not is_so():
        assert time.monotonic() < deadline, "this did not come true in time"
        visit.page.wait_for_timeout(50)


def wait_for_quiet(visit: Visit) -> None:
    """Wait until a second passes without a word from the server."""
    while frames_while(visit, 1000):
        pass


# In a tab: how much is to be seen of it, if it is there.
SIGN_OF_LIFE = """(({ content, opacity }) => content === "none" ? undefined : Number(opacity))(
    getComputedStyle(document.querySelector(".stApp"), "::before"))"""

# In a tab: note what is removed, shown or pale, and what is read aloud.
WATCH = """() => {
    window.removed = []; window.shown = []; window.pale = []; window.spoken = [];
    const isLive = (node) => (node.nodeType === 1 ? node : node.parentElement)
        ?.closest("[aria-live], [role=status], [role=alert]");
    const watch = (root) => {
        new MutationObserver((changes) => {
            for (const change of changes) {
                if (change.type === "attributes") {
                    const { opacity } = getComputedStyle(change.target);
                    if (change.target.closest(".stMain") && opacity !== "1")
                        window.pale.push(change.target.innerText);
                    continue;
                }
                if (isLive(change.target)) window.spoken.push(change.target.textContent);
                for (const node of change.removedNodes)
                    if (node.nodeType === 1) window.removed.push(node.outerHTML);
                window.shown.push(change.target.textContent);
            }
        }).observe(root, {
            childList: true, subtree: true, characterData: true, attributeFilter: ["data-stale"],
        });
        for (const node of root.querySelectorAll("*")) if (node.shadowRoot) watch(node.shadowRoot);
    };
    watch(document.body);
}"""


# ── From the form to the result ─────────────────────────────────────────────────────────────


def test_fill_submit_wait_read_and_rest(visit: Visiting, product: Product) -> None:
    sender = visit()
    sender.expect_text("Nothing here yet")
    sender.page.evaluate(WATCH)
    sender.submit()
    sender.expect_heading("Your analysis")

    assert "Your request is in the queue" in str(sender.page.evaluate("window.shown"))
    sender.expect_text(ANALYSIS.summary)
    sender.expect_text("Your analysis is ready.")
    expect(sender.page).to_have_title("✓ Ready · Ask later")
    sender.settle()
    assert "sketch" not in sender.page.inner_text("body")
    wait_for_quiet(sender)
    assert frames_while(sender, 4500) == 0  # two polls, were there any

    sender.page.reload()
    sender.expect_text(ANALYSIS.summary)
    expect(sender.text("Your analysis is ready.")).to_have_count(0)


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
    tab_to(sender, "Send request")
    sender.page.keyboard.press("Enter")
    sender.expect_heading("Your request is in the queue")
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
    sender.button("Send request").click()

    sender.expect_text("Please fill this in.")
    sender.expect_text("Please enter a whole number from 1 to 120.")
    sender.expect_text("Please write at least 10 characters.")
    sender.expect_text("Nothing was sent yet. Please look at 3 fields below.")
    sender.rest()
    expect(sender.page.get_by_label("Short description")).to_have_value("Short.")
    assert sender.request_id == ""


def test_a_text_far_too_long_is_kept_and_named(visit: Visiting, product: Product) -> None:
    sender = visit()
    sender.fill(name="a" * 600, description="🚀" * 10_000)
    sender.button("Send request").click()

    sender.expect_text("That's 600 characters; please keep it under 80.")
    sender.expect_text("That's 10,000 characters; please keep it under 2,000.")
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

    send(sender.button("Send request"))

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
        is_click = b"FormSubmitter" in message
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
    sender.button("Delete now").click()
    expect(sender.button("Yes, delete it")).to_be_visible()

    waits.set()
    sender.button("Yes, delete it").click()
    sender.button("New request").click()

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


@pytest.mark.parametrize(
    ("state", "action", "heading"),
    [
        ("waiting", "Yes, cancel it", "Cancelled"),
        ("failed at last", "Try again", "Your request is in the queue"),
        ("done", "Yes, delete it", TASK.headline),
    ],
)
def test_a_double_click_does_what_one_does(
    visit: Visiting, product: Product, state: str, action: str, heading: str
) -> None:
    sender = send(visit, product, state)
    for popover in {"waiting": ["Cancel"], "done": ["Delete now"]}.get(state, []):
        sender.button(popover).click()
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
        expect(tab.button("Delete now")).to_be_visible()


def test_a_refresh_changes_nothing(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "waiting")
    owners = {"waiting": "Cancel", "processing": "Cancel", "retrying": "Cancel"}
    for state in ("waiting", "processing", "retrying", "done", "failed", "cancelled"):
        product.put(sender.request_id, state)

        sender.page.reload()

        sender.expect_heading(HEADINGS[state])
        expect(sender.button(owners.get(state, "Delete now"))).to_be_visible()


def test_going_back_to_an_analysis_never_takes_its_owner_for_a_stranger(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "failed")
    sender.page.reload()  # so that only the browser knows the owner token
    expect(sender.button("Try again")).to_be_visible()
    sender.button("New request").click()
    sender.expect_text("Your requests in this browser")
    wait_for_quiet(sender)
    sender.page.evaluate(WATCH)

    sender.page.go_back()

    expect(sender.button("Try again")).to_be_visible()
    sender.settle()
    assert "Only the browser that sent this" not in str(sender.page.evaluate("window.shown"))


@pytest.mark.parametrize("state", ["waiting", "processing"])
def test_the_page_polls_while_it_waits_and_nothing_flickers_or_is_read_aloud(
    visit: Visiting, product: Product, state: str
) -> None:
    product.put(ID, state)
    reader = visit(ID)
    reader.settle()
    wait_for_quiet(reader)
    reader.page.evaluate(WATCH)

    wait_for_poll(reader)

    assert reader.page.evaluate("[window.removed, window.spoken]") == [[], []]


def test_a_change_of_state_is_read_aloud_once_and_nothing_turns_pale(
    visit: Visiting, product: Product
) -> None:
    product.put(ID, "waiting")
    reader = visit(ID, reduced_motion="reduce")  # else it would do so slowly, and come too late
    reader.settle()
    wait_for_quiet(reader)
    reader.page.evaluate(WATCH)

    product.put(ID, "processing")
    reader.expect_heading(HEADINGS["processing"])
    wait_for_quiet(reader)
    product.client.delete(f"analysis:{{{ID}}}")
    reader.expect_heading("Nothing here")
    expect(reader.button("New request")).to_have_count(1)  # that of before has gone
    reader.button("New request").click()
    expect(reader.page.get_by_label("Name")).to_be_visible()
    wait_for_quiet(reader)

    assert reader.page.evaluate("window.spoken") == [
        "Writing your analysis. Attempt 1 of 3.",
        "Nothing here.",
        "",  # so that the next request is read aloud, too
    ]
    assert reader.page.evaluate("window.pale") == []


def test_the_ring_drains_without_a_word_from_the_server(visit: Visiting, product: Product) -> None:
    product.put(ID, "waiting")
    reader = visit(ID)
    reader.settle()

    def ring() -> tuple[float, int, float, str]:
        """When, at one moment, the ring shows what: its time, its arc, and the words beside it."""
        at, time, arc, headline = reader.page.locator(".card").evaluate(
            """card => [
                performance.now() / 1000,
                card.querySelector(".time").textContent,
                parseFloat(card.querySelector(".arc").style.strokeDasharray),
                card.querySelector(".headline").textContent,
            ]"""
        )
        minutes, seconds = time.split(":")
        return at, 60 * int(minutes) + int(seconds), arc, headline

    def has_drained() -> bool:
        """Whether it has done so by the time that has passed, which is some seconds."""
        at_later, time_later, arc_later, headline_later = ring()
        passed = pytest.approx(at_later - at, abs=1.5)  # whole seconds, and a tick
        is_right = time_left - time_later == passed == (arc - arc_later) * 60 / 100
        return at_later - at > 3 and is_right and headline_later != headline

    with product.page.frozen():
        wait_for_quiet(reader)  # what was on its way has come
        at, time_left, arc, headline = ring()
        before = len(reader.received)
        wait_in(reader, has_drained)
        assert len(reader.received) == before

    assert re.fullmatch(r"Starts in \d+ s", headline)


@pytest.mark.parametrize(
    ("state", "headline", "note"),
    [
        ("any moment now", "Starting any moment now", "nothing for you to do"),
        ("processing", r"Usually about \d+ s", "Attempt 1 of 3"),
        ("slow", "This takes longer than usual", "Should it fail, the next one begins by itself"),
        ("retrying", r"Trying again in \d+ s, attempt 2 of 3", "The AI service was busy"),
    ],
)
def test_beside_the_ring_stands_what_is_going_on(
    visit: Visiting, product: Product, state: str, headline: str, note: str
) -> None:
    product.client.delete("durations")
    product.store.note_duration(timedelta(seconds=45))
    product.put(ID, state)
    reader = visit(ID)
    reader.settle()

    expect(reader.page.locator(".headline")).to_have_text(re.compile(f"^{headline}$"))
    expect(reader.page.locator(".clock .note")).to_contain_text(note)


def test_times_are_in_the_visitors_own_time_zone(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    record = product.put(ID, "cancelled")

    for zone in ("Asia/Tokyo", "America/Los_Angeles"):
        tab = visit(ID, context=open_context(browser, timezone_id=zone))
        tab.expect_heading("Cancelled")
        local = tab.page.evaluate(
            "([time, timeZone]) => new Date(time).toLocaleTimeString('en-GB', { timeZone })",
            [record.created_at.isoformat(), zone],
        )
        tab.expect_text(local)


# ── What goes down comes up again ───────────────────────────────────────────────────────────


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
    sender.expect_text("We can't reach our store just now")
    sender.expect_heading("Writing your analysis")

    product.put(sender.request_id, "done")
    product.redis.repair()

    sender.expect_text(ANALYSIS.summary)
    expect(sender.text("We can't reach our store just now")).to_have_count(0)


def test_redis_is_away_when_the_form_is_sent_and_the_text_stays(
    visit: Visiting, product: Product
) -> None:
    sender = visit()
    product.redis.refuse_connections()
    sender.fill()
    sender.button("Send request").click()
    sender.expect_text("Your text is still here")
    expect(sender.page.get_by_label("Short description")).to_have_value(ADA.description)

    product.redis.repair()
    sender.button("Send request").click()

    sender.expect_text(ANALYSIS.summary)


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_what_takes_long_gives_a_sign_of_life(
    visit: Visiting, product: Product, motion: str
) -> None:
    sender = send(visit, product, "done", reduced_motion=motion)
    sender.button("Delete now").click()
    expect(sender.button("Yes, delete it")).to_be_visible()
    product.redis.break_with(lambda exchange: None)  # no answer comes

    sender.button("Yes, delete it").click()
    sender.page.wait_for_function(f"{SIGN_OF_LIFE} > 0.5")

    product.redis.repair()
    sender.expect_value(f"{SIGN_OF_LIFE} === undefined", True)


def test_the_pages_own_server_restarts_while_somebody_waits(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "processing")
    product.page.stop()
    product.put(sender.request_id, "failed")
    product.page.start()

    sender.expect_heading("This did not work")
    expect(sender.button("Try again")).to_be_visible()


def test_the_pages_own_server_restarts_while_somebody_writes(
    visit: Visiting, product: Product
) -> None:
    product.gate.clear()
    sender = visit()
    sender.expect_text("Nothing here yet")
    sender.fill()
    product.page.stop()
    product.page.start()

    sender.button("Send request").click()

    sender.expect_heading("Your request is in the queue")
    assert product.store.read(sender.request_id).input == ADA


# ── What the sender can do ──────────────────────────────────────────────────────────────────


def test_cancelling_asks_first_and_says_that_the_model_was_not_asked(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "waiting")
    sender.button("Cancel").click()
    sender.expect_text("The model has not been asked yet")
    sender.page.keyboard.press("Escape")
    expect(sender.button("Yes, cancel it")).to_have_count(0)
    sender.expect_heading("Your request is in the queue")

    sender.button("Cancel").click()
    sender.button("Yes, cancel it").click()

    sender.expect_heading("Cancelled")
    assert product.store.read(sender.request_id).input is None


def test_the_same_text_sent_after_cancelling_and_going_back_is_another_analysis(
    visit: Visiting, product: Product
) -> None:
    product.gate.clear()
    sender = visit()
    first = sender.submit()
    expect(sender.button("Cancel")).to_be_visible()
    sender.button("Cancel").click()
    sender.button("Yes, cancel it").click()
    sender.expect_heading("Cancelled")

    sender.page.go_back()
    expect(sender.page.get_by_label("Name")).to_be_visible()
    second = sender.submit()

    sender.expect_heading("Your request is in the queue")
    assert second != first


def test_cancelling_while_the_model_is_at_it_throws_its_answer_away(
    visit: Visiting, product: Product
) -> None:
    product.model = hang
    sender = visit()
    sender.submit()
    sender.expect_heading("Writing your analysis")

    sender.button("Cancel").click()
    sender.expect_text("The model has already been asked")
    sender.button("Yes, cancel it").click()

    sender.expect_heading("Cancelled")
    sender.expect_text("after the model had been asked")


def test_a_failed_analysis_is_tried_again(visit: Visiting, product: Product) -> None:
    product.model = answer(200, refusal())
    sender = visit()
    sender.submit()
    sender.expect_heading("This did not work")
    sender.expect_text("The AI model declined to work on this text.")

    product.model = answer(200, response(ANALYSIS.model_dump_json()))
    sender.button("Try again").click()

    sender.expect_text(ANALYSIS.summary)


def test_what_is_deleted_is_gone_for_everybody(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "done")
    request_id = sender.request_id
    sender.button("Delete now").click()
    sender.button("Yes, delete it").click()
    sender.expect_text("Deleted.")
    sender.expect_text("Nothing here yet")

    reader = visit(request_id)

    reader.expect_text("not found, or is no longer kept")
    assert product.client.keys(f"*{request_id}*") == []


def test_the_link_and_the_analysis_can_be_taken_along(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    context = open_context(browser, permissions=["clipboard-read", "clipboard-write"])
    sender = send(visit, product, "done", context=context)

    def copied(button: str) -> str:
        expect(sender.button("Copied")).to_have_count(0)
        sender.button(button).click()
        expect(sender.button("Copied")).to_be_visible()
        expect(sender.page.get_by_role("status").filter(has_text="Copied")).to_have_count(1)
        text: str = sender.page.evaluate("navigator.clipboard.readText()")
        return text

    def downloaded(button: str) -> tuple[str, str]:
        with sender.page.expect_download() as download:
            sender.button(button).click()
        return download.value.suggested_filename, download.value.path().read_text()

    assert copied("Copy link") == sender.page.url
    assert f"Summary\n{ANALYSIS.summary}\n\n" in copied("Copy text")
    name, content = downloaded("Download Markdown")
    assert (name, f"## Summary\n\n{ANALYSIS.summary}" in content) == ("analysis.md", True)
    name, content = downloaded("Download JSON")
    assert (name, Analysis.model_validate_json(content)) == ("analysis.json", ANALYSIS)


# ── Your requests in this browser ───────────────────────────────────────────────────────────


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
    sender.button("New request").click()
    sender.button("Forget all").click()
    sender.button("Yes, forget all").click()
    sender.expect_text("Nothing here yet")
    wait_for_quiet(sender)

    for go in (sender.page.go_back, sender.page.reload):
        go()

        sender.expect_heading("Your request is in the queue")
        expect(sender.button("New request")).to_be_visible()
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

    reader.button("New request").click()
    expect(reader.page.get_by_label("Short description")).to_be_visible()
    expect(reader.page).to_have_url(re.compile(r"^[^?]+$"))


# ── Strangers ───────────────────────────────────────────────────────────────────────────────


def test_a_stranger_sees_state_and_result_but_neither_text_nor_buttons(
    visit: Visiting, product: Product
) -> None:
    product.put(ID, "waiting", owner_hash=OWNER_HASH)
    stranger = visit(ID)
    for state in ("waiting", "processing", "done", "failed", "cancelled"):
        product.put(ID, state, owner_hash=OWNER_HASH)
        stranger.page.reload()
        stranger.expect_heading(HEADINGS[state])
        stranger.expect_text(f"Reference: {ID}")
        stranger.settle()

        for name in ("Cancel", "Try again", "Change the text", "Delete now"):
            expect(stranger.button(name)).to_have_count(0)
        sent = b"".join(stranger.received)
        assert HEADINGS[state].encode() in sent  # so anything else would be found
        for secret in (ADA.description, OWNER_HASH):
            assert secret.encode() not in sent
            assert secret not in stranger.page.content()


# ── Hostile text ────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def canary() -> Iterator[HttpServer]:
    """A server that nobody has a reason to ask."""
    with serve(answer(200)) as server:
        yield server


def hostile(canary: HttpServer) -> str:
    """What Markdown, HTML, LaTeX, Streamlit and a browser could take for more than text."""
    url = canary.url
    return (
        f'<img src="{url}/a" onerror="alert(1)"> ![x]({url}/b) [link]({url}/c) {url}/d '
        f"<script>alert(1)</script> <style>body {{ display: none }}</style> "
        f'<iframe src="{url}/e"></iframe> <a href="javascript:alert(1)">x</a> '
        r"$\LaTeX$ $$\frac{1}{2}$$ `code` **bold** :material/delete: :red[red] :smile: ~~gone~~ "
        "{time} {at} &amp; \u202eRIGHT TO LEFT\u202c \u200fשלום </div></p></section>"
    )


def test_hostile_text_is_text_wherever_it_is_shown(
    visit: Visiting, product: Product, canary: HttpServer
) -> None:
    text = hostile(canary)
    analysis = Analysis(summary=text, tone=text, themes=[text], suggestions=[text, text])
    product.model = answer(200, response(analysis.model_dump_json(), model=text))
    for options in ({}, {"viewport": PHONE, "color_scheme": "dark"}):
        sender = visit(**options)
        sender.submit(name=text[:80], description=text)
        sender.expect_heading("Your analysis")

        sender.expect_shown(" ".join(text.split()), 5)
        sender.settle()
        wait_for_quiet(sender)  # time to ask for what would be an image
        live = sender.page.locator(f'[src*="{canary.url}"], [href*="{canary.url}"]')
        expect(live).to_have_count(0)
        sender.expect_fits()
    assert canary.requests == []


def test_hostile_text_comes_back_to_its_sender_as_it_was(
    visit: Visiting, product: Product, canary: HttpServer
) -> None:
    text = hostile(canary)
    product.model = answer(200, refusal())
    sender = visit()
    sender.submit(name=text[:80], description=text)
    sender.expect_heading("This did not work")

    sender.button("Change the text").click()

    expect(sender.page.get_by_label("Short description")).to_have_value(text)
    expect(sender.page.get_by_label("Name")).to_have_value(text[:80])
    sender.expect_fits()
    assert canary.requests == []


def test_very_long_and_very_odd_text_breaks_no_layout(visit: Visiting, product: Product) -> None:
    emoji = "🚀" * 4000  # three times: more than 10,000 in one answer
    odd = Analysis(
        summary=emoji,
        tone="w" * 3000,
        themes=["🧑‍🚀" * 1333, "\u202e" + "ש" * 300, "Z̷̢̛̺͚͉̹̗̄̓͌̕a̸" * 60, "a\n" * 50],
        suggestions=[emoji, emoji, "1" * 4000],
    )
    product.model = answer(200, response(odd.model_dump_json(), model="m" * 500))
    sender = visit(viewport=PHONE)
    sender.submit(name="🧑‍🚀" * 16, age="120", description="🧑‍🚀" * 400)

    sender.expect_heading("Your analysis")

    sender.expect_shown("🚀", 3 * 4000 + 1333)
    sender.settle()
    sender.expect_fits()


# ── Every state, for everybody ──────────────────────────────────────────────────────────────


@pytest.fixture(scope="session")
def axe() -> Any:
    """The checker; there is no list of exceptions, for it finds nothing in Streamlit either."""
    try:
        return import_module("axe_playwright_python.sync_playwright").Axe()
    except ImportError:
        remedy = ".venv/bin/pip install axe-playwright-python"
        leave_out("the accessibility check", because="there is no axe-core", remedy=remedy)


SCREENS: tuple[tuple[ViewportSize, Literal["light", "dark"]], ...] = (
    (DESKTOP, "light"),
    (PHONE, "dark"),
)


def violations(axe: Any, tab: Visit) -> list[tuple[str, str, str]]:
    """What is wrong: rule, impact, and with what."""
    found = axe.run(tab.page).response["violations"]
    return [(each["id"], each["impact"], node["html"]) for each in found for node in each["nodes"]]


DARK = "getComputedStyle(document.querySelector('.stApp')).backgroundColor === 'rgb(14, 17, 23)'"


def test_every_state_is_accessible_and_fits(visit: Visiting, product: Product, axe: Any) -> None:
    """In the light on a desktop, and in the dark on a phone."""
    tab = visit(reduced_motion="reduce")  # else a colour is measured in mid-change
    for state in walk(tab, product):
        for screen, scheme in SCREENS:
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
    reader.expect_text("Attempt 1 of 3")
    reader.settle()
    with product.page.frozen():  # else the next poll may repair it
        for place in (".stMain h1", ".steps strong"):
            reader.page.locator(place).first.evaluate(
                'e => { e.innerHTML = \'<img src="data:,"><span style="color:#ddd">pale</span>\' }'
            )

        found = [rule for rule, _, _ in violations(axe, reader)]

    assert found.count("image-alt") == found.count("color-contrast") == 2


def test_whoever_wants_no_motion_sees_none(visit: Visiting, product: Product) -> None:
    product.put(ID, "processing")
    reader = visit(ID)
    looks: dict[Literal["no-preference", "reduce"], tuple[str, str]] = {
        "no-preference": ("turn", "0.3s"),
        "reduce": ("none", "0s"),
    }
    for wish, (animation, transition) in looks.items():
        reader.page.emulate_media(reduced_motion=wish)

        expect(reader.page.locator(".ring svg")).to_have_css("animation-name", animation)
        expect(reader.page.locator(".arc")).to_have_css("transition-duration", transition)
