"""Pictures of the page.

.venv/bin/python -m tests.screenshots      # the README's
.venv/bin/python -m tests.screenshots DIR  # every state, on desktop and phone, light and dark
"""

import os
import re
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Literal

from PIL import Image
from playwright.sync_api import Browser, ViewportSize, expect, sync_playwright

from tests.chromium import CHROMIUM_ARGUMENTS, DESKTOP, PHONE, Visit, find_chromium, open_context
from tests.http_server import answer
from tests.journey import TASK_FILE, expect_fields, fill, in_json, load
from tests.model_replies import response
from tests.processes import ROOT
from tests.product import Product, start_product
from tests.walk import walk

Scheme = Literal["light", "dark"]

SCREENS = {"desktop": DESKTOP, "phone": PHONE}
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
HALF: ViewportSize = {"width": 820, "height": 900}
TASK = load(ROOT / TASK_FILE)


def picture(tab: Visit, height: int) -> Image.Image:
    """The whole page, which scrolls within itself, at least so high."""
    size = tab.page.viewport_size
    assert size, "every context here has one"
    main = tab.page.locator("[data-testid=stMainBlockContainer]")
    needed = max(height, round(main.evaluate("e => e.getBoundingClientRect().height")))
    tab.page.set_viewport_size({"width": size["width"], "height": needed})
    image = Image.open(BytesIO(tab.page.screenshot(animations="disabled")))
    tab.page.set_viewport_size(size)
    return image


def take_all(browser: Browser, product: Product, out: Path) -> None:
    """Walk through the states on each screen."""
    for screen, size in SCREENS.items():
        for scheme in SCHEMES:
            states = take_states(browser, product, size, scheme)
            for number, (state, image) in enumerate(states):
                name = re.sub(r"[^a-z]+", "-", state)
                image.save(out / f"{screen}-{scheme}-{number:02}-{name}.png")


def take_states(
    browser: Browser, product: Product, size: ViewportSize, scheme: Scheme
) -> Iterator[tuple[str, Image.Image]]:
    product.make_whole()
    context = open_context(browser, viewport=size, color_scheme=scheme, device_scale_factor=2)
    tab = Visit(context, product.page.url)
    for state in walk(tab, product):
        yield state, picture(tab, size["height"])
    context.close()


def take_page(browser: Browser, product: Product, path: Path) -> None:
    """The README's first: the form on the left; the result, a little later, on the right."""
    tab = open_form(browser, product, HALF, "light")
    left = picture(tab, HALF["height"])
    tab.send.click()
    tab.expect_heading(f"Your {TASK.noun}")
    right = picture(tab, HALF["height"])
    tab.context.close()
    beside(left, right).quantize(128).save(path, optimize=True)


def take_waiting(browser: Browser, product: Product, path: Path) -> None:
    """The README's second: waiting, and waiting for the next attempt, on a phone in the dark."""
    product.gate.clear()
    tab = open_form(browser, product, PHONE, "dark")
    tab.send.click()
    expect(tab.page).to_have_url(re.compile(r"\?request="))
    tab.page.wait_for_function(
        "id => JSON.stringify(localStorage).includes(id)", arg=tab.request_id
    )
    taken = []
    for state in ("waiting", "retrying"):
        product.put(tab.request_id, state)
        tab.page.reload()
        expect(tab.button("Delete")).to_be_visible()
        tab.settle()
        taken.append(picture(tab, PHONE["height"]))
    tab.context.close()
    beside(*taken).quantize(128).save(path, optimize=True)


def open_form(browser: Browser, product: Product, size: ViewportSize, scheme: Scheme) -> Visit:
    """Open the project's own form, filled in with its example."""
    context = open_context(browser, viewport=size, color_scheme=scheme)
    tab = Visit(context, product.page.url)
    expect_fields(tab.page, TASK.form)
    tab.rest()
    fill(tab.page, TASK.form, in_json(TASK.examples[0]))
    return tab


def beside(left: Image.Image, right: Image.Image) -> Image.Image:
    size = (left.width + right.width, max(left.height, right.height))
    both = Image.new("RGB", size, left.getpixel((0, 0)))
    both.paste(left, (0, 0))
    both.paste(right, (left.width, 0))
    return both


def main() -> None:
    parser = ArgumentParser(description="Take pictures of the page: the README's, or all.")
    parser.add_argument("out", nargs="?", type=Path, help="a folder for one of every state")
    out: Path | None = parser.parse_args().out
    if out is None:
        os.environ["PYTHONPATH"] = ""  # the README shows the project's own task, not the tests'
    with (
        sync_playwright() as playwright,
        tempfile.TemporaryDirectory() as directory,
        start_product(Path(directory)) as product,
    ):
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright), args=CHROMIUM_ARGUMENTS
        )
        if out:
            out.mkdir(parents=True, exist_ok=True)
            take_all(browser, product, out)
        else:
            answered = response(
                TASK.example_result.model_dump_json(by_alias=True), model="gpt-5.4-mini"
            )
            product.model = answer(200, answered)
            take_page(browser, product, ROOT / "docs" / "page.png")
            take_waiting(browser, product, ROOT / "docs" / "waiting.png")
        browser.close()


if __name__ == "__main__":
    main()
