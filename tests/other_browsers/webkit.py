"""WebKit: the small browser that WebKitGTK brings, through its WebDriver, on a screen in memory.

Source: https://www.w3.org/TR/webdriver2/
"""

import base64
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.other_browsers.tab import PATIENCE_SECONDS, Tab
from tests.processes import bare_environment, free_port, wait_for

PROGRAMS = ("WebKitWebDriver",)
SCREEN = "Xvfb"
INSTALL = "apt install webkit2gtk-driver xvfb"


class WebKit(Tab):
    def __init__(self, downloads: Path, client: httpx.Client, capabilities: Any) -> None:
        super().__init__(downloads)
        self._client = client
        self._session = ""
        wanted = {"capabilities": {"alwaysMatch": capabilities}}
        self._session = f"/session/{self.call('POST', '/session', **wanted)['sessionId']}"

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Give a command, and return what comes of it."""
        reply = self._client.request(method, self._session + path, json=body or None)
        assert reply.status_code == 200, reply.text
        return reply.json()["value"]

    def navigate(self, url: str) -> None:
        self.call("POST", "/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        body = f"return ({script})(...arguments)"
        return self.call("POST", "/execute/sync", script=body, args=list(arguments))

    def act(self, sources: list[dict[str, Any]]) -> None:
        self.call("POST", "/actions", actions=sources)

    def resize(self, width: int, height: int) -> None:
        self.call("POST", "/window/rect", x=0, y=0, width=width, height=height)

    def picture(self) -> bytes:
        return base64.b64decode(self.call("GET", "/screenshot"))

    def close(self) -> None:
        self.call("DELETE", "")


@contextmanager
def open_webkit(program: str, home: Path) -> Iterator[Tab]:
    """A new browser, with nothing in it; without tool bars, which no phone is too narrow for."""
    for version in ("gtk-3.0", "gtk-4.0"):
        wishes = home / ".config" / version / "settings.ini"
        wishes.parent.mkdir(parents=True)
        wishes.write_text("[Settings]\ngtk-enable-animations=0\n")
    options = {"binary": _browser(), "args": ["--automation", "--full-screen", "--dark-mode"]}
    capabilities = {"webkitgtk:browserOptions": options}
    with ExitStack() as parts:
        display = parts.enter_context(_screen())
        port = free_port()
        process = subprocess.Popen(
            [program, f"--port={port}"], env=bare_environment(home, DISPLAY=display)
        )
        parts.enter_context(process)
        parts.callback(process.terminate)
        url = f"http://127.0.0.1:{port}"
        client = parts.enter_context(httpx.Client(base_url=url, timeout=PATIENCE_SECONDS))
        wait_for(lambda: client.get("/status"))
        tab = WebKit(home, client, capabilities)
        parts.callback(tab.close)
        yield tab


def _browser() -> str:
    """Debian's place for it; other systems have it elsewhere, and the driver knows where."""
    found = sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))
    return str(found[-1]) if found else "MiniBrowser"


@contextmanager
def _screen() -> Iterator[str]:
    """A screen in memory, with a number that no other has."""
    reading, writing = os.pipe()
    command = [
        SCREEN,
        "-displayfd",
        str(writing),
        "-screen",
        "0",
        "1400x1000x24",
        "-nolisten",
        "tcp",
    ]
    with subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL) as process:
        os.close(writing)
        try:
            with os.fdopen(reading) as number:
                yield f":{number.readline().strip()}"
        finally:
            process.terminate()
