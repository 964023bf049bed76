"""The core without its options: `operations/` deleted, or there and none of them asked for."""

import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import redis

from common.settings import DEVELOPMENT_TOKEN
from tests.conftest import WEBHOOK_URL
from tests.http_server import answer, serve
from tests.processes import ROOT, bare_environment
from tests.product import COMMANDS, Server

CORE = ["common", "page", "webhook_service", ".streamlit", "streamlit_app.py"]
NEIGHBOURS = {
    "REDIS_URL": "redis://127.0.0.1:1",
    "QSTASH_TOKEN": "token",
    "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
    "QSTASH_CURRENT_SIGNING_KEY": "sig_current_of_this_test",
    "QSTASH_NEXT_SIGNING_KEY": "sig_next_of_this_test",
    "OPENAI_API_KEY": "key",
}
OF_OPTIONS = {"DATABASE_URL": "postgres://of.a.host/app", "METRICS_TOKEN": "a-metrics-token-"}
WIRE_ALL = """
import sys
from webhook_service import create_app
create_app()
import common.submission
print(*sys.modules)
"""
SUBMIT_ON_THE_PAGE = """
from streamlit.testing.v1 import AppTest
page = AppTest.from_file("streamlit_app.py", default_timeout=20).run()
assert not page.exception
page.text_input[0].set_value("Ada")
page.number_input[0].set_value(36)
page.text_area[0].set_value("I sketch machines and like long walks.")
next(button for button in page.button if button.label == "Send request").click().run()
assert not page.exception
"""


@pytest.fixture
def core(tmp_path: Path) -> Path:
    """A copy without `operations/`, but with what git leaves of it: compiled files."""
    copy = tmp_path / "core"
    copy.mkdir()
    for name in CORE:
        if (ROOT / name).is_dir():
            no_caches = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=no_caches)
        else:
            shutil.copy(ROOT / name, copy / name)
    (copy / "operations" / "__pycache__").mkdir(parents=True)
    return copy


def run(code: str, directory: Path, home: Path, **settings: str) -> str:
    environment = bare_environment(home, **NEIGHBOURS | settings)
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def test_the_service_starts_with_nothing_but_its_four_neighbours_settings(
    core: Path, tmp_path: Path
) -> None:
    environment = bare_environment(tmp_path, **NEIGHBOURS, **OF_OPTIONS)
    server = Server(COMMANDS["service"], environment, tmp_path / "service.txt", core)
    server.start()

    health = httpx.get(f"{server.url}/health")
    metrics = httpx.get(f"{server.url}/metrics")
    server.stop()

    assert health.json() == {"status": "ok"}
    assert metrics.status_code == 404
    assert "Traceback" not in server.output


def test_the_page_takes_a_submission_with_nothing_but_its_neighbours_settings(
    core: Path, tmp_path: Path, valkey: str, real_redis: redis.Redis
) -> None:
    with serve(answer(201, {"messageId": "msg_1"})) as qstash:
        neighbours = {
            "REDIS_URL": valkey,
            "QSTASH_URL": qstash.url,
            "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
        }
        run(SUBMIT_ON_THE_PAGE, core, tmp_path, **neighbours)

    assert len(qstash.requests) == 1

    assert [str(key).partition("{")[0] for key in real_redis.keys("*")] == ["analysis:"]


@pytest.mark.parametrize("directory", ["", "/no/such/directory"])
def test_what_is_off_is_not_imported(tmp_path: Path, directory: str) -> None:
    """The library of the metrics reads this variable when imported, and writes files there."""
    # redis itself looks for OpenTelemetry's metrics, and imports them if they are installed.
    libraries = ("prometheus_client", "sqlalchemy", "opentelemetry.sdk.trace",
                 "opentelemetry.exporter", "opentelemetry.instrumentation")  # fmt: skip

    imported = run(WIRE_ALL, ROOT, tmp_path, PROMETHEUS_MULTIPROC_DIR=directory).split()

    assert "operations" in imported
    assert [name for name in imported if name.startswith(libraries)] == []
    assert not {"operations.metrics", "operations.tracing"} & {*imported}
