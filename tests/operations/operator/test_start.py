"""A command whose settings are wrong ends with a sentence, and no traceback."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_start import assert_names_the_unreadable_env_file
from tests.processes import ROOT, bare_environment, python_path


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "operations", "doctor"], id="operator"),
        pytest.param(["-m", "operations.smoke"], id="smoke"),
    ],
)
def test_an_env_file_that_is_unreadable_is_named(command: list[str], tmp_path: Path) -> None:
    assert_names_the_unreadable_env_file(command, tmp_path)


def test_a_wrong_setting_of_an_option_is_named_before_anybody_comes(tmp_path: Path) -> None:
    settings = {
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "QSTASH_TOKEN": "token",
        "QSTASH_WEBHOOK_URL": "https://service.example/webhook",
        "HISTORY_DAYS": "0",
    }

    ended = subprocess.run(
        [sys.executable, "-m", "page"],
        env=bare_environment(tmp_path, PYTHONPATH=python_path(ROOT), **settings),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert "HISTORY_DAYS" in ended.stderr
    assert "Traceback" not in ended.stderr
