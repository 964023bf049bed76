"""The same burst with one service and with two, in turns."""

import json
import statistics
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from benchmarks.records import due
from benchmarks.scale.site import Site, Size, open_site
from common.store import Store, utc_now
from common.submission import new_request_id
from tests.processes import ROOT, passed_on

NEW_NAMES_SECONDS = 3  # until nginx has asked again where the services are


class Burst(NamedTuple):
    """One shape of load, and how the services are for it."""

    name: str
    size: Size
    jobs: int
    in_flight: int


BURSTS = [
    Burst(
        "one process of 32 threads each, calls of 1 s: the threads are the limit",
        Size(seconds=(1.0, 1.0), workers=1, threads=32),
        jobs=480,
        in_flight=96,  # more than both hold: nginx shares out by chance
    ),
    Burst(
        "two processes of 512 threads each, calls of 0.05 s: the two cores are the limit",
        Size(seconds=(0.05, 0.05)),
        jobs=1000,
        in_flight=200,
    ),
]


def measure(burst: Burst, turns: int, directory: Path) -> dict[int, list[float]]:
    """Analyses settled a second, with one service and with two; the first turn doesn't count."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    with open_site(directory, burst.size, has_pages=False, has_history=False) as site:
        for turn in range(turns + 1):
            for number, found in rates.items():
                site.show_services(number)
                time.sleep(NEW_NAMES_SECONDS)
                rate = _deliver(site, burst)
                if turn:
                    found.append(rate)
                    print(f"  {burst.name}: {number}: {rate:.1f}", file=sys.stderr, flush=True)
    return rates


def _deliver(site: Site, burst: Burst) -> float:
    store = Store(site.client, ttl=timedelta(hours=1))
    ids = [new_request_id() for _ in range(burst.jobs)]
    now = utc_now()
    for request_id in ids:
        store.create(due(now, request_id))
    path = site.directory / "ids.txt"
    path.write_text("\n".join(ids))
    url = f"{site.proxy.webhook_url}/webhook"
    command = ["benchmarks.deliver", "--url", url, "--ids", str(path)]
    run = subprocess.run(
        [sys.executable, "-m", *command, "--in-flight", str(burst.in_flight)],
        cwd=ROOT,
        env={**passed_on(), "HOME": str(site.directory)},
        input="go\n",
        capture_output=True,
        text=True,
        check=True,
    )
    began: float = json.loads(run.stdout.splitlines()[-1])["began"]
    return burst.jobs / (time.time() - began)


def describe(rates: dict[int, list[float]]) -> str:
    """Cells of the table: a second with one and with two, and the median of the turns' ratios."""
    one, two = (statistics.median(rates[number]) for number in (1, 2))
    ratios = [b / a for a, b in zip(rates[1], rates[2], strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return f"{one:.0f} | {two:.0f} | {statistics.median(ratios):.2f} ({spread})"
