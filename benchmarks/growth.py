"""Whether it stays as fast with a million analyses in Redis: deliveries, submissions and polls.

python -m benchmarks.growth
"""

import statistics
import sys
import time
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Callable

from benchmarks.compare import KEPT_MS, Bench, Case, open_bench
from benchmarks.records import completed
from benchmarks.systems import OURS, environment
from common.settings import ServiceSettings
from common.store import open_store, utc_now
from common.submission import Submissions, new_request_id
from common.task import TASK
from operations import plug_in
from operations.settings import OperationsSettings
from tests.fakes import FakeQueue

CASE = Case(0.05, 50, 500, rate=50)
OPERATIONS = 2_000


def fill(bench: Bench, number: int) -> None:
    """Store so many analyses that are ready."""
    raw = completed(utc_now(), "0" * 32).model_dump_json(by_alias=True)
    for start in range(0, number, 10_000):
        pipeline = bench.redis.pipeline(transaction=False)
        for index in range(start, min(start + 10_000, number)):
            request_id = f"{index:032x}"
            pipeline.set(
                f"analysis:{{{request_id}}}", raw.replace("0" * 32, request_id, 1), px=KEPT_MS
            )
        pipeline.execute()


def timed(act: Callable[[], object]) -> list[float]:
    """Milliseconds that each of many took."""
    took = []
    for _ in range(OPERATIONS):
        began = time.perf_counter()
        act()
        took.append((time.perf_counter() - began) * 1000)
    return sorted(took)


def measure(bench: Bench, size: int) -> dict[str, float]:
    """All figures with so many analyses stored."""
    bench.redis.flushall()
    fill(bench, size)
    run = bench.run(OURS, CASE, beside_others=True)
    given = {name.lower(): value for name, value in environment(bench.ports).items()}
    settings = ServiceSettings.model_validate(given)
    store = open_store(settings)
    options = plug_in("command", settings, OperationsSettings.model_validate(given), store)
    submissions = Submissions(store, FakeQueue(), settings, limits=options.limits)
    polls = timed(lambda: submissions.look_up("0" * 31 + "1"))
    submits = timed(lambda: submissions.submit(TASK.example, request_id=new_request_id()))
    info = bench.redis.info("memory")
    return {
        "delivery, CPU ms": run.cpu_per_1000,
        "delivery, p95 over the call, ms": run.overhead_p95 * 1000,
        "poll, p50 ms": statistics.median(polls),
        "poll, p95 ms": polls[int(OPERATIONS * 0.95)],
        "submit without QStash, p50 ms": statistics.median(submits),
        "submit without QStash, p95 ms": submits[int(OPERATIONS * 0.95)],
        "Redis, MB": info["used_memory"] / 1e6,
    }


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    arguments = parser.parse_args()
    sizes = arguments.sizes
    figures: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with open_bench() as bench:
        for _ in range(arguments.repetitions):
            for size in sizes:
                for name, value in measure(bench, size).items():
                    figures[name][size].append(value)
                print(f"  {size:,}", file=sys.stderr, flush=True)
    print("| stored analyses |" + "".join(f" {size:,} |" for size in sizes) + " last ÷ first |")
    print("|---|" + "--:|" * (len(sizes) + 1))
    for name, by_size in figures.items():
        medians = [statistics.median(by_size[size]) for size in sizes]
        cells = "".join(f" {value:.2f} |" for value in medians)
        print(f"| {name} |{cells} {medians[-1] / medians[0]:.2f} |")
