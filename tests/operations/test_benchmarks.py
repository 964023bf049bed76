"""The benchmarks still run: each with a few jobs, and nothing is timed."""

from benchmarks.compare import Case, median_of, open_bench, table
from benchmarks.growth import fill
from benchmarks.systems import BARE, OURS

FEW = Case(0.05, 4, 8)


def test_the_same_jobs_go_through_the_service_and_a_bare_pool() -> None:
    with open_bench() as bench:
        ours, bare = bench.run(OURS, FEW), bench.run(BARE[1], FEW)
        fill(bench, 10)
        commands = bench.commands(OURS, jobs=5)

    assert ours.statuses == {"200": FEW.jobs}
    assert min(ours.makespan, bare.makespan) >= FEW.ideal
    assert ours.megabytes_busy > 0
    # A delivery's four, as test_store.py counts them; submitting has sent three before.
    # Each job may come over a connection of its own, which four commands open.
    assert 4 <= commands <= 4 + 4 + 1
    assert "| this project |" in table(FEW, [median_of([ours]), bare])
