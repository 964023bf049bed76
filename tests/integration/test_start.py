"""A process whose settings are wrong ends with a sentence, and no traceback."""

from pathlib import Path

import pytest

from tests.processes import ROOT, python_path, run_python


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "common", "page"], id="page"),
        pytest.param(["-m", "common", "service"], id="service"),
        pytest.param(["-m", "local_stack"], id="local stack"),
    ],
)
def test_an_env_file_that_is_unreadable_is_named(command: list[str], tmp_path: Path) -> None:
    assert_names_the_unreadable_env_file(command, tmp_path)


@pytest.mark.parametrize("process", ["page", "service"])
def test_each_missing_or_wrong_setting_is_named(process: str) -> None:
    wrong = {"QSTASH_DELAY": "never", "LOG_LEVEL": "loud", "LOG_FORMAT": "xml"}

    ended = run_python(["-m", "common", process], ROOT, **wrong)

    assert ended.returncode == 1
    said = dict(line[2:].split(": ", 1) for line in ended.stderr.splitlines() if ": " in line)
    assert said["QSTASH_TOKEN"] == "missing"
    assert said["QSTASH_DELAY"].startswith("write a number")
    assert "'DEBUG', 'INFO', 'WARNING' or 'ERROR'" in said["LOG_LEVEL"]
    assert "'auto', 'json' or 'console'" in said["LOG_FORMAT"]
    assert "Traceback" not in ended.stderr + ended.stdout


def assert_names_the_unreadable_env_file(command: list[str], directory: Path) -> None:
    (directory / ".env").write_bytes(b"OPENAI_API_KEY=schl\xfcssel\n")

    ended = run_python(command, directory, PYTHONPATH=python_path(ROOT))

    assert ended.returncode != 0
    assert ".env: this file can't be read (not UTF-8 text)" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
