"""Upstash's own suites for its SDKs, Python and TypeScript, against the stand-in.

Each of their tests is chosen, or left out for a reason: one that is new upstream is neither, and
is wrong until somebody has looked at it.
"""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shutil import copy, which
from types import MappingProxyType

from common.settings import DEVELOPMENT_SIGNING_KEYS, DEVELOPMENT_TOKEN
from tests.conformance.around import Front, destinations, serve
from tests.conformance.chosen import CHOSEN, PYTHON, TYPESCRIPT, Reasons, reason_for
from tests.conformance.table import Row, wrong
from tests.processes import ROOT, start_stand_in

HERE = Path(__file__).parent
CACHE = ROOT / ".local" / "conformance"
PYTHON_COMMIT = "75c133af53ac2aff79cf0325c9eead0cda74af7c"  # 3.4.0, as pinned in requirements.txt
TYPESCRIPT_COMMIT = "81d951b5d5971deeba18ca21d0d6e4f4b903608e"  # July 2026

Outcomes = list[tuple[str, str]]  # of every test of a suite: its name, and PASSED or what else
PASSED = "passed"
NOT_PASSED = ("failure", "error", "skipped")


class NotRun(Exception):
    """Why a suite could not be run at all."""


def check_python() -> Iterator[Row]:
    with surroundings() as environment:
        yield row(f"`qstash-py` {PYTHON_COMMIT[:7]}", PYTHON, python(environment))


def check_typescript() -> Iterator[Row]:
    with surroundings() as environment:
        yield row(f"`qstash-js` {TYPESCRIPT_COMMIT[:7]}", TYPESCRIPT, typescript(environment))


@contextmanager
def surroundings() -> Iterator[dict[str, str]]:
    """Run the stand-in and all that the suites need; tells their environment."""
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    arrived: dict[str, str] = {}
    with (
        destinations(CACHE, arrived) as leading_here,
        start_stand_in("qstash_server", **leading_here) as stand_in,
        serve(Front, stand_in=stand_in.removeprefix("http://"), arrived=arrived) as front,
    ):
        current, following = DEVELOPMENT_SIGNING_KEYS
        yield {
            "QSTASH_URL": f"http://{front}",
            "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
            "QSTASH_CURRENT_SIGNING_KEY": current,
            "QSTASH_NEXT_SIGNING_KEY": following,
        }


def row(what: str, reasons: Reasons, outcomes: Outcomes) -> Row:
    """Count what was chosen and passed; the rest has a reason, or is wrong."""
    names = {name for name, _ in outcomes}
    gone = [(name, "not there") for name in reasons[CHOSEN] if name not in names]
    judged = [(name, outcome, reason_for(name, reasons)) for name, outcome in outcomes + gone]
    for name, outcome, reason in judged:
        if reason is None or (reason == CHOSEN and outcome != PASSED):
            wrong(what, f"{name}: {'nobody has looked at it' if reason is None else outcome}")
    left_out = Counter(reason for _, _, reason in judged if reason not in (CHOSEN, None))
    return Row(
        f"Upstash's own suite of its SDK {what}, on the stand-in",
        sum(reason == CHOSEN and outcome == PASSED for _, outcome, reason in judged),
        len(judged),
        ", ".join(f"{count} {reason}" for reason, count in left_out.most_common()),
        left_out.total(),
    )


def python(environment: Mapping[str, str]) -> Outcomes:
    """Upstash's Python suite, with the newest of what it asks for, apart from our own."""
    folder = checkout("qstash-py", PYTHON_COMMIT)
    interpreter = CACHE / "venv" / "bin" / "python"
    if not interpreter.exists():
        run([sys.executable, "-m", "venv", CACHE / "venv"])
    run([interpreter, "-m", "pip", "install", "--quiet", "-r", HERE / "qstash-py.txt"])
    pytest = [interpreter, "-m", "pytest", "--quiet", "-c", "pyproject.toml"]  # not our settings
    listed = run([*pytest, "--collect-only"], folder, environment)
    tests = [line for line in listed.splitlines() if "::" in line]
    chosen = [test for test in tests if reason_for(python_name(test), PYTHON) == CHOSEN]
    report = new_report("qstash-py.xml")
    run([*pytest, f"--junitxml={report}", *chosen], folder, environment, may_fail=True)
    ran = {
        f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}": outcome_of(case)
        for case in cases(report)
    }
    return [(python_name(test), ran.get(test, "not run")) for test in tests]


def python_name(test: str) -> str:
    """`tests/asyncio/test_message.py::test_timeout_async` is `message: timeout`."""
    module, function = Path(test).name.removeprefix("test_").split(".py::test_")
    return f"{module}: {function.removesuffix('_async')}"


def typescript(environment: Mapping[str, str]) -> Outcomes:
    """Upstash's TypeScript suite under bun, which it is written for."""
    folder = checkout("qstash-js", TYPESCRIPT_COMMIT)
    for name in ("package.json", "package-lock.json"):
        copy(HERE / "qstash-js" / name, CACHE / name)  # above the suite: it is looked for there
    run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], CACHE)
    words = [name.split(": ", 1)[1].replace(": ", " ") for name in TYPESCRIPT[CHOSEN]]
    report = new_report("qstash-js.xml")
    bun = [CACHE / "node_modules" / ".bin" / "bun", "test", "src"]
    only = ["--test-name-pattern", f"^({'|'.join(map(re.escape, words))})$"]
    written = ["--reporter=junit", f"--reporter-outfile={report}"]
    run([*bun, *only, *written], folder, environment, may_fail=True)
    return [(typescript_name(case), outcome_of(case)) for case in cases(report)]


def typescript_name(case: ET.Element) -> str:
    """`src/client/dlq.test.ts`, `DLQ`, `should …` is `dlq: DLQ: should …`."""
    module = case.attrib["file"].removesuffix(".test.ts").removeprefix("src/")
    group, name = case.attrib["classname"], case.attrib["name"]
    return f"{module.removeprefix('client/')}: {group}: {name}"


def new_report(name: str) -> Path:
    """Where a report is to be, without the last one."""
    (CACHE / name).unlink(missing_ok=True)
    return CACHE / name


def cases(report: Path) -> Iterator[ET.Element]:
    """The tests of a JUnit report."""
    return ET.parse(report).iter("testcase")


def outcome_of(case: ET.Element) -> str:
    return next((child.tag for child in case if child.tag in NOT_PASSED), PASSED)


def checkout(repository: str, commit: str) -> Path:
    """A repository of Upstash's at a commit, cloned once."""
    folder = CACHE / f"{repository}-{commit[:7]}"
    if not folder.exists():
        run(["git", "clone", "--quiet", f"https://github.com/upstash/{repository}", folder])
    run(["git", "checkout", "--quiet", "--force", commit], folder)
    return folder


def run(
    command: Sequence[object],
    folder: Path = ROOT,
    environment: Mapping[str, str] = MappingProxyType({}),
    may_fail: bool = False,
) -> str:
    """Run a program and return what it printed. Raises: NotRun."""
    words = [str(word) for word in command]
    if which(words[0]) is None:
        raise NotRun(f"{words[0]} is not installed")
    done = subprocess.run(
        words,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    if done.returncode and not may_fail:
        raise NotRun(f"{Path(words[0]).name} {words[1]} ended with {done.returncode}")
    return done.stdout
