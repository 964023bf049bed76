"""The benchmarks still run: each with a few jobs, and nothing is timed."""

from dataclasses import replace

from benchmarks import history
from benchmarks.compare import Case, Run, median_of, open_bench, table
from benchmarks.growth import fill
from benchmarks.systems import BARE, OURS, PLAIN

FEW = Case(0.05, 4, 8)


def test_the_same_jobs_go_through_the_service_and_a_bare_pool() -> None:
    with open_bench() as bench:
        ours, bare = bench.run(OURS, FEW), bench.run(BARE[1], FEW)
        fill(bench, 10)
        commands, plain = bench.commands(OURS, jobs=5), bench.run(PLAIN, FEW)

    assert ours.statuses == plain.statuses == {"200": FEW.jobs}
    assert min(ours.makespan, bare.makespan) >= FEW.ideal
    assert ours.megabytes_busy > 0
    # A delivery's four, as test_store.py counts them; submitting has sent three before.
    # Each job may come over a connection of its own, which four commands open.
    assert 4 <= commands <= 4 + 4 + 1
    assert "| this project |" in table(FEW, [median_of([ours]), bare])


def test_what_a_history_costs_is_told_beside_what_it_costs_without() -> None:
    run = Run("a", FEW.name, 1.0, 0.01, 0.02, 4.0, 100, 100, 4, {"200": 8})
    busy = replace(run, cpu_per_1000=5.0, statuses={"200": 8, "503": 3})

    told = history.table(FEW, run, busy, history.refused([busy, busy]))

    assert "| with a history | 5.00 | 1.25 | 6 | 10 ms | 20 ms |" in told
