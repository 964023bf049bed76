"""The checks and the unit tests pass with any task in place: nothing else knows what it asks."""

import os
import subprocess
from pathlib import Path

import pytest

from common.failures import Failure, Limit
from tests.journey import copy_with, example_files, load, words_of_others
from tests.processes import passed_on

EXAMPLES = example_files()
# The unit tests take half a minute: `make test` runs them with one task, `make examples` with each.
RICHEST = [path for path in EXAMPLES if path.stem == "resume_feedback"]
FOR_UNIT_TESTS = EXAMPLES if os.environ.get("EXAMPLES") == "all" else RICHEST


@pytest.fixture
def copy(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The project with one of the examples in place of its task."""
    return copy_with(request.param, tmp_path / "copy")


def name_of(path: Path) -> str:
    return path.stem


def make(target: str, copy: Path, **settings: str) -> str:
    """Run a target as a developer would, who has no PYTHONPATH."""
    ended = subprocess.run(
        ["make", "--no-print-directory", "--old-file=.venv/installed", target],
        cwd=copy,
        env={**passed_on(), "PYTHONPATH": "", "HOME": str(copy.parent), **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("copy", EXAMPLES, ids=name_of, indirect=True)
def test_every_check_passes(copy: Path, pytestconfig: pytest.Config) -> None:
    """What mypy has found in one copy it need not look for in the next one, nor in the next run."""
    cache = pytestconfig.cache
    assert cache, "pytest keeps one"

    make("check", copy, MYPY_CACHE_DIR=str(cache.mkdir("mypy-of-examples")))


@pytest.mark.parametrize("copy", FOR_UNIT_TESTS, ids=name_of, indirect=True)
def test_every_unit_test_passes(copy: Path) -> None:
    make("unit", copy)


@pytest.mark.parametrize("path", EXAMPLES, ids=name_of)
def test_no_reason_is_about_another_task(path: Path) -> None:
    reasons = [each.sentence for each in (*Failure, *Limit)]
    next_steps = [failure.next_step for failure in Failure]

    assert words_of_others(load(path), *reasons, *next_steps) == set()
