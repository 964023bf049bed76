"""Enqueue jobs with one peer's library, in a process of its own.

    python -m benchmarks.peers.feed "celery threads" --ids ids.txt --rate 100

Prints `ready` when the library is loaded and has met Redis, waits for a line on stdin, enqueues
the request ids of the file (one a line), and prints `fed`. Rate 0: all at once, as fast as the
library does it.
"""

import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path

from benchmarks.peers.workers import WORKERS


def feed(enqueue: Callable[[Iterable[str]], None], request_ids: list[str], rate: float) -> None:
    """Enqueue at `rate` per second by the clock, however long each takes; all at once if 0."""
    if not rate:
        enqueue(request_ids)
        return
    start = time.monotonic()
    for index, request_id in enumerate(request_ids):
        time.sleep(max(0.0, start + index / rate - time.monotonic()))
        enqueue([request_id])


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=WORKERS)
    parser.add_argument("--ids", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=0.0, help="jobs per second; 0: all at once")
    arguments = parser.parse_args()
    request_ids = arguments.ids.read_text().split()
    library = arguments.name.split()[0]
    enqueue = import_module(f"benchmarks.peers.{library}_app").enqueue
    print("ready", flush=True)
    sys.stdin.readline()
    feed(enqueue, request_ids, arguments.rate)
    print("fed", flush=True)
