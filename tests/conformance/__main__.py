"""`make conformance`: hold this project against what the vendors publish; prints one table.

python -m tests.conformance --specs FOLDER --without servers

In FOLDER are openai-responses.json (OpenAI's description, https://github.com/openai/openai-openapi,
as JSON) and qstash.yaml (Upstash's, https://github.com/upstash/docs). Upstash's suites are cloned
from GitHub, and other servers installed from PyPI, into .local.
"""

import logging
import os
import platform
import secrets
import sys
import time
import traceback
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from tests.conformance import openai, qstash, servers, suites
from tests.conformance.table import HEAD, Row, wrong

FILES = {
    "openai-responses.json": "OpenAI's OpenAPI description, as JSON; at least /responses and "
    "/models, with their schemas: https://github.com/openai/openai-openapi",
    "qstash.yaml": "Upstash's OpenAPI description of QStash: https://github.com/upstash/docs",
}
QSTASH = {
    "answered": "the stand-in for QStash's answers, errors included, against Upstash's description",
    "refused": "what is described there and left out here: refused, by name",
    "taken": "the headers that it takes: described there",
    "published": "what we publish: described there",
}
Part = Callable[[], Iterable[Row]]


def parts(specs: Path, seed: int) -> dict[str, Part]:
    return {
        "openai": lambda: openai.check(specs, seed),
        "qstash": lambda: held_by_qstash(specs),
        "qstash-py": suites.check_python,
        "qstash-js": suites.check_typescript,
        "servers": servers.check,
    }


def held_by_qstash(specs: Path) -> Iterator[Row]:
    """One row for each kind of thing that is held against Upstash's description."""
    everything = qstash.check(specs)
    for kind, what in QSTASH.items():
        held = [each for each in everything if each.name.startswith(kind)]
        for each in held:
            if not each.ok:
                wrong(each.name, each.why)
        elsewhere = sum(each.ok and bool(each.why) for each in held)
        note = f"{elsewhere} of these by Upstash's other pages and SDKs" if elsewhere else ""
        yield Row(what, sum(each.ok for each in held), len(held), note)


def outcome(title: str, part: Part) -> list[Row]:
    """Run a part and print its rows; one that breaks off is a row that does not hold."""
    began = time.monotonic()
    rows = []
    try:
        for row in part():
            rows.append(row)
            print(row, flush=True)
    except Exception as error:
        traceback.print_exc()
        rows.append(Row(f"{title}: broke off", 0, 1, f"{type(error).__name__}: {error}"))
        print(rows[-1], flush=True)
    print(f"{title}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return rows


def missing(specs: Path | None) -> str:
    """What is to be fetched, or nothing."""
    lacking = [
        f"  {name}: {what}"
        for name, what in FILES.items()
        if specs is None or not (specs / name).is_file()
    ]
    where = f"{specs} lacks" if specs else "SPECS, a folder, is not given; it holds"
    return "\n".join([f"{where} what the vendors publish:", *lacking]) if lacking else ""


def heading(specs: Path, seed: int) -> str:
    """When, with which versions of what, and the head of the table."""
    sums = (f"`{name}` {sha256((specs / name).read_bytes()).hexdigest()[:12]}" for name in FILES)
    return (
        f"`make conformance SEED={seed}`, {datetime.now(UTC):%Y-%m-%d}, Python "
        f"{platform.python_version()}, `openai` {version('openai')}, `qstash` {version('qstash')}; "
        f"descriptions (sha256): {', '.join(sums)}:\n\n{HEAD}"
    )


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--specs", type=Path)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--without", action="append", default=[], metavar="PART")
    arguments = parser.parse_args()
    if complaint := missing(arguments.specs):
        print(complaint, file=sys.stderr)
        return 2
    logging.getLogger().addHandler(logging.NullHandler())
    sys.stdout = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the stand-ins print is not the table
    todo = parts(arguments.specs, arguments.seed)
    if unknown := set(arguments.without) - todo.keys():
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(todo)}")
    began = time.monotonic()
    print(heading(arguments.specs, arguments.seed), flush=True)
    rows = []
    for title, part in todo.items():
        if title in arguments.without:
            print(Row(title, 0, 0, "left out with --without"), flush=True)
        else:
            rows += outcome(title, part)
    held, excused, amiss = (
        sum(getattr(row, name) for row in rows) for name in ("passed", "excused", "wrong")
    )
    print(
        f"\n{(time.monotonic() - began) / 60:.0f} minutes. {held:,} hold, {excused:,} don't, for "
        f"the reasons given, and {amiss:,} are wrong."
    )
    return int(amiss > 0)


if __name__ == "__main__":
    sys.exit(main())
