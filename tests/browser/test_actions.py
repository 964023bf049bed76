"""What the sender can do."""

import pytest
from playwright.sync_api import Locator, expect

from common.store import record_key
from common.versions import Why
from page import unreadable
from tests.browser.visits import Visiting, send
from tests.chromium import DESKTOP, PHONE
from tests.fakes import ADA, ANALYSIS
from tests.http_server import answer, hang
from tests.model_replies import refusal, response
from tests.product import Product
from tests.toy.task import TASK, AnalysisInput
from tests.versions import of_older
from tests.walk import HEADINGS

pytestmark = pytest.mark.browser


def test_what_was_sent_is_edited_until_writing_begins(visit: Visiting, product: Product) -> None:
    product.gate.clear()
    sender = visit()
    request_id = sender.submit()
    written = sender.page.locator(".written")
    written.locator("summary").click()
    expect(written.locator(".result")).to_contain_text(ADA.description)
    sender.button("Edit").click()
    sender.expect_heading("Edit what you wrote")
    area = sender.page.get_by_label("Short description")
    expect(area).to_have_value(ADA.description)

    area.fill("short")
    sender.send.click()
    sender.expect_text("Please write at least 10 characters.")
    sender.button("Keep it as it was").click()
    expect(written).to_contain_text(ADA.description)
    sender.button("Edit").click()
    area.fill("I weave numbers as looms weave flowers.")
    sender.send.click()

    expect(written).to_contain_text("I weave numbers")
    assert sender.request_id == request_id
    edited = {**ADA.model_dump(), "description": "I weave numbers as looms weave flowers."}
    assert product.store.read(request_id).input == AnalysisInput(**edited)


@pytest.mark.parametrize("state", ["processing", "done"])
def test_an_edit_that_comes_too_late_is_kept_for_another_request(
    visit: Visiting, product: Product, state: str
) -> None:
    sender = send(visit, product, "waiting")
    first = sender.request_id
    sender.button("Edit").click()
    sender.page.get_by_label("Short description").fill("I weave numbers as looms weave flowers.")
    product.put(first, state)
    sender.send.click()

    sender.expect_heading(TASK.headline)
    sender.expect_text("Too late for that")
    expect(sender.page.get_by_label("Short description")).to_have_value(
        "I weave numbers as looms weave flowers."
    )
    assert product.store.read(first).input == (ADA if state == "processing" else None)


SIDES = """element => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    return [left, top, right, bottom];
}"""


def are_apart(one: Locator, other: Locator) -> bool:
    """Whether no point of the page lies in both."""
    left, top, right, bottom = map(float, one.evaluate(SIDES))
    others_left, others_top, others_right, others_bottom = map(float, other.evaluate(SIDES))
    is_beside = right <= others_left or others_right <= left
    return is_beside or bottom <= others_top or others_bottom <= top


def test_a_double_click_asks_and_never_confirms(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "waiting", reduced_motion="no-preference")
    for state, button in (("waiting", "Cancel"), ("waiting", "Delete"), ("done", "Delete")):
        before = product.put(sender.request_id, state).status
        sender.page.reload()
        sender.expect_heading(HEADINGS[state])
        for size in (DESKTOP, PHONE):
            sender.page.set_viewport_size(size)
            sender.button(button).click()
            confirmation = sender.button(f"Yes, {button.lower()} it")
            expect(confirmation).to_be_visible()
            sender.page.wait_for_timeout(300)  # it has come to rest
            assert are_apart(sender.button(button), confirmation), (state, button, size)
            sender.page.keyboard.press("Escape")
            expect(confirmation).to_have_count(0)

            sender.button(button).dblclick()
            sender.rest()

        assert product.store.read(sender.request_id).status is before, (state, button)


def test_cancelling_asks_first_and_says_that_the_model_was_not_asked(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "waiting")
    sender.button("Cancel").click()
    sender.expect_text("The model has not been asked yet")
    sender.page.keyboard.press("Escape")
    expect(sender.button("Yes, cancel it")).to_have_count(0)
    sender.expect_heading(HEADINGS["waiting"])

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

    sender.expect_heading(HEADINGS["waiting"])
    assert second != first


def test_cancelling_while_the_model_is_at_it_throws_its_answer_away(
    visit: Visiting, product: Product
) -> None:
    product.model = hang
    sender = visit()
    sender.submit()
    sender.expect_heading(HEADINGS["processing"])

    sender.button("Cancel").click()
    sender.expect_text("The model has already been asked")
    sender.button("Yes, cancel it").click()

    sender.expect_heading("Cancelled")
    sender.expect_text("The AI had been asked by then")


def test_a_failed_analysis_is_tried_again(visit: Visiting, product: Product) -> None:
    product.model = answer(200, refusal())
    sender = visit()
    sender.submit()
    sender.expect_heading(HEADINGS["failed"])
    sender.expect_text("The AI model declined to work on this text.")

    product.model = answer(200, response(ANALYSIS.model_dump_json()))
    sender.button("Try again").click()

    sender.expect_text(ANALYSIS.summary)


def test_what_an_earlier_version_has_left_is_told_and_can_be_deleted(
    visit: Visiting, product: Product
) -> None:
    sender = send(visit, product, "waiting")
    record = product.store.read(sender.request_id)
    product.client.set(record_key(record.request_id), of_older(record), ex=3600)

    sender.expect_heading(unreadable.TITLE)  # by the next look
    sender.page.reload()
    sender.expect_text(f"{unreadable.TEXTS[Why.OLDER]} {unreadable.DELETABLE}")
    sender.expect_fits()
    sender.button("Delete").click()
    sender.button("Yes, delete it").click()
    sender.expect_text("Deleted.")

    assert not product.client.exists(record_key(record.request_id))


def test_what_is_deleted_is_gone_for_everybody(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "done")
    request_id = sender.request_id
    sender.button("Delete").click()
    expect(sender.button("Yes, delete it")).to_be_visible()
    sender.button("Yes, delete it").click()
    sender.expect_text("Deleted.")
    sender.expect_text("Nothing here yet")

    reader = visit(request_id)

    reader.expect_text("not found, or is no longer kept")
    assert product.client.keys(f"*{request_id}*") == []
