"""A headless Chromium, and a tab of it that notes what goes over the wire."""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import (
    Browser,
    BrowserContext,
    Locator,
    Page,
    Playwright,
    ViewportSize,
    WebSocket,
    expect,
)

from tests.fakes import ADA

# Chromium takes the last argument of this name: the rest is what Playwright itself switches off.
FEATURES_OFF = [
    *("WebUIOmniboxPopup", "WebUIOmniboxAimPopup"),  # two more pages for each visitor, never seen
    *("AvoidUnnecessaryBeforeUnloadCheckSync", "DestroyProfileOnBrowserClose"),
    *("HttpsUpgrades", "HttpsFirstBalancedModeAutoEnable", "LensOverlay", "MediaRouter"),
    *("PaintHolding", "ThirdPartyStoragePartitioning", "OptimizationHints"),
    *("NetworkTimeServiceQuerying", "AimEnabled", "PreconnectToSearch"),
]
# Without these Chromium calls its maker's servers at every start.
NAME = "ask.example"  # leads to this machine, in the browser
CHROMIUM_ARGUMENTS = [
    f"--host-resolver-rules=MAP {NAME} 127.0.0.1",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--process-per-site",  # a visitor's tabs share what was compiled
    f"--disable-features={','.join(FEATURES_OFF)}",
]
DESKTOP: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
PATIENCE = 40_000  # ms; on a busy machine

expect.set_options(timeout=PATIENCE)


def find_chromium(playwright: Playwright) -> str | None:
    """The browser: the system's own, or the one that `playwright install chromium` brought.

    Debian's headless shell is the same without windows, and takes a sixth less of the processor.
    """
    for name in ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    bundled = playwright.chromium.executable_path
    return bundled if Path(bundled).exists() else None


def open_context(browser: Browser, **options: Any) -> BrowserContext:
    """A visitor: a browser profile of their own, with its own storage.

    They want no motion, unless the options say so: drawing it is most of what a page costs.
    """
    usual = {"viewport": DESKTOP, "locale": "en-GB", "reduced_motion": "reduce"}
    context = browser.new_context(**{**usual, **options})
    context.set_default_timeout(PATIENCE)
    return context


class Visit:
    """A tab, what it requested, sent and received, and what went wrong in it.

    `media` is what Playwright's `emulate_media` takes.
    """

    def __init__(
        self,
        context: BrowserContext,
        url: str,
        *,
        viewport: ViewportSize | None = None,
        **media: Any,
    ) -> None:
        self.context = context
        self.requests: list[str] = []
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.trouble: list[str] = []
        self.origin = "/".join(url.split("/")[:3])
        self.page: Page = context.new_page()
        if viewport:
            self.page.set_viewport_size(viewport)
        self.page.emulate_media(**media)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", self._follow)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("dialog", self._dismiss)
        self.page.goto(url)

    def _follow(self, socket: WebSocket) -> None:
        def note(frames: list[bytes]) -> Callable[[str | bytes], None]:
            return lambda frame: frames.append(
                frame if isinstance(frame, bytes) else frame.encode()
            )

        socket.on("framesent", note(self.sent))
        socket.on("framereceived", note(self.received))

    def _dismiss(self, dialog: Any) -> None:
        self.trouble.append(f"a dialog said: {dialog.message}")
        dialog.dismiss()

    @property
    def foreign_requests(self) -> list[str]:
        own = (self.origin + "/", self.origin.replace("http", "ws") + "/", "data:", "blob:")
        return [url for url in self.requests if not url.startswith(own)]

    @property
    def request_id(self) -> str:
        return self.page.url.partition("?request=")[2]

    def fill(self, name: str = "Ada", age: str = "36", description: str = ADA.description) -> None:
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Age").fill(age)
        self.page.get_by_label("Short description").fill(description)

    def submit(self, **fields: str) -> str:
        """Send the form, and return the request id once the browser has it in its list."""
        self.fill(**fields)
        self.send.click()
        expect(self.page).to_have_url(re.compile(r"\?request=[0-9a-f]{32}$"))
        self.page.wait_for_function(
            "id => JSON.stringify(localStorage).includes(id)", arg=self.request_id
        )
        return self.request_id

    def open(self, request_id: str) -> None:
        self.page.goto(f"{self.origin}/?request={request_id}")

    def settle(self) -> None:
        """Wait until an analysis is drawn, and nothing runs."""
        expect(self.page.locator(".card[data-state]")).to_be_visible()
        self.rest()

    def rest(self) -> None:
        """Wait until nothing runs."""
        expect(self.page.locator(".stApp")).to_have_attribute(
            "data-test-script-state", "notRunning"
        )

    @property
    def send(self) -> Locator:
        """The button that sends the form."""
        return self.page.locator(".st-key-send button")

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def text(self, text: str) -> Locator:
        return self.page.get_by_text(text).first

    def expect_heading(self, name: str | re.Pattern[str]) -> None:
        heading = self.page.get_by_role("heading", name=name, exact=True)
        expect(heading).to_be_visible(timeout=PATIENCE)

    def expect_text(self, text: str) -> None:
        expect(self.text(text)).to_be_visible(timeout=PATIENCE)

    def expect_value(self, script: str, value: object) -> None:
        """Wait until the script gives this value."""
        deadline = time.monotonic() + PATIENCE / 1000
        while (found := self.page.evaluate(script)) != value:
            assert time.monotonic() < deadline, f"{found!r} is not {value!r}"
            self.page.wait_for_timeout(50)

    def expect_shown(self, text: str, times: int) -> None:
        """Wait until the text is to be read so many times; how it is broken into lines is free."""
        parts = f"document.body.innerText.split(/\\s+/).join(' ').split({json.dumps(text)})"
        self.expect_value(f"{parts}.length - 1", times)

    def expect_fits(self) -> None:
        """Nothing has to be scrolled sideways."""
        width = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
        inner = "document.querySelector('[data-testid=stMain]')"
        self.expect_value(f"Math.max(0, {width} - innerWidth)", 0)
        self.expect_value(f"Math.max(0, {inner}.scrollWidth - {inner}.clientWidth)", 0)
