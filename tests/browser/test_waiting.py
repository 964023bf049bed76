"""The waiting page: it polls, ticks by itself, and reads aloud what changes."""

import re

import pytest
from playwright.sync_api import (
    Browser,
    expect,
)
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.browser.visits import WATCH, Visiting, wait_for_quiet, wait_in
from tests.chromium import PHONE, Visit, open_context
from tests.fakes import ID
from tests.product import Product
from tests.walk import HEADINGS

pytestmark = pytest.mark.browser

TIME = re.compile(r"^\d+:\d\d$")


def runs(visit: Visit) -> int:
    """How often the server has run the page, or a part of it."""
    return sum(ForwardMsg.FromString(each).HasField("new_session") for each in visit.received)


@pytest.mark.parametrize("state", ["waiting", "slow"])
def test_the_page_polls_while_it_waits_and_nothing_flickers_or_is_read_aloud(
    visit: Visiting, product: Product, state: str
) -> None:
    product.put(ID, state)
    reader = visit(ID)
    reader.settle()
    wait_for_quiet(reader)
    reader.page.evaluate(WATCH)

    asked, answers = len(reader.sent), runs(reader)

    wait_in(reader, lambda: len(reader.sent) > asked)
    wait_for_quiet(reader)

    assert runs(reader) == answers  # the server has looked, and run nothing
    assert reader.page.evaluate("[window.removed, window.spoken]") == [[], []]


def test_a_change_of_state_is_read_aloud_once_and_nothing_turns_pale(
    visit: Visiting, product: Product
) -> None:
    product.put(ID, "waiting")
    reader = visit(ID)  # without motion: else it would do so slowly, and come too late
    reader.settle()
    wait_for_quiet(reader)
    reader.page.evaluate(WATCH)

    product.put(ID, "processing")
    reader.expect_text("Being written now")
    wait_for_quiet(reader)
    product.client.delete(f"analysis:{{{ID}}}")
    reader.expect_heading("Nothing here")
    expect(reader.button("New request")).to_have_count(1)  # that of before has gone
    reader.button("New request").click()
    expect(reader.page.get_by_label("Name")).to_be_visible()
    wait_for_quiet(reader)

    assert reader.page.evaluate("window.spoken") == [
        "Being written now.",
        "Nothing here.",
        "",  # so that the next request is read aloud, too
    ]
    assert reader.page.evaluate("window.pale") == []


def test_the_ring_fills_without_a_word_from_the_server(visit: Visiting, product: Product) -> None:
    product.put(ID, "waiting")
    reader = visit(ID)
    reader.settle()

    def ring() -> tuple[float, int, float, str]:
        """When, at one moment, the ring shows what: its time, its arc, and the heading below."""
        at, time, arc, headline = reader.page.locator(".card").evaluate(
            """card => [
                performance.now() / 1000,
                card.querySelector(".time").textContent,
                parseFloat(card.querySelector(".ring").style.getPropertyValue("--queue")),
                card.querySelector("h1").textContent,
            ]"""
        )
        minutes, seconds = time.split(":")
        return at, 60 * int(minutes) + int(seconds), arc, headline

    def has_filled() -> bool:
        """Whether it has done so by the time that has passed, and says the same as before."""
        at_later, time_later, arc_later, headline_later = ring()
        passed = pytest.approx(at_later - at, abs=1.5)  # whole seconds, and a tick
        is_right = time_left - time_later == passed == (arc_later - arc) * 60 / 76.8
        return at_later - at > 3 and is_right and headline_later == headline

    with product.page.frozen():
        wait_for_quiet(reader)  # what was on its way has come
        at, time_left, arc, headline = ring()
        before = len(reader.received)
        wait_in(reader, has_filled)
        assert len(reader.received) == before

    assert 50 < time_left < 63  # of the queue are 42 s to come, and 20 s of writing


LINES = {  # of each state that waits: beneath its heading
    "waiting": "You can close this page",
    "any moment now": "You can close this page",
    "processing": "Being written now · you can close this page",
    "slow": "If it fails, we try again automatically.",
    "retrying": "You can close this page",
}
AGAIN = re.compile(
    r"^Trying again in \d+ s \(second try of three\): The AI service was busy\. "
    r"There is nothing for you to do\.$"
)


