"""The chaos drills, smaller: what `make chaos` does in many minutes with thousands."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos import crowds, kills
from tests.chaos.report import Row
from tests.chaos.site import PLAIN
from tests.processes import ROOT

SEED = 7
PLAN = kills.Plan(analyses=120, seed=SEED, kills=5, redis_kills=1)

Drills = dict[str, Future[list[Row]]]


@pytest.fixture(scope="module", autouse=True)
def drills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drills]:
    """All at once, beside the first tests: most of their time is waiting for leases to end."""
    base: Path = tmp_path_factory.mktemp("chaos")
    with ThreadPoolExecutor() as pool:
        yield {
            "kills": pool.submit(kills.run, PLAN, base / "kills"),
            "plain": pool.submit(kills.run, PLAN, base / "plain", PLAIN, 20),
            "poison": pool.submit(crowds.poison, 20, base / "poison", SEED, is_hurried=True),
            "sleepers and crowds": pool.submit(
                crowds.sleepers_and_crowds, 20, 5, 20, base / "crowds", SEED
            ),
        }


def test_every_seeded_fault_is_found_and_none_in_the_product(
    record_property: Callable[[str, object], None],
) -> None:
    command = [sys.executable, "-m", "tests.chaos.mutants", "--examples", "40"]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    record_property("said", run.stdout.strip())


@pytest.mark.parametrize("name", ["kills", "poison", "sleepers and crowds"])
def test_nothing_goes_wrong(drills: Drills, name: str) -> None:
    rows = drills[name].result()

    assert all(row.tried for row in rows)
    assert [row for row in rows if row.wrong] == []


def test_the_same_run_shows_the_faults_of_a_plain_service(drills: Drills) -> None:
    wrong = {row.what for row in drills["plain"].result() if row.wrong}

    assert set(kills.PLAIN_FAILS) <= wrong
