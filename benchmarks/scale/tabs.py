"""People in real browsers, who send, wait, and lose the server of their page meanwhile."""

import time
from dataclasses import dataclass, field

import psutil
from playwright.sync_api import Browser, BrowserContext, Page
from playwright.sync_api import TimeoutError as TookTooLong

from benchmarks.felt import SEND, WATCH, result_text
from benchmarks.scale.drill import Story
from benchmarks.scale.site import Site
from common.task import TASK
from tests.chromium import open_context
from tests.journey import expect_fields, fill, in_json

PRESSES = 3
PRESSED_AGAIN_AFTER = 30_000  # ms, as people do
PATIENCE = 180_000  # ms


@dataclass
class Seen:
    """What the browsers' people did and saw, by the request ids of their analyses."""

    tried: int = 0
    pressed_again: int = 0
    sent: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    restarted: list[int] = field(default_factory=list)  # tabs under each restart of a page


def one_wave(
    site: Site, contexts: list[BrowserContext], page: int, seen: Seen, story: Story
) -> None:
    """Send once from each tab, restart one page's process under them, and wait for the results."""
    tabs = [context.new_page() for context in contexts]
    for tab, url in zip(tabs, site.visitors, strict=True):
        _send(site, tab, url, seen)
    server = site.pages[page]
    seen.restarted.append(open_sockets(server.processes()[0], server.port))
    server.stop()
    time.sleep(1)
    server.start()
    story.note(f"page {page + 1} restarted under {seen.restarted[-1]} of {len(tabs)} tabs")
    for tab in tabs:
        if tab.evaluate("felt.waiting") and _comes(tab, "felt.shown", PATIENCE):
            seen.shown.append(request_id_of(tab))
        else:
            tab.screenshot(path=site.directory / f"missed-{seen.tried}.png")
        tab.close()


def _send(site: Site, tab: Page, url: str, seen: Seen) -> None:
    """Fill the form in and send it, and press again where nothing comes of it."""
    tab.set_default_timeout(PATIENCE)
    tab.goto(url)
    expect_fields(tab, TASK.form)
    fill(tab, TASK.form, in_json(TASK.example))
    tab.evaluate(WATCH, result_text())
    seen.tried += 1
    for press in range(PRESSES):
        tab.locator(SEND).click()
        if _comes(tab, "felt.waiting", PRESSED_AGAIN_AFTER):
            seen.sent.append(request_id_of(tab))
            return
        seen.pressed_again += 1
        tab.screenshot(path=site.directory / f"pressed-{seen.tried}-{press}.png")


def _comes(tab: Page, what: str, milliseconds: int) -> bool:
    try:
        tab.wait_for_function(what, timeout=milliseconds)
    except TookTooLong:
        return False
    return True


def open_tabs(browser: Browser, site: Site) -> list[BrowserContext]:
    """A profile for each visitor."""
    return [open_context(browser) for _ in site.visitors]


def request_id_of(tab: Page) -> str:
    return tab.url.partition("?request=")[2][:32]


def open_sockets(process: psutil.Process, port: int) -> int:
    """How many connections are open: the proxy keeps none but websockets."""
    return sum(
        connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == port
        for connection in process.net_connections("tcp")
    )