def test_the_heading_says_when_and_a_note_says_why(visit: Visiting, product: Product) -> None:
    product.put(ID, "waiting")
    reader = visit(ID)
    for state, line in LINES.items():
        product.put(ID, state)
        reader.page.reload()
        reader.expect_heading(HEADINGS[state])
        reader.settle()

        expect(reader.page.get_by_role("heading")).to_have_count(1)
        expect(reader.page.locator(".card .line")).to_have_text(line)
        if state == "retrying":
            expect(reader.page.locator(".card .note")).to_have_text(AGAIN)
        else:
            expect(reader.page.locator(".card .note")).to_be_hidden()


def test_what_was_waited_folds_into_a_line_that_opens(visit: Visiting, product: Product) -> None:
    product.put(ID, "done")
    reader = visit(ID)
    reader.settle()
    steps = reader.page.locator(".steps li")

    expect(steps.first).to_be_hidden()
    reader.page.get_by_text("Waited 60 s · written in 9 s").click()

    notes = (r"\d\d:\d\d$", "for 60 s$", "in 9 s$", "after 69 s$")
    expect(steps).to_have_text([re.compile(note) for note in notes])
    expect(steps.last).to_be_visible()


# What a browser's translation does: other nodes in place of each text, here and in the shadow.
TRANSLATE = """() => {
    const translate = (root) => {
        const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), texts = [];
        while (walker.nextNode()) texts.push(walker.currentNode);
        for (const text of texts) {
            if (!text.textContent.trim() || text.parentElement?.closest("style, script")) continue;
            const font = document.createElement("font");
            font.textContent = "Bald fertig";
            text.replaceWith(font);
        }
        for (const { shadowRoot } of root.querySelectorAll("*")) {
            if (shadowRoot) translate(shadowRoot);
        }
    };
    translate(document.body);
}"""


def test_each_state_shows_on_a_translated_page_and_the_card_keeps_its_height(
    visit: Visiting, product: Product
) -> None:
    product.put(ID, "waiting")
    reader = visit(ID, viewport=PHONE)
    reader.settle()
    card, note = reader.page.locator(".card"), reader.page.locator(".card .note")
    heights = []
    for state, step in (("processing", "for 60 s"), ("slow", "soon"), ("retrying", "second try")):
        heights.append(card.evaluate("e => e.offsetHeight"))
        reader.page.evaluate(TRANSLATE)
        product.put(ID, state)
        expect(card.locator(".steps")).to_contain_text(step)
        if state != "processing":  # whose heading may be that of before, and stay translated
            reader.expect_heading(HEADINGS[state])

        expect(card.locator(".time")).to_have_text("…" if state == "slow" else TIME)
    expect(note).to_contain_text("Trying again in")
    reader.page.evaluate(TRANSLATE)
    expect(card.locator(".time")).to_have_text(TIME)  # with its next tick
    expect(note.locator(".count")).to_have_text(re.compile(r"^\d+ s$"))

    product.put(ID, "failed for us to fix")

    reader.expect_heading(HEADINGS["failed for us to fix"])
    reader.expect_text("Our quota at the AI service is used up.")
    assert len(heights) == 3
    assert len(set(heights)) == 1


def test_without_a_connection_the_ring_promises_nothing(visit: Visiting, product: Product) -> None:
    product.put(ID, "waiting")
    reader = visit(ID)
    reader.expect_heading(HEADINGS["waiting"])
    reader.settle()
    unit, headline = reader.page.locator(".unit"), reader.page.locator(".headline")
    say = "isLost => document.dispatchEvent(new CustomEvent('ask-connection', {detail: {isLost}}))"

    for lose, find in (
        (lambda: reader.page.evaluate(say, True), lambda: reader.page.evaluate(say, False)),
        (
            lambda: reader.context.set_offline(True),
            lambda: reader.context.set_offline(False),
        ),
    ):
        lose()
        expect(headline).to_have_text(re.compile(r"^Planned for about \d\d:\d\d$"))
        expect(unit).to_have_text("if all goes well")
        expect(reader.page.locator(".card .line")).to_have_text(
            re.compile(r"^Last seen at \d\d:\d\d:\d\d, in the queue$")
        )
        expect(reader.page.locator(".steps")).to_contain_text("last seen")
        find()
        expect(headline).to_have_text(HEADINGS["waiting"])
        expect(unit).to_have_text("to go")


def test_times_are_in_the_visitors_own_time_zone(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    record, zone = product.put(ID, "cancelled"), "Asia/Tokyo"  # the server has UTC
    tab = visit(ID, context=open_context(browser, timezone_id=zone))

    tab.expect_heading("Cancelled")
    local = tab.page.evaluate(
        "([time, timeZone]) => new Date(time).toLocaleTimeString('en-GB', { timeZone })",
        [record.created_at.isoformat(), zone],
    )
    tab.expect_text(local)
