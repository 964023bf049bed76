"""A command whose settings are wrong ends with a sentence, and no traceback."""

from pathlib import Path

import pytest

from tests.processes import ROOT, bare_environment, python_path
from tests.zygote import Zygote


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(["-m", "operations", "doctor"], id="operator"),
        pytest.param(["-m", "operations.smoke"], id="smoke"),
    ],
)
def test_an_env_file_that_is_unreadable_is_named(
    command: list[str], tmp_path: Path, zygote: Zygote
) -> None:
    (tmp_path / ".env").write_bytes(b"OPENAI_API_KEY=schl\xfcssel\n")

    environment = bare_environment(tmp_path, PYTHONPATH=python_path(ROOT))
    ended = zygote.run(command, tmp_path, environment)

    assert ended.returncode == 1
    assert ".env: this file can't be read (not UTF-8 text)" in ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout


def test_a_wrong_setting_of_an_option_is_named_before_anybody_comes(
    tmp_path: Path, zygote: Zygote
) -> None:
    settings = {
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "QSTASH_TOKEN": "token",
        "QSTASH_WEBHOOK_URL": "https://service.example/webhook",
        "HISTORY_DAYS": "0",
    }
    environment = bare_environment(tmp_path, PYTHONPATH=python_path(ROOT), **settings)

    ended = zygote.run(["-m", "page"], tmp_path, environment)

    assert ended.returncode == 1
    assert "HISTORY_DAYS" in ended.stderr
    assert "Traceback" not in ended.stderr
