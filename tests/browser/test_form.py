"""The form in a browser: what it shows while somebody writes, and what comes of a press."""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from common.failures import Failure
from tests.chromium import DESKTOP, PHONE, Visit
from tests.fakes import ADA
from tests.journey import fill, in_json, written
from tests.processes import ROOT
from tests.product import Product
from tests.toy.task import TASK, AnalysisInput
from tests.tries import LEFT_OUT

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
# In a tab: note how much of what is drawn has moved without a key or a click.
SHIFT = """() => {
    window.shift = 0;
    new PerformanceObserver((list) => {
        for (const { hadRecentInput, value } of list.getEntries())
            if (!hadRecentInput) window.shift += value;
    }).observe({ type: "layout-shift" });
}"""
KEPT = "JSON.parse(sessionStorage.getItem('ask-later-typed'))?.values.description ?? null"
FORM_ID = "JSON.parse(sessionStorage.getItem('ask-later-typed'))?.form"
AREAS = "[...document.querySelectorAll('.stMain textarea')].map((area) => area.value)"
LONG = "a" * 2000
FIRST, SECOND = "“I sketch machines…”", "“After 30 years as…”"


def area(visit: Visit) -> Locator:
    return visit.page.get_by_label("Short description")


def expect_count(visit: Visit, text: str, *, is_over: bool = False) -> None:
    count = visit.page.locator(".count")
    expect(count).to_have_text(text)
    expect(count).to_have_class("count over" if is_over else "count")


def expect_written(visit: Visit, form: dict[str, Any]) -> None:
    visit.expect_value(AREAS, [form["description"]])  # the form that was drawn before is gone
    expect(visit.page.get_by_label("Age")).to_have_value(f"{form['age']}")
    assert written(visit.page, TASK.form) == form


def expect_sent(visit: Visit, product: Product, form: AnalysisInput) -> None:
    """Wait until it is sent; whatever the analysis then looks like."""
    expect(visit.page).to_have_url(re.compile(r"\?request=[0-9a-f]{32}$"))
    assert product.store.read(visit.request_id).input == form


def test_what_is_written_is_counted_as_the_form_counts_it(
    visit: Visiting, product: Product
) -> None:
    writer = visit()
    expect_count(writer, "10 to 2,000 characters")
    spoken = writer.page.locator(".count + [role=status]")
    expect(spoken).to_have_text("")

    area(writer).press_sequentially("  I sketch ")
    expect_count(writer, "8 of 2,000, at least 10")

    area(writer).fill("🚀" * 10)
    expect_count(writer, "10 of 2,000")

    area(writer).fill("\u00a0" + LONG + "\n\u3000")
    expect_count(writer, "2,000 of 2,000")
    expect(spoken).to_have_text("")

    area(writer).fill(LONG)
    area(writer).press_sequentially("bc")
    expect_count(writer, "2,002 of 2,000", is_over=True)
    expect(spoken).to_have_text("The text is too long.")

    area(writer).press("Backspace")
    area(writer).press("Backspace")
    expect_count(writer, "2,000 of 2,000")
    expect(spoken).to_have_text("Short enough.")


def test_a_paste_far_too_long_stays_whole_and_its_length_is_said(
    visit: Visiting, product: Product
) -> None:
    writer = visit(viewport=PHONE)
    writer.fill()
    area(writer).fill("")
    area(writer).evaluate(PASTE, "a" * 50_000)
    expect_count(writer, "50,000 of 2,000", is_over=True)

    writer.send.click()

    writer.expect_text("That's 50,000 characters; please keep it to 2,000 or fewer.")
    writer.expect_text("Not sent yet. One field needs a look.")
    expect(area(writer)).to_be_focused()
    expect(area(writer)).to_have_value("a" * 50_000)
    expect_count(writer, "50,000 of 2,000", is_over=True)
    writer.expect_fits()
    assert writer.request_id == ""

    area(writer).fill(LONG)
    writer.send.click()
    expect(writer.page).to_have_url(re.compile(r"\?request="))


