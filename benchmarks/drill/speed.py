"""100 analyses a second with 200 in flight: with a history beside without one, in turns."""

from dataclasses import replace
from pathlib import Path

from benchmarks.compare import Case, Run, median_of, open_bench
from benchmarks.history import CASES, refused
from benchmarks.systems import OURS
from tests.chaos.report import Row
from tests.postgres import find_binaries, start_postgres

CLAIM = (
    "With a history, 100 deliveries a second and 200 in flight are all answered 200, for at most "
    "1.3 times the processor time."
)
TURNS = 3
MOST_TIMES = 1.3
CASE = CASES[0]


def run(directory: Path) -> list[Row]:
    binaries = find_binaries()
    assert binaries, "PostgreSQL is missing: apt install postgresql"
    without: list[Run] = []
    kept: list[Run] = []
    with start_postgres(binaries) as postgres, open_bench() as bench:
        ours = replace(OURS, name="with a history", settings={"DATABASE_URL": postgres.url})
        for _ in range(TURNS):
            without.append(bench.run(OURS, CASE))
            kept.append(bench.run(ours, CASE))
    return judge(CASE, without, kept)


def judge(case: Case, without: list[Run], kept: list[Run]) -> list[Row]:
    """Ratios are of the medians: the machine is not ours alone."""
    one, other = median_of(without), median_of(kept)
    times = other.cpu_per_1000 / one.cpu_per_1000
    bad = refused(kept)
    return [
        Row(f"deliveries: {case.name}", case.jobs * len(kept), bad, f"{bad} not answered 200"),
        Row(
            "processor time, with a history beside without, in turns",
            len(kept),
            int(times > MOST_TIMES),
            f"{times:.2f} times; {other.cpu_per_1000:.2f} s and {one.cpu_per_1000:.2f} s per 1,000",
        ),
    ]
