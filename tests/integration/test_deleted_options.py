"""What is optional can be deleted: its files, its tests, and the lines that name it.

Those lines stand in two files, operations/__init__.py and operations/settings.py, where each part
has lines of its own.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.processes import ROOT, bare_environment

ALL = {"operations": ["operations", "tests/operations"]}
EACH = {
    "history": ["operations/history", "tests/operations/history"],
    "limits": ["operations/limit*", "tests/operations/limits"],
    "metrics": ["operations/metrics*", "tests/operations/metrics"],
    "tracing": ["operations/tracing*", "tests/operations/tracing"],
    "commands": [
        *("operations/__main__.py", "operations/cli*.py"),
        *("operations/doctor.py", "operations/smoke.py", "tests/operations/operator"),
    ],
}
NAMES = {"limits": "limit", "tracing": "tracing|otel", "commands": r"\bcli\b|doctor|smoke"}
CORE = ["access", "analyst", "api", "models", "routes", "signature", "submission", "worker"]
START = "from webhook_service import create_app; create_app()"
SETTINGS = {
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "QSTASH_TOKEN": "token",
    "QSTASH_WEBHOOK_URL": "https://service.example/webhook",
    "QSTASH_CURRENT_SIGNING_KEY": "sig_current_of_this_test",
    "QSTASH_NEXT_SIGNING_KEY": "sig_next_of_this_test",
    "OPENAI_API_KEY": "key",
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[str]]]:
    """What the core says without each, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        yield {
            part: pool.submit(try_without, part, files, tmp_path_factory.mktemp(part))
            for part, files in (ALL | EACH).items()
        }


@pytest.mark.parametrize("part", ALL | EACH)
def test_the_core_is_whole_without(outcomes: dict[str, Future[str]], part: str) -> None:
    assert outcomes[part].result() == ""


def try_without(part: str, files: list[str], directory: Path) -> str:
    """Run the core's tests, and start the service, in a copy that lacks a part.

    All tests are for the copy without any option; a part can only be missed where it was plugged
    in. Returns what went wrong.
    """
    copy = directory / "copy"
    ignored = shutil.ignore_patterns(".venv*", ".local", ".git", ".env", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    delete(copy, files)
    for name in ("__init__.py", "settings.py") if part in EACH else ():
        path = copy / "operations" / name
        path.write_text(without_lines_of(NAMES.get(part, part), path.read_text()))

    tests = [f"tests/unit/test_{name}.py" for name in CORE]
    wrong = run(copy, "-m", "pytest", "-q", *tests) if part in ALL else ""
    return wrong or run(copy, "-c", START)


def delete(root: Path, patterns: list[str]) -> None:
    """Each of the patterns finds something, or the part has moved."""
    for pattern in patterns:
        found = list(root.glob(pattern))
        assert found, f"nothing to delete: {pattern}"
        for path in found:
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


def run(directory: Path, *arguments: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-B", *arguments],
        cwd=directory,
        env=bare_environment(directory.parent, **SETTINGS),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return ended.stdout + ended.stderr if ended.returncode else ""