def test_on_a_phone_the_fields_fit_and_a_refusal_is_seen_and_heard(
    visit: Visiting, product: Product
) -> None:
    # With motion, it is seen once the page has scrolled there.
    writer = visit(viewport={"width": 390, "height": 560}, reduced_motion="no-preference")
    name, age = (writer.page.get_by_label(label) for label in ("Name", "Age"))
    for field in (name, age, area(writer)):
        expect(field).to_have_css("font-size", "16px")
        expect(field).to_have_css("direction", "ltr")
    expect(area(writer)).to_have_attribute("dir", "auto")
    box, beside = name.bounding_box(), age.bounding_box()
    assert box
    assert beside
    assert (box["y"], box["width"] > 2 * beside["width"]) == (beside["y"], True)
    expect(writer.page.get_by_test_id("stNumberInputStepUp")).to_be_hidden()

    writer.fill(age="")
    area(writer).fill("Short.")
    writer.send.click()

    said = writer.text("Please enter a whole number from 1 to 120.")
    expect(age).to_be_focused()
    expect(said).to_be_in_viewport()
    expect(age).to_have_attribute("aria-invalid", "true")
    described = age.get_attribute("aria-describedby")
    assert writer.page.locator(f"[id='{described}']").inner_text() == said.inner_text()
    for field, is_wrong in ((name, None), (age, "true"), (area(writer), "true")):
        assert field.get_attribute("aria-invalid") == is_wrong
    frame = writer.page.get_by_test_id("stTextAreaRootElement")
    expect(frame).to_have_css("border-color", "rgb(160, 42, 31)")

    age.fill("36")
    area(writer).fill("שלום, אני מציירת מכונות.")
    expect(area(writer)).to_have_css("direction", "rtl")
    product.redis.refuse_connections()
    area(writer).press("Meta+Enter")

    expect(writer.text("We can't take your request just now.")).to_be_in_viewport()
    expect(frame).to_have_css("border-color", "rgb(139, 135, 149)")
    product.redis.repair()


@pytest.mark.skipif(
    not (ROOT / "operations" / "limits.py").exists(),
    reason=f"{LEFT_OUT} the limits of the form: they were deleted",
)
def test_a_limit_is_said_beside_what_was_written(visit: Visiting, product: Product) -> None:
    writer = visit()
    product.client.set("paused", "1", px=timedelta(minutes=4))
    writer.fill()

    writer.send.click()

    writer.expect_text("Your text is still here: try again in")
    expect(area(writer)).to_have_value(ADA.description)
    product.client.delete("paused")


def test_two_keys_send_from_any_field_with_what_was_just_typed(
    visit: Visiting, product: Product
) -> None:
    product.gate.clear()
    writer = visit()
    writer.page.get_by_label("Name").press_sequentially("Ada")
    writer.page.keyboard.press("Enter")  # alone, it sends nothing
    writer.rest()
    expect(writer.text("Not sent yet.")).to_have_count(0)

    writer.page.keyboard.press("Control+Enter")
    writer.expect_text("Not sent yet. 2 fields need a look.")
    writer.page.get_by_label("Age").press_sequentially("36")
    writer.page.keyboard.press("Meta+Enter")
    writer.expect_text("Not sent yet. One field needs a look.")
    area(writer).press_sequentially(ADA.description)
    writer.page.keyboard.press("Control+Enter")

    expect_sent(writer, product, ADA)


def test_an_example_fills_the_whole_of_an_empty_form(visit: Visiting, product: Product) -> None:
    product.gate.clear()
    writer = visit(viewport=PHONE)
    writer.button(FIRST).click()
    expect_written(writer, in_json(TASK.examples[0]))
    expect(writer.button(FIRST)).to_have_count(0)

    area(writer).fill("")
    writer.page.get_by_label("Name").fill("")
    writer.button(SECOND).click()
    expect_written(writer, in_json(TASK.examples[1]))
    writer.send.click()

    assert isinstance(TASK.examples[1], AnalysisInput)
    expect_sent(writer, product, TASK.examples[1])
    assert len([url for url in writer.requests if url == f"{writer.origin}/"]) == 1


