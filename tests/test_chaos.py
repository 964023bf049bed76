"""The chaos drills, smaller: what `make chaos` does in minutes with thousands."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos import crowds, kills
from tests.chaos.report import Row
from tests.chaos.site import PLAIN

SEED = 7
PLAN = kills.Plan(analyses=200, seed=SEED, kills=8, redis_kills=1)


@pytest.fixture(scope="module")
def drills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[list[Row]]]]:
    """All at once, as most of their time is waiting for leases to end."""
    base: Path = tmp_path_factory.mktemp("chaos")
    with ThreadPoolExecutor() as pool:
        yield {
            "product": pool.submit(kills.run, PLAN, base / "product"),
            "plain": pool.submit(kills.run, PLAN, base / "plain", PLAIN, 20),
            "poison": pool.submit(crowds.poison, 20, base / "poison", SEED, is_hurried=True),
            "sleepers": pool.submit(lambda: [crowds.sleepers(20, base / "sleepers", SEED)]),
            "crowds": pool.submit(lambda: [crowds.crowds(5, 20, base / "crowds", SEED)]),
        }


@pytest.mark.parametrize("name", ["product", "poison", "sleepers", "crowds"])
def test_nothing_goes_wrong(drills: dict[str, Future[list[Row]]], name: str) -> None:
    rows = drills[name].result()

    assert all(row.tried for row in rows)
    assert [row for row in rows if row.wrong] == []


def test_the_same_run_shows_the_faults_of_a_plain_service(
    drills: dict[str, Future[list[Row]]],
) -> None:
    wrong = {row.what for row in drills["plain"].result() if row.wrong}

    assert set(kills.PLAIN_FAILS) <= wrong
