"""The result: shared, copied, printed; and where one is when it comes."""

import re

import pytest
from playwright.sync_api import Browser, Locator, expect

from tests.browser.visits import OWNER_HASH, Visiting, send, wait_for_quiet
from tests.chromium import PHONE, Visit, open_context
from tests.fakes import ANALYSIS, ID
from tests.http_server import answer
from tests.model_replies import response
from tests.product import Product
from tests.toy.task import Analysis
from tests.walk import HEADINGS, SHARED

pytestmark = pytest.mark.browser

LONG = ANALYSIS.model_copy(
    update={"suggestions": [f"Step {n}. " + "Walk. " * 40 for n in range(30)]}
)
HEBREW = ANALYSIS.model_copy(update={"summary": "שלום לך", "suggestions": ["ללכת"]})
SHARE_SHEET = "navigator.share = async (shared) => { window.shared = shared; };"
NO_CLIPBOARD = """navigator.clipboard.writeText = () => Promise.reject();
document.execCommand = () => false;"""


def read(visit: Visiting, product: Product, result: Analysis, **options: object) -> Visit:
    """A new visitor's tab with a result that came while they waited."""
    product.model = answer(200, response(result.model_dump_json(), model="gpt-test"))
    sender = visit(**options)
    sender.submit()
    sender.expect_heading(HEADINGS["done"])
    sender.settle()
    return sender


def wait(visit: Visiting, product: Product, **options: object) -> Visit:
    """A tab in which somebody waits for their result."""
    product.gate.clear()
    sender = visit(**options)
    product.put(sender.submit(), "processing")
    sender.expect_text("Writing")
    sender.settle()
    return sender