def test_what_is_typed_outlives_a_reload_until_it_is_sent(
    visit: Visiting, product: Product
) -> None:
    product.gate.clear()
    writer = visit()
    typed = in_json(ADA.model_copy(update={"description": f"{LONG}\nשלום 🚀"}))
    fill(writer.page, TASK.form, typed)
    writer.page.reload()
    expect_written(writer, typed)
    area(writer).fill(f"{LONG} more")  # not left: the page's server has not heard of it
    writer.page.reload()
    writer.expect_value(AREAS, [f"{LONG} more"])
    expect_count(writer, "2,005 of 2,000", is_over=True)

    other = visit(context=writer.context)
    expect_count(other, "10 to 2,000 characters")
    area(writer).fill(ADA.description)
    writer.send.click()
    expect_sent(writer, product, ADA)
    writer.expect_value(KEPT, None)
    assert ADA.description not in product.page.output

    writer.page.goto(product.page.url)
    expect_count(writer, "10 to 2,000 characters")
    area(writer).fill("Nothing to keep.")
    writer.page.go_back()
    product.put(writer.request_id, "cancelled")
    writer.button("New").click()
    expect_count(writer, "10 to 2,000 characters")
    writer.expect_value(KEPT, "")


def test_what_was_typed_for_another_task_or_can_not_be_is_left_alone(
    visit: Visiting, product: Product
) -> None:
    writer = visit()
    expect_count(writer, "10 to 2,000 characters")
    other = {"task": "another", "form": "", "values": {"description": "Of another task."}}
    odd = {"task": TASK.fingerprint, "form": "", "values": {"description": 3, "age": "NaN"}}
    for kept in (json.dumps(other), json.dumps(odd), "{{", "null", "[1]"):
        script = f"sessionStorage.setItem('ask-later-typed', {json.dumps(kept)})"
        # As the page is left, it keeps what it has: what is put in its place must come after.
        writer.page.add_init_script(f"if (!window.put) {{ window.put = true; {script} }}")
        writer.page.reload()
        expect_count(writer, "10 to 2,000 characters")
        writer.rest()
        expect(area(writer)).to_have_value("")
        writer.expect_value(KEPT, "")


def test_what_was_typed_is_there_after_the_pages_server_restarted(
    visit: Visiting, product: Product
) -> None:
    product.gate.clear()
    writer = visit()
    example = in_json(TASK.examples[0])
    writer.button(FIRST).click()
    expect_written(writer, example)
    area(writer).press_sequentially(" And more.")
    writer.expect_value(f"({KEPT}).endsWith('more.')", True)
    before = writer.page.evaluate(FORM_ID)
    product.page.stop()
    product.page.start()
    expect(writer.page.locator("[data-test-connection-state=CONNECTED]")).to_be_attached()
    writer.send.click()  # the new server knows nothing of this form
    writer.expect_value(f"Boolean({FORM_ID}) && {FORM_ID} !== '{before}'", True)

    typed = f"{example['description']} And more."
    expect(area(writer)).to_have_value(typed)
    writer.rest()
    writer.send.click()

    expect_sent(writer, product, AnalysisInput.model_validate(example | {"description": typed}))


def test_a_text_to_be_changed_comes_with_the_reason(visit: Visiting, product: Product) -> None:
    product.gate.clear()
    writer = visit()
    product.put(writer.submit(), "failed")
    writer.button("Change the text").click()
    writer.expect_heading(TASK.headline)

    failure = Failure.REFUSED_BY_MODEL
    writer.expect_text(f"{failure.sentence} {failure.next_step}")
    expect_written(writer, in_json(ADA))
    area(writer).fill("Short.")
    writer.send.click()
    writer.expect_text("Not sent yet.")
    expect(writer.text(failure.sentence)).to_have_count(0)


@pytest.mark.parametrize("screen", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_promise_leads_to_who_reads_it_and_nothing_moves_by_itself(
    visit: Visiting, product: Product, screen: Any
) -> None:
    writer = visit(viewport=screen, reduced_motion="no-preference")
    expect_count(writer, "10 to 2,000 characters")
    writer.page.evaluate(SHIFT)
    writer.rest()
    writer.page.wait_for_timeout(300)  # what would move has moved
    link = writer.page.get_by_role("link", name="who reads it?")
    asked = len(writer.requests)

    link.focus()
    writer.page.keyboard.press("Enter")

    expect(writer.text("Whoever has the link")).to_be_in_viewport()
    expect(writer.page.locator("summary")).to_be_focused()
    assert writer.page.evaluate("window.shift") < 0.05
    assert (writer.page.url.rstrip("/"), len(writer.requests)) == (product.page.url, asked)
