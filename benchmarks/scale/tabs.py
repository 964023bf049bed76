"""People in real browsers, who send, wait, and lose the server of their page meanwhile."""

import time
from dataclasses import dataclass, field

import psutil
from playwright.sync_api import Browser, BrowserContext, Page

from benchmarks.felt import send
from benchmarks.scale.drill import Story
from benchmarks.scale.site import Site
from tests.chromium import open_context

PATIENCE = 180_000  # ms


@dataclass
class Seen:
    """What the browsers' people saw, by the request ids of their analyses."""

    sent: list[str] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    restarted: list[int] = field(default_factory=list)  # tabs under each restart of a page


def one_wave(
    site: Site, contexts: list[BrowserContext], page: int, seen: Seen, story: Story
) -> None:
    """Send once from each tab, restart one page's process under them, and wait for the results."""
    tabs = [context.new_page() for context in contexts]
    for tab, url in zip(tabs, site.visitors, strict=True):
        tab.set_default_timeout(PATIENCE)
        send(tab, url)
    seen.sent += [request_id_of(tab) for tab in tabs]
    server = site.pages[page]
    seen.restarted.append(open_sockets(server.processes()[0], server.port))
    server.stop()
    time.sleep(1)
    server.start()
    story.note(f"page {page + 1} restarted under {seen.restarted[-1]} of {len(tabs)} tabs")
    for tab in tabs:
        tab.wait_for_function("felt.shown", timeout=PATIENCE)
        seen.shown.append(request_id_of(tab))
        tab.close()


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
