"""Firefox, which speaks WebDriver BiDi over a websocket by itself.

Source: https://www.w3.org/TR/webdriver-bidi/
"""

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.other_browsers.tab import PATIENCE_SECONDS, Tab
from tests.processes import bare_environment

PROGRAMS = ("firefox-esr", "firefox")
INSTALL = "apt install firefox-esr"
WISHES = {
    "ui.systemUsesDarkTheme": 1,
    "ui.prefersReducedMotion": 1,
    "dom.ipc.processPrelaunch.enabled": False,  # no processes for tabs that nobody opens
}


class Firefox(Tab):
    def __init__(self, downloads: Path, connection: ClientConnection) -> None:
        super().__init__(downloads)
        self._connection = connection
        self._number = 0
        self.call("session.new", capabilities={})
        self._context = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method: str, **params: Any) -> Any:
        """Give a command, and wait for what comes of it."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        self._connection.send(json.dumps(message))
        while True:
            reply = json.loads(self._connection.recv(timeout=PATIENCE_SECONDS))
            if reply.get("id") == self._number:
                assert reply["type"] == "success", reply
                return reply["result"]

    def navigate(self, url: str) -> None:
        self.call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def run(self, script: str, *arguments: Any) -> Any:
        of_text = f"async (text) => JSON.stringify(await ({script})(...JSON.parse(text)) ?? null)"
        answer = self.call(
            "script.callFunction",
            functionDeclaration=of_text,
            arguments=[{"type": "string", "value": json.dumps(arguments)}],
            target={"context": self._context},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    def act(self, sources: list[dict[str, Any]]) -> None:
        self.call("input.performActions", context=self._context, actions=sources)

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height}
        self.call("browsingContext.setViewport", context=self._context, viewport=size)

    def picture(self) -> bytes:
        taken = self.call("browsingContext.captureScreenshot", context=self._context)
        return base64.b64decode(taken["data"])


@contextmanager
def open_firefox(program: str, home: Path) -> Iterator[Tab]:
    """A new Firefox, with nothing in it."""
    downloads = home / "downloads"
    downloads.mkdir(parents=True)
    wishes = (f'user_pref("{name}", {json.dumps(value)});\n' for name, value in WISHES.items())
    (home / "user.js").write_text("".join(wishes))
    command = [program, "--headless", "--profile", str(home), "--remote-debugging-port=0"]
    with ExitStack() as parts:
        process = subprocess.Popen(
            command,
            env=bare_environment(home),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        parts.enter_context(process)
        parts.callback(process.terminate)
        assert process.stderr
        said = iter(process.stderr)
        address = next(found[1] for line in said if (found := re.search(r"(ws://\S+)", line)))
        tab = Firefox(downloads, parts.enter_context(connect(f"{address}/session", max_size=None)))
        allowed = {"type": "allowed", "destinationFolder": str(downloads)}
        tab.call("browser.setDownloadBehavior", downloadBehavior=allowed)
        yield tab
