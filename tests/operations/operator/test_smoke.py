"""`make smoke`: one analysis when all is right, and a sentence for each thing that is not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from common.environment import SettingsError
from operations.doctor import Fault
from operations.smoke import run
from tests.processes import ROOT, Stack, bare_environment
from tests.smoke import settings_of
from tests.zygote import Zygote


def test_make_smoke_finds_the_running_stack_and_tells_each_state_and_the_result(
    stack: Stack, tmp_path: Path
) -> None:
    settings_path = stack.output_path.parent / "data" / "settings.env"

    ended = subprocess.run(
        ["sh", "-c", f"set -a; . {settings_path}; exec {sys.executable} -m operations.smoke"],
        cwd=ROOT,
        env=bare_environment(tmp_path, QSTASH_DELAY="1s"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert '"error"' not in ended.stderr
    for part in ("Redis answers", "QStash accepts", "service answers", "knows the model"):
        assert part in ended.stdout
    assert "pending, attempt 0" in ended.stdout
    assert "completed, attempt 1" in ended.stdout
    assert "local-stand-in wrote: " in ended.stdout


KEYS = "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"QSTASH_TOKEN": ""}, "QSTASH_TOKEN: missing"),
        ({"REDIS_URL": "redis://127.0.0.1:1"}, "Redis does not answer"),
        ({"QSTASH_URL": "http://127.0.0.1:1"}, "QStash does not answer (ConnectError: con"),
        ({KEYS[0]: "sig_other", KEYS[1]: "sig_another"}, "The signing keys are not QStash's"),
        ({"QSTASH_WEBHOOK_URL": "http://127.0.0.1:1/webhook"}, "Is the service running there?"),
        ({"OPENAI_MODEL": "no-such-model"}, "Check OPENAI_MODEL"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, "no answer from the AI service"),
    ],
    ids=str,
)
def test_what_is_not_right_is_told_before_anything_is_paid(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], told: str
) -> None:
    for name, text in (settings_of(stack) | changes).items():
        monkeypatch.setenv(name, text)
    with redis.Redis.from_url(settings_of(stack)["REDIS_URL"]) as client:
        before = set(client.scan_iter("analysis:{*"))

        with pytest.raises((Fault, SettingsError), match=re.escape(told)):
            run(print)

        assert not set(client.scan_iter("analysis:{*")) - before


def test_swapped_signing_keys_are_told(stack: Stack, tmp_path: Path, zygote: Zygote) -> None:
    settings = settings_of(stack)
    swapped = {KEYS[0]: settings[KEYS[1]], KEYS[1]: settings[KEYS[0]]}
    environment = bare_environment(tmp_path, **settings | swapped)

    ended = zygote.run(["-m", "operations.smoke"], ROOT, environment)

    assert ended.returncode != 0
    assert "keys are swapped" in ended.stderr
    assert "Traceback" not in ended.stderr
