"""The table of a drill, and the page that is made of it: docs/reports/drill.md."""

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tests.chaos.report import Row

HEAD = """# The operator's drill

**In one line**: {line}

`make drill` does all of this on a real PostgreSQL and a real Valkey, with gunicorn and the
stand-ins for QStash and OpenAI, and writes this page. Only 0 may stand under *wrong*.
Here {machine}.
Other programs may have used the machine meanwhile: times are upper bounds.
"""


class Step(NamedTuple):
    """One part of the drill; `run` gets an empty directory and returns what it saw."""

    name: str
    claim: str  # in a sentence
    run: Callable[[Path], list[Row]]


class Done(NamedTuple):
    """What a step came to, when it was run last."""

    rows: list[Row]
    at: datetime
    minutes: float


def wrong(rows: Iterable[Row]) -> int:
    return sum(row.wrong for row in rows)


def table(rows: list[Row]) -> str:
    lines = ["| | how many | wrong | |", "|---|--:|--:|---|"]
    for row in rows:
        note = row.note.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row.what} | {row.tried:,} | {row.wrong:,} | {note} |")
    return "\n".join(lines)


def section(step: Step, done: Done) -> str:
    return (
        f"## {step.name.capitalize()}\n\n{step.claim}\n\n"
        f"{table(done.rows)}\n\n{done.at:%-d %B %Y, %H:%M} UTC, {done.minutes:.1f} minutes.\n"
    )


def page(steps: list[Step], every: dict[str, Done], machine: str) -> str:
    """The whole report, of the steps that were run."""
    run = [step for step in steps if step.name in every]
    bad = [step.name for step in run if wrong(every[step.name].rows)]
    number = sum(len(every[step.name].rows) for step in run)
    line = f"{number} figures of {len(run)} parts, " + (
        f"and something is wrong in: {', '.join(bad)}." if bad else "and nothing is wrong."
    )
    head = HEAD.format(line=line, machine=machine)
    return "\n".join([head, *(section(step, every[step.name]) for step in run)])


def load(path: Path) -> dict[str, Done]:
    """What was kept of earlier runs, by the steps' names."""
    found = json.loads(path.read_text()) if path.exists() else {}
    return {
        name: Done([Row(*row) for row in rows], datetime.fromisoformat(at), minutes)
        for name, (rows, at, minutes) in found.items()
    }


def keep(path: Path, every: dict[str, Done]) -> None:
    path.write_text(json.dumps(every, default=datetime.isoformat, indent=1))
