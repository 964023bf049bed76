"""The checks and the unit tests pass with any task in place: nothing else knows what it asks."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from common.failures import Failure, Limit
from tests.journey import copy_with, example_files, load, words_of_others
from tests.processes import ROOT, passed_on

EXAMPLES = example_files()
# `make test` tries one task, and of the unit tests those that name its file: the others have the
# toy in its place. What the checks find in the other examples they find in `examples/` as well.
# `make examples` tries all of it.
IS_ALL = os.environ.get("EXAMPLES") == "all"
IN_PLACE = [path for path in EXAMPLES if IS_ALL or path.stem == "resume_feedback"]
NAMES_THE_FILE = re.compile(r"common\.task\b|task\.py|PYTHONPATH|python_path")


def name_of(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module", params=IN_PLACE, ids=name_of)
def copy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with one of the examples in place of its task."""
    return copy_with(request.param, tmp_path_factory.mktemp("examples") / "copy")


def run(copy: Path, *command: str, **settings: str) -> None:
    """Run a command as a developer would, who has no PYTHONPATH."""
    ended = subprocess.run(
        command,
        cwd=copy,
        env={**passed_on(), "PYTHONPATH": "", "HOME": str(copy.parent), **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


MAKE = ("make", "--no-print-directory", "--old-file=.venv/installed")


def test_every_check_passes(copy: Path, pytestconfig: pytest.Config) -> None:
    """What mypy has found in one copy it need not look for in the next one, nor in the next run."""
    cache = pytestconfig.cache
    assert cache, "pytest keeps one"

    run(copy, *MAKE, "check", MYPY_CACHE_DIR=str(cache.mkdir("mypy-of-examples")))


def test_every_unit_test_passes(copy: Path) -> None:
    if IS_ALL:
        run(copy, *MAKE, "unit")
        return
    files = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests" / "unit").glob("test_*.py"))
        if NAMES_THE_FILE.search(path.read_text())
    ]
    assert "tests/unit/test_examples.py" in files
    run(copy, ".venv/bin/python", "-m", "pytest", *files)


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_no_reason_is_about_another_task(path: Path) -> None:
    reasons = [each.sentence for each in (*Failure, *Limit)]
    next_steps = [failure.next_step for failure in Failure]

    assert words_of_others(load(path), *reasons, *next_steps) == set()
