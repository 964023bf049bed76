"""The form in a browser: what it shows while somebody writes."""

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, expect

from tests.chromium import PHONE, Visit
from tests.product import Product
from tests.toy.task import TASK

pytestmark = pytest.mark.browser

Visiting = Callable[..., Visit]

PASTE = """(area, text) => {
    const clipboard = new DataTransfer();
    clipboard.setData("text/plain", text);
    area.focus();
    const event = { clipboardData: clipboard, bubbles: true, cancelable: true };
    if (area.dispatchEvent(new ClipboardEvent("paste", event)))
        document.execCommand("insertText", false, text);
}"""


def area(visit: Visit) -> Locator:
    return visit.page.get_by_label("Short description")


def expect_count(visit: Visit, text: str, *, is_over: bool = False) -> None:
    count = visit.page.locator(".count")
    expect(count).to_have_text(text)
    expect(count).to_have_class("count over" if is_over else "count")


def test_what_is_written_is_counted_as_the_form_counts_it(
    visit: Visiting, product: Product
) -> None:
    writer = visit()
    expect_count(writer, "0 of 2,000 characters, at least 10")

    area(writer).press_sequentially("  I sketch ")
    expect_count(writer, "8 of 2,000 characters, at least 10")

    area(writer).fill("🚀" * 10)
    expect_count(writer, "10 of 2,000 characters")

    area(writer).fill("\u00a0" + "a" * 2000 + "\n\u3000")
    expect_count(writer, "2,000 of 2,000 characters")


def test_the_limit_is_read_aloud_when_it_is_crossed_and_not_at_each_key(
    visit: Visiting, product: Product
) -> None:
    writer = visit()
    expect_count(writer, "0 of 2,000 characters, at least 10")
    spoken = writer.page.locator(".count + [role=status]")
    expect(spoken).to_have_text("")

    area(writer).fill("a" * 2000)
    expect(spoken).to_have_text("")
    area(writer).press_sequentially("bc")
    expect_count(writer, "2,002 of 2,000 characters", is_over=True)
    expect(spoken).to_have_text("The text is too long.")

    area(writer).press("Backspace")
    area(writer).press("Backspace")
    expect_count(writer, "2,000 of 2,000 characters")
    expect(spoken).to_have_text("Short enough.")


def test_a_paste_far_too_long_stays_whole_and_its_length_is_said(
    visit: Visiting, product: Product
) -> None:
    writer = visit(viewport=PHONE)
    writer.fill()
    area(writer).fill("")
    area(writer).evaluate(PASTE, "a" * 50_000)
    expect_count(writer, "50,000 of 2,000 characters", is_over=True)

    writer.send.click()

    writer.expect_text("That's 50,000 characters; please keep it to 2,000 or fewer.")
    writer.expect_text("Nothing was sent yet. Please look at 1 field below.")
    expect(area(writer)).to_have_value("a" * 50_000)
    expect_count(writer, "50,000 of 2,000 characters", is_over=True)
    writer.expect_fits()
    assert writer.request_id == ""


def test_the_count_is_there_again_after_another_page(visit: Visiting, product: Product) -> None:
    writer = visit()
    product.gate.clear()
    writer.submit()
    writer.button("New request").click()
    writer.expect_heading(TASK.headline)

    expect_count(writer, "0 of 2,000 characters, at least 10")
    area(writer).fill("I sketch machines.")
    expect_count(writer, "18 of 2,000 characters")
