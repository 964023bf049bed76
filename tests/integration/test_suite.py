"""What the tests promise about themselves."""

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT

CONFTEST = "from tests.tries import pytest_collection_modifyitems, pytest_terminal_summary\n"
SUITE = """
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def fail_at_first(name, times):
    with (HERE / name).open("a+") as tries:
        tries.write("x")
        tries.seek(0)
        assert len(tries.read()) > times, "a busy machine"


@pytest.fixture
def opened():
    yield
    fail_at_first("teardown", 1)


@pytest.mark.browser
@pytest.mark.parametrize("times", [0, 1, 2])
def test_in_a_browser(times):
    fail_at_first(f"browser-{times}", times)


@pytest.mark.browser
def test_in_a_browser_that_fails_at_its_end(opened): ...


def test_of_another_kind():
    fail_at_first("other", 1)
"""


def test_only_browser_tests_are_tried_once_more_and_are_listed(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_tries.py").write_text(SUITE)
    options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), "-n", "1"]
    plugins = ("no:cacheprovider", "xdist", "pytest_rerunfailures")

    run = subprocess.run(
        [sys.executable, "-m", "pytest", *(f"-p{name}" for name in plugins), *options, tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    tries = {
        path.name: len(path.read_text())
        for path in tmp_path.iterdir()
        if path.is_file() and not path.suffix
    }
    again = [line for line in run.stdout.splitlines()[-5:] if line.startswith("Tried again: ")]
    assert tries == {"browser-0": 1, "browser-1": 2, "browser-2": 2, "teardown": 2, "other": 1}
    assert sorted(line.rpartition("::")[2] for line in again) == [
        "test_in_a_browser[1]: AssertionError: a busy machine",
        "test_in_a_browser[2]: AssertionError: a busy machine",
        "test_in_a_browser_that_fails_at_its_end: AssertionError: a busy machine",
    ]
    assert "2 failed" in run.stdout, "what fails twice, or is of another kind, fails"
