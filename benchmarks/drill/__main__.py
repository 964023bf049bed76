"""`make drill`: what an operator meets in a year, in minutes.

Each step runs on servers of its own and says how many of its figures are wrong: none may be. The
report is made of what each step came to when it was run last, if the results are kept.

    python -m benchmarks.drill --rows 20000 --only size outage
"""

import sys
import tempfile
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from benchmarks.drill import doctor, outage, restore, roll, size, speed, upgrade
from benchmarks.drill.report import Done, Step, keep, load, page, section, wrong
from benchmarks.page_polls import describe_machine
from tests.chaos.report import Row


def steps(rows: int) -> list[Step]:
    """All of them, in the order of the report."""
    return [
        Step("size", size.CLAIM, partial(size.run, rows=rows)),
        Step("outage", outage.CLAIM, outage.run),
        Step("upgrade", upgrade.CLAIM, upgrade.run),
        Step("roll", roll.CLAIM, roll.run),
        Step("speed", speed.CLAIM, speed.run),
        Step("doctor", doctor.CLAIM, doctor.run),
        Step("restore", restore.CLAIM, restore.run),
    ]


def do(step: Step, directory: Path) -> Done:
    """Run a step; one that can't be run is wrong, and the others go on."""
    began, at = time.monotonic(), datetime.now(UTC)
    try:
        rows = step.run(directory)
    except (Exception, pytest.skip.Exception) as error:  # a program is missing: nginx, say
        text = " ".join(str(error).split())[:300]
        rows = [Row("the step itself", 1, 1, f"{type(error).__name__}: {text}")]
    return Done(rows, at, (time.monotonic() - began) / 60)


def main() -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3_000_000, help="of the history")
    parser.add_argument("--only", nargs="+", choices=[step.name for step in steps(0)])
    parser.add_argument("--out", type=Path, help="where the report goes, besides the terminal")
    parser.add_argument("--results", type=Path, help="keeps what each step came to, for the report")
    parser.add_argument("--logs", type=Path, help="a new folder where what was said is kept")
    arguments = parser.parse_args()
    machine, every = describe_machine(), steps(arguments.rows)
    results = load(arguments.results) if arguments.results else {}
    is_well = True
    with tempfile.TemporaryDirectory() as name:
        for step in every:
            if arguments.only and step.name not in arguments.only:
                continue
            print(f"{datetime.now(UTC):%H:%M:%S} {step.name} …", file=sys.stderr, flush=True)
            done = results[step.name] = do(step, (arguments.logs or Path(name)) / step.name)
            is_well &= not wrong(done.rows)
            print(section(step, done), flush=True)
            if arguments.results:
                keep(arguments.results, results)
    if arguments.out:
        arguments.out.write_text(page(every, results, machine))
    return int(not is_well)


if __name__ == "__main__":
    sys.exit(main())
