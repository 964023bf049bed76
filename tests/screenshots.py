"""Pictures of every state of the page, on desktop and phone, light and dark.

.venv/bin/python -m tests.screenshots --out DIR              # all of them, to be looked at
.venv/bin/python -m tests.screenshots --picture docs/page.png  # the README's
"""

import tempfile
from argparse import ArgumentParser
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.browser import CHROMIUM_ARGUMENTS, DESKTOP, PHONE, Visit, find_chromium, open_context
from tests.processes import start_stack
from tests.product import start_product
from tests.walk import walk

SCREENS = {"desktop": DESKTOP, "phone": PHONE}
SCHEMES = ("light", "dark")
HALF = {"width": 820, "height": 900}
TEXT = (
    "I sketch machines that could weave numbers as looms weave flowers. I like long walks, and I "
    "write down every idea about machines before it flies away!"
)


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


def take_all(browser: Browser, out: Path) -> None:
    """Walk through the states on each screen."""
    with tempfile.TemporaryDirectory() as directory, start_product(Path(directory)) as product:
        for screen, size in SCREENS.items():
            for scheme in SCHEMES:
                product.make_whole()
                context = open_context(
                    browser, viewport=size, color_scheme=scheme, device_scale_factor=2
                )
                tab = Visit(context, product.page.url)
                for number, state in enumerate(walk(tab, product)):
                    name = f"{screen}-{scheme}-{number:02}-{state.replace(' ', '-')}.png"
                    picture(tab, size["height"]).save(out / name)
                context.close()


def take_readmes(browser: Browser, path: Path) -> None:
    """The form on the left; the analysis, a few seconds later, on the right."""
    with tempfile.TemporaryDirectory() as directory, start_stack(Path(directory)) as stack:
        context = open_context(browser, viewport=HALF, color_scheme="light")
        form = Visit(context, stack.page_url)
        form.expect_text("Nothing here yet")
        form.fill(name="Ada Lovelace", description=TEXT)
        left = picture(form, HALF["height"])
        form.button("Send request").click()
        form.expect_heading("Your analysis")
        form.expect_text("Your analysis is ready.")
        right = picture(form, HALF["height"])
    both = Image.new(
        "RGB", (2 * HALF["width"], max(left.height, right.height)), left.getpixel((0, 0))
    )
    both.paste(left, (0, 0))
    both.paste(right, (HALF["width"], 0))
    both.quantize(128).save(path, optimize=True)


def main() -> None:
    parser = ArgumentParser(description="Take pictures of the page.")
    parser.add_argument("--out", type=Path, help="a folder for all states")
    parser.add_argument("--picture", type=Path, help="the file of the README's picture")
    arguments = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright), args=CHROMIUM_ARGUMENTS
        )
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            take_all(browser, arguments.out)
        if arguments.picture:
            take_readmes(browser, arguments.picture)
        browser.close()


if __name__ == "__main__":
    main()
