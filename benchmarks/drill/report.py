"""The table of a drill, and the page that is made of it: docs/reports/drill.md."""

from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tests.chaos.report import Row

HEAD = """# The operator's drill

**In one line**: {line}

`make drill` does all of this on a real PostgreSQL and a real Valkey, with gunicorn and the
stand-ins for QStash and OpenAI, and writes this page. Only 0 may stand under *wrong*.
Here {date:%-d %B %Y}, {machine}. Other programs may have used the machine meanwhile: times are
upper bounds.
"""


class Step(NamedTuple):
    """One part of the drill; `run` gets an empty directory and returns what it saw."""

    name: str
    claim: str  # in a sentence
    run: Callable[[Path], list[Row]]


class Done(NamedTuple):
    """A step that was run."""

    step: Step
    rows: list[Row]
    minutes: float


def wrong(rows: Iterable[Row]) -> int:
    return sum(row.wrong for row in rows)


def table(rows: list[Row]) -> str:
    lines = ["| | how many | wrong | |", "|---|--:|--:|---|"]
    for row in rows:
        note = row.note.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row.what} | {row.tried:,} | {row.wrong:,} | {note} |")
    return "\n".join(lines)


def section(done: Done) -> str:
    return (
        f"## {done.step.name.capitalize()}\n\n{done.step.claim}\n\n"
        f"{table(done.rows)}\n\n{done.minutes:.1f} minutes.\n"
    )


def page(every: list[Done], machine: str, now: datetime) -> str:
    """The whole report."""
    bad = [done.step.name for done in every if wrong(done.rows)]
    number = sum(len(done.rows) for done in every)
    line = f"{number} lines in {len(every)} parts, " + (
        f"and something is wrong in: {', '.join(bad)}." if bad else "and nothing is wrong."
    )
    head = HEAD.format(line=line, date=now, machine=machine)
    return "\n".join([head, *map(section, every)])
