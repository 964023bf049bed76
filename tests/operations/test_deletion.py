"""What is optional can be deleted: its files, its tests, and the lines that name it.

Those lines stand in two files, operations/__init__.py and operations/settings.py, where each part
has lines of its own.
"""

import re
import shutil
from pathlib import Path

import httpx
import pytest
import redis

from common.settings import DEVELOPMENT_TOKEN
from tests.conftest import NEIGHBOURS
from tests.http_server import answer, serve
from tests.processes import ROOT, bare_environment
from tests.product import COMMANDS, Server
from tests.zygote import Zygote

PARTS = {
    "history": ["operations/history", "tests/operations/history"],
    "limits": ["operations/limit*", "tests/operations/limits"],
    "metrics": ["operations/metrics*", "tests/operations/metrics"],
    "tracing": ["operations/tracing*", "tests/operations/tracing"],
    "commands": [
        *("operations/__main__.py", "operations/cli*.py"),
        *("operations/doctor.py", "operations/hints.py", "operations/smoke.py"),
        "tests/operations/operator",
    ],
}
NAMES = {"limits": "limit", "tracing": "tracing|otel", "commands": r"\bcli\b|doctor|smoke"}
OF_OPTIONS = {"DATABASE_URL": "postgres://of.a.host/app", "METRICS_TOKEN": "a-metrics-token-"}

START = """
import sys
from page.connection import connect
from webhook_service import create_app
assert "operations" not in sys.modules
sys.path.insert(0, sys.argv[1])
create_app()
connect()
assert sys.modules["operations"].__file__.startswith(sys.argv[1])
"""
# The library of the metrics reads this variable when imported, and writes files there.
WIRE_ALL = """
import os, sys
from webhook_service import create_app
for directory in ("", "/no/such/directory"):
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = directory
    create_app()
print(*sys.modules)
"""
SUBMIT_ON_THE_PAGE = """
from streamlit.testing.v1 import AppTest
page = AppTest.from_file("streamlit_app.py", default_timeout=20).run()
assert not page.exception
page.text_input[0].set_value("Ada")
page.number_input[0].set_value(36)
page.text_area[0].set_value("I sketch machines and like long walks.")
page.button("send").click().run()
assert not page.exception
"""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without any option, but with what git leaves of them: compiled files."""
    copy = tmp_path_factory.mktemp("core") / "copy"
    ignored = shutil.ignore_patterns(".venv*", ".local", ".git", ".env", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    for folder in ("operations", "tests/operations"):
        shutil.rmtree(copy / folder)
        (copy / folder / "__pycache__").mkdir(parents=True)
    return copy


def run(zygote: Zygote, directory: Path, *command: str, **settings: str) -> str:
    ended = zygote.run([*command], directory, bare_environment(directory, **NEIGHBOURS | settings))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_without_any_option_the_service_starts(core: Path, tmp_path: Path, zygote: Zygote) -> None:
    """And with nothing but its neighbours' settings; those of the options are ignored."""
    environment = bare_environment(tmp_path, **NEIGHBOURS, **OF_OPTIONS)
    log = tmp_path / "service.txt"
    server = Server(COMMANDS["service"], environment, log, core, zygote=zygote)
    server.start()

    health = httpx.get(f"{server.url}/health")
    metrics = httpx.get(f"{server.url}/metrics")
    server.stop()

    assert health.json() == {"status": "ok"}
    assert metrics.status_code == 404
    assert "Traceback" not in server.output


def test_without_any_option_the_page_takes_a_submission(
    core: Path, valkey: str, real_redis: redis.Redis, zygote: Zygote
) -> None:
    with serve(answer(201, {"messageId": "msg_1"})) as qstash:
        neighbours = {"REDIS_URL": valkey, "QSTASH_URL": qstash.url}
        run(zygote, core, "-c", SUBMIT_ON_THE_PAGE, **neighbours, QSTASH_TOKEN=DEVELOPMENT_TOKEN)

    assert len(qstash.requests) == 1
    assert [str(key).partition("{")[0] for key in real_redis.keys("*")] == ["analysis:"]


def test_without_any_option_the_tests_of_the_core_need_nothing_of_them(
    core: Path, zygote: Zygote
) -> None:
    """All of them are collected, which imports them; and a few are run."""
    some = ["-k", "test_worker.py or test_submission.py", "-W", "ignore:Module already imported"]
    told = run(zygote, core, "-m", "pytest", "-q", "tests", *some)

    assert re.search(r"\d\d passed, \d{4} deselected", told)


def test_what_is_off_is_not_imported(zygote: Zygote) -> None:
    # redis itself looks for OpenTelemetry's metrics, and imports them if they are installed.
    libraries = ("prometheus_client", "sqlalchemy", "opentelemetry.sdk.trace",
                 "opentelemetry.exporter", "opentelemetry.instrumentation")  # fmt: skip

    imported = run(zygote, ROOT, "-c", WIRE_ALL).split()

    assert "operations" in imported
    assert [name for name in imported if name.startswith(libraries)] == []
    assert not {"operations.metrics", "operations.tracing"} & {*imported}


@pytest.mark.parametrize("part", PARTS)
def test_without_one_option_service_and_page_start(
    part: str, tmp_path: Path, zygote: Zygote
) -> None:
    delete_part(part, PARTS[part], tmp_path)

    run(zygote, ROOT, "-c", START, str(tmp_path))


def delete_part(part: str, patterns: list[str], copy: Path) -> None:
    """Copy `operations/` without a part's files and lines.

    Each of the patterns finds something, or the part has moved.
    """
    shutil.copytree(ROOT / "operations", copy / "operations")
    for pattern in patterns:
        found = [path.relative_to(ROOT) for path in ROOT.glob(pattern)]
        assert found, f"nothing to delete: {pattern}"
        for path in found:
            if path.parts[0] == "operations":
                remove(copy / path)
    for name in ("__init__.py", "settings.py"):
        path = copy / "operations" / name
        path.write_text(without_lines_of(NAMES.get(part, part), path.read_text()))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def without_lines_of(name: str, source: str) -> str:
    """Leave out the lines that name a part, with what is indented below them."""
    kept: list[str] = []
    deleted: int | None = None  # the indentation of the line that was left out last
    for line in source.splitlines(keepends=True):
        indentation = len(line) - len(line.lstrip())
        if deleted is not None and (indentation > deleted or not line.strip()):
            continue
        deleted = indentation if re.search(name, line, re.IGNORECASE) else None
        if deleted is None:
            kept.append(line)
    return "".join(kept)
