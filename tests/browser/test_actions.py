"""What the sender can do."""

import pytest
from playwright.sync_api import (
    Browser,
    expect,
)

from tests.browser.visits import Visiting, send
from tests.chromium import (
    open_context,
)
from tests.fakes import ANALYSIS
from tests.http_server import answer, hang
from tests.model_replies import refusal, response
from tests.product import Product
from tests.toy.task import Analysis
from tests.walk import HEADINGS

pytestmark = pytest.mark.browser


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
    sender.expect_text("after the model had been asked")


def test_a_failed_analysis_is_tried_again(visit: Visiting, product: Product) -> None:
    product.model = answer(200, refusal())
    sender = visit()
    sender.submit()
    sender.expect_heading(HEADINGS["failed"])
    sender.expect_text("The AI model declined to work on this text.")

    product.model = answer(200, response(ANALYSIS.model_dump_json()))
    sender.button("Try again").click()

    sender.expect_text(ANALYSIS.summary)


def test_what_is_deleted_is_gone_for_everybody(visit: Visiting, product: Product) -> None:
    sender = send(visit, product, "done")
    request_id = sender.request_id
    sender.button("Delete").click()
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