def test_the_link_and_the_result_can_be_taken_along(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    context = open_context(browser, permissions=["clipboard-read", "clipboard-write"])
    sender = send(visit, product, "done", context=context)

    def copied(button: str, said: str) -> str:
        sender.button(button).click()
        expect(sender.button(said)).to_be_visible()
        expect(sender.page.get_by_role("status").filter(has_text=said)).to_have_count(1)
        text: str = sender.page.evaluate("navigator.clipboard.readText()")
        expect(sender.button(button)).to_be_visible()
        return text

    def downloaded(button: str) -> tuple[str, str]:
        with sender.page.expect_download() as download:
            sender.button(button).click()
        return download.value.suggested_filename, download.value.path().read_text()

    assert copied("Share", "Link copied ✓") == sender.page.url
    assert f"Summary\n{ANALYSIS.summary}\n\n" in copied("Copy text", "Copied ✓")
    sender.button("More").click()
    name, content = downloaded("Download Markdown")
    assert (name, f"## Summary\n\n{ANALYSIS.summary}" in content) == ("analysis.md", True)
    name, content = downloaded("Download JSON")
    assert (name, Analysis.model_validate_json(content)) == ("analysis.json", ANALYSIS)


def test_on_a_phone_the_systems_sheet_opens_and_what_cannot_be_copied_is_shown(
    visit: Visiting, product: Product, browser: Browser
) -> None:
    context = open_context(browser, viewport=PHONE, has_touch=True)
    context.add_init_script(SHARE_SHEET + NO_CLIPBOARD)
    sender = send(visit, product, "done", context=context)

    sender.button("Share").click()
    shared = {"title": "Analysis · Ask later", "url": sender.page.url}
    sender.expect_value("window.shared?.url", sender.page.url)
    assert sender.page.evaluate("window.shared") == shared

    sender.button("Copy text").click()
    expect(sender.button("Press Ctrl+C")).to_be_visible()
    area = sender.page.get_by_role("textbox", name="The text to copy")
    expect(area).to_be_focused()
    assert area.evaluate("e => e.value.slice(e.selectionStart, e.selectionEnd)").startswith(
        f"Summary\n{ANALYSIS.summary}"
    )
    for width in (390, 320):
        sender.page.set_viewport_size({"width": width, "height": 640})
        sender.expect_fits()
        share, copy, more = map(box, map(sender.button, ("Share", "Copy text", "More")))
        assert share["y"] == copy["y"] == more["y"]
        assert round(more["x"] + more["width"]) == width - 16  # the row is full
        assert all(round(each["height"]) == 48 for each in (share, copy, more))


def box(locator: Locator) -> dict[str, float]:
    expect(locator).to_be_visible()
    found: dict[str, float] = locator.evaluate("e => e.getBoundingClientRect().toJSON()")
    return found


def test_what_is_in_use_keeps_the_focus_when_the_result_comes(
    visit: Visiting, product: Product
) -> None:
    sender = wait(visit, product)
    brand = sender.page.locator(".brand")
    brand.focus()

    product.put(sender.request_id, "done")

    sender.expect_heading(HEADINGS["done"])
    sender.settle()
    wait_for_quiet(sender)
    expect(brand).to_be_focused()


def test_a_page_that_follows_an_action_begins_at_its_top(visit: Visiting, product: Product) -> None:
    scrolled = "document.querySelector('[data-testid=stMain]').scrollTop"
    sender = read(visit, product, LONG, viewport=PHONE)
    assert sender.page.evaluate(scrolled) == 0
    sender.page.evaluate(f"{scrolled} = 500")
    sender.button("New").evaluate("button => button.click()")  # without scrolling there
    expect(sender.send).to_be_visible()
    sender.rest()
    sender.expect_value(scrolled, 0)

    product.gate.clear()
    sender.submit()  # far down
    sender.settle()
    sender.expect_value(scrolled, 0)


def test_on_paper_is_the_whole_result_and_nothing_to_press(
    visit: Visiting, product: Product
) -> None:
    sender = read(visit, product, LONG, color_scheme="dark")

    pdf = sender.page.pdf(format="A5")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) > 4

    sender.page.emulate_media(media="print", color_scheme="dark")
    expect(sender.text(f"/?request={sender.request_id}")).to_be_visible()
    for name in ("Share", "Copy text", "More", "New"):
        expect(sender.button(name)).to_have_count(0)
    expect(sender.text("Whoever has the link")).to_be_hidden()
    card, lead = sender.page.locator(".st-key-card"), sender.page.locator(".lead")
    expect(card).to_have_css("box-shadow", "none")
    expect(lead).to_have_css("color", "rgb(28, 27, 34)")
    end = sender.page.locator(".printed").evaluate("e => e.getBoundingClientRect().bottom")
    assert sender.page.evaluate("document.documentElement.scrollHeight") >= end > 3000


def test_a_result_that_runs_from_right_to_left_does_so_also_with_forced_colours(
    visit: Visiting, product: Product
) -> None:
    sender = read(visit, product, HEBREW, viewport=PHONE, forced_colors="active")

    for text in ("שלום לך", "ללכת"):
        shown = sender.page.locator(".result").get_by_text(text)
        expect(shown).to_have_css("direction", "rtl")
        expect(shown).to_have_css("text-align", "start")
    for chip in sender.page.locator(".facts dd, .chips li").all():
        expect(chip).to_have_css("border-top-color", "rgb(0, 0, 0)")
    sender.expect_fits()


def test_a_stranger_is_not_addressed_as_who_wrote_it(visit: Visiting, product: Product) -> None:
    product.put(ID, "done", owner_hash=OWNER_HASH)
    stranger = visit(ID)
    stranger.expect_heading(SHARED)
    stranger.settle()
    stranger.button("More").click()
    expect(stranger.button("Delete")).to_have_count(0)
    with stranger.page.expect_download() as download:
        stranger.button("Download Markdown").click()

    said = stranger.page.inner_text("body") + download.value.path().read_text()
    assert not re.search(r"\byours?\b", said.replace(ANALYSIS.summary, ""), re.IGNORECASE)
    assert "ready" in stranger.page.locator("#announcer").inner_text()
