"""Thousands of analyses that are due at once, and whether the service stays answerable.

    python -m benchmarks.burst

They come as QStash brings them with QSTASH_PARALLELISM: so many at a time, the next when one is
answered, and again when told to wait. Beside them, somebody asks for /health all the time.
"""

import threading
import time
from argparse import ArgumentParser
from collections import Counter
from http.client import HTTPConnection

from benchmarks.compare import Bench, Case, open_bench
from benchmarks.systems import OURS

PAUSE_SECONDS = 0.02


class HealthProbe(threading.Thread):
    """AnalystProtocol for /health, each time on a new connection, as a load balancer does."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(daemon=True)
        self._port = bench.ports.service
        self.is_over = threading.Event()
        self.seconds: list[float] = []
        self.statuses: Counter[str] = Counter()

    def run(self) -> None:
        while not self.is_over.wait(PAUSE_SECONDS):
            began = time.perf_counter()
            connection = HTTPConnection("127.0.0.1", self._port, timeout=10)
            try:
                connection.request("GET", "/health")
                status = str(connection.getresponse().status)
            except ConnectionRefusedError:
                continue  # before it runs, and after
            except OSError as error:
                status = type(error).__name__
            finally:
                connection.close()
            self.seconds.append(time.perf_counter() - began)
            self.statuses[status] += 1


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each call")
    arguments = parser.parse_args()
    case = Case(arguments.seconds, arguments.in_flight, arguments.jobs)
    with open_bench() as bench:
        probe = HealthProbe(bench)
        probe.start()
        run = bench.run(OURS, case)
        probe.is_over.set()
        probe.join()
    took = sorted(probe.seconds)
    print(f"{arguments.jobs:,} due at once, {case.name}: all settled in {run.makespan:.1f} s")
    print(f"({run.makespan / case.ideal:.2f} × ideal). Answers to QStash: {run.statuses}.")
    print(
        f"/health, {len(took)} times: p50 {took[len(took) // 2] * 1000:.0f} ms, "
        f"p99 {took[int(len(took) * 0.99)] * 1000:.0f} ms, at most {took[-1] * 1000:.0f} ms, "
        f"answers {dict(probe.statuses)}."
    )
