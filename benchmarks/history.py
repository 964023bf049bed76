"""What a history costs: the same deliveries with one and without, in turns.

    python -m benchmarks.history

200 in flight at 100 a second, and half of that, where each costs more as caches are cold.
"""

import sys
from argparse import ArgumentParser
from collections import defaultdict
from dataclasses import replace

from benchmarks.compare import Case, Run, median_of, open_bench
from benchmarks.systems import OURS
from tests.postgres import find_binaries, start_postgres

CASES = [Case(2.0, 200, 1000, rate=100), Case(2.0, 100, 500, rate=50)]


def table(case: Case, without: Run, with_history: Run, refused: int) -> str:
    """Both beside each other; `refused` counts the deliveries of all runs that heard no 200."""
    lines = [
        f"\n### {case.name} ({case.jobs} jobs)\n",
        "| | CPU s per 1,000 | × without | not answered 200 | over the call: p50 | p95 |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, run, number in (("without", without, 0), ("with a history", with_history, refused)):
        lines.append(
            f"| {name} | {run.cpu_per_1000:.2f} | {run.cpu_per_1000 / without.cpu_per_1000:.2f} "
            f"| {number} | {run.overhead_p50 * 1000:.0f} ms | {run.overhead_p95 * 1000:.0f} ms |"
        )
    return "\n".join(lines)


def refused(runs: list[Run]) -> int:
    """How many answers were not 200."""
    return sum(sum(run.statuses.values()) - run.statuses.get("200", 0) for run in runs)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    arguments = parser.parse_args()
    binaries = find_binaries()
    if binaries is None:
        sys.exit("PostgreSQL is missing. Install it with: apt install postgresql")
    with start_postgres(binaries) as postgres, open_bench() as bench:
        kept = replace(OURS, name="with a history", settings={"DATABASE_URL": postgres.url})
        for case in CASES:
            runs: dict[str, list[Run]] = defaultdict(list)
            for _ in range(arguments.repetitions):
                for system in (OURS, kept):
                    runs[system.name].append(run := bench.run(system, case))
                    print(f"{run}", file=sys.stderr, flush=True)
            without, with_history = (median_of(runs[system.name]) for system in (OURS, kept))
            print(table(case, without, with_history, refused(runs[kept.name])), flush=True)
