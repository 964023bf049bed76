"""The waiting page: it polls, ticks by itself, and reads aloud what changes."""

import re
from datetime import timedelta

import pytest
from playwright.sync_api import (
    Browser,
    expect,
)

from tests.browser.visits import WATCH, Visiting, wait_for_poll, wait_for_quiet, wait_in
from tests.chromium import (
    open_context,
)
from tests.fakes import ID
from tests.product import Product
from tests.walk import HEADINGS

pytestmark = pytest.mark.browser


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
    reader.button("New").click()
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
