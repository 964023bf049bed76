"""`make scale`: whether anything is lost, paid twice or not shown, with two of each process.

Two services and two pages behind the bundled proxy share one Redis and one PostgreSQL. While
programs and people submit, one service is replaced by another version, the other is killed and
later replaced, and each page is restarted under waiting browsers. Then what Redis, its file, the
history, the model and the browsers have seen is held against each other.

    python -m benchmarks.scale --number 200
"""

import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from playwright.sync_api import sync_playwright

from benchmarks.page_polls import describe_machine
from benchmarks.scale.check import Run, check
from benchmarks.scale.drill import Story, submit_all, upset, wait_until_settled
from benchmarks.scale.gather import gather
from benchmarks.scale.site import Site, Size, another_version, open_site
from benchmarks.scale.tabs import Seen, one_wave, open_tabs
from benchmarks.scale.throughput import BURSTS, describe, measure
from tests.chromium import CHROMIUM_ARGUMENTS, find_chromium
from tests.processes import ROOT

SETTLED_WITHIN = 300.0  # seconds after the last is taken


def run(number: int, directory: Path) -> tuple[Run, Story]:
    """Do all of it on a fresh site, and tell what was seen."""
    versions = ROOT, another_version(directory.parent / "newer")
    with open_site(directory, Size(), versions=versions) as site, ThreadPoolExecutor(2) as pool:
        story, seen, is_over = Story(), Seen(), threading.Event()
        upsets = pool.submit(upset, site, number, story, is_over)
        submitting = pool.submit(submit_all, site, number, story)
        try:
            watch(site, seen, story)
            submitting.result()
            ids = [*story.accepted.values(), *seen.sent]
            wait_until_settled(site, ids, SETTLED_WITHIN)
        finally:
            is_over.set()  # a step that never came is seen in the table
        upsets.result()
        story.note("all settled")
        return gather(site, number, seen, story), story


def watch(site: Site, seen: Seen, story: Story) -> None:
    """Let people send and wait in browsers, once for each restart of a page."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(playwright), args=CHROMIUM_ARGUMENTS
        )
        contexts = open_tabs(browser, site)
        for page in range(len(site.pages)):
            one_wave(site, contexts, page, seen, story)
        browser.close()


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=5000, help="of analyses")
    parser.add_argument("--turns", type=int, default=3, help="of each burst; 0: no bursts")
    parser.add_argument("--logs", type=Path, help="a new folder where what was said is kept")
    arguments = parser.parse_args()
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}\n", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        directory = arguments.logs or Path(name)
        ended, story = run(arguments.number, directory / "drill")
        rows = check(ended)
        print("| | how many | wrong | |\n|---|--:|--:|---|")
        for row in rows:
            print(f"| {row.what} | {row.tried:,} | {row.wrong:,} | {row.note} |")
        print("\n| after | |\n|--:|---|")
        for seconds, event in story.events:
            print(f"| {seconds:.0f} s | {event} |")
        if arguments.turns:
            print("\n| settled a second | one service | two | ratio |\n|---|--:|--:|--:|")
        for burst in BURSTS if arguments.turns else ():
            rates = measure(burst, arguments.turns, directory / f"burst-{burst.in_flight}")
            print(f"| {burst.name} | {describe(rates)} |", flush=True)
    wrong = sum(row.wrong for row in rows)
    print(f"\n{wrong} wrong; {(time.monotonic() - began) / 60:.1f} minutes.")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
