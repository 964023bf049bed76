"""What the import contracts in pyproject.toml can't say."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from common.form import questions
from tests.processes import ROOT
from tests.toy.task import TASK

PROCESSES = ["common", "page", "webhook_service"]
PRODUCT = [*PROCESSES, "operations", "local_stack"]
FILES = [ROOT / "streamlit_app.py"] + [
    path for folder in PRODUCT for path in sorted((ROOT / folder).rglob("*.py"))
]
BENCHMARKS = [  # the peers have a task of their own
    path for path in sorted((ROOT / "benchmarks").rglob("*.py")) if path.parent.name != "peers"
]
# All that works with any task. The toy's words stand for those of any: they don't change with it.
FOR_ANY_TASK = [
    *(path for path in FILES if path != ROOT / "common" / "task.py"),
    *BENCHMARKS,
    ROOT / "docs" / "settings_table.py",
]
OTHER_FILES = [
    path
    for folder in (*PRODUCT, "deploy")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in (".js", ".html", ".css", ".conf", ".json", ".yml")
]
GENERIC = {"name", "description"}  # words of many things
NOT_OURS = {"summary"}  # an element of HTML, and an annotation of Prometheus's alerts
# Where a package is not called what it is imported as:
DISTRIBUTIONS = {
    "dotenv": "python-dotenv",
    "flask_limiter": "flask-limiter",
    "google": "protobuf",
    "jwt": "pyjwt",
    "opentelemetry": "opentelemetry-api",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic-core",
    "pydantic_settings": "pydantic-settings",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imports(path: Path) -> set[str]:
    """The modules a file imports, whole names."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def packages(path: Path) -> set[str]:
    """`{"redis", "common"}`"""
    return {name.partition(".")[0] for name in imports(path)}


def words_of_the_toy() -> set[str]:
    """The names of its fields, in Python and in JSON, and their labels."""
    asked = questions(TASK.form)
    named = {word for question in asked for word in (question.name, question.key, question.label)}
    return (named | set(TASK.result.model_fields)) - GENERIC


def words_used(path: Path) -> Iterator[tuple[int, str]]:
    """Attributes, arguments and whole texts of a file, each with its line."""
    for node in nodes(path):
        if isinstance(node, ast.Attribute):
            yield node.lineno, node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.value.lineno, node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


@pytest.mark.parametrize(
    ("name", "may_know"),
    [
        ("streamlit_app.py", {"common", "page"}),
        ("webhook_service/gunicorn.conf.py", {"common", "webhook_service"}),
    ],
)
def test_the_two_files_that_are_no_modules_know_what_they_may(
    name: str, may_know: set[str]
) -> None:
    assert packages(ROOT / name) & {*PRODUCT, "tests"} <= may_know


def test_the_core_knows_the_interface_of_opentelemetry_and_not_its_sdk() -> None:
    # import-linter does not look into other people's packages.
    parts = tuple(f"opentelemetry.{part}" for part in ("sdk", "exporter", "instrumentation"))
    core = [path for path in FILES if name_of(path).partition("/")[0] != "operations"]

    known = {
        name_of(path): [name for name in imports(path) if name.startswith(parts)] for path in core
    }

    assert [(path, names) for path, names in known.items() if names] == []


def test_the_environment_is_read_in_one_module() -> None:
    # Setting is not reading.
    sources = {path: path.read_text().replace("os.environ.update(", "") for path in FILES}

    readers = [path for path in FILES if re.search(r"\benviron\b|\bgetenv\b", sources[path])]

    assert {path.name for path in readers} == {"environment.py"}


def test_only_packages_of_the_requirements_are_imported() -> None:
    pinned = {
        kind: (ROOT / f"requirements{kind}.txt").read_text()
        for kind in ("", "-dev", "-service", "-operator")
    }

    for path in FILES:
        kinds = {
            "local_stack": ["-dev"],
            "operations": ["-service", "-operator"],
            "page": [""],
            "streamlit_app.py": [""],
        }.get(name_of(path).partition("/")[0], ["-service"])
        for name in packages(path) - set(sys.stdlib_module_names) - set(PRODUCT):
            pin = f"\n{DISTRIBUTIONS.get(name, name)}=="
            assert any(pin in pinned[kind] for kind in kinds), f"{name_of(path)} imports {name}"


def test_the_service_has_the_versions_of_the_page() -> None:
    pins = [
        {line for line in (ROOT / name).read_text().splitlines() if "==" in line}
        for name in ("requirements-service.txt", "requirements.txt", "requirements-dev.txt")
    ]

    assert pins[0] < pins[1] < pins[2]


def test_no_field_of_a_task_is_named() -> None:
    words = words_of_the_toy()

    found = [(name_of(path), *use) for path in FOR_ANY_TASK for use in words_used(path)]

    assert [use for use in found if use[-1] in words] == []


def test_no_field_of_a_task_is_named_outside_python() -> None:
    words = "|".join(words_of_the_toy() - NOT_OURS)
    named = re.compile(rf"(?<![\w-])(?:{words})(?![\w-])")

    found = {name_of(path): named.findall(path.read_text()) for path in OTHER_FILES}

    assert [(path, words) for path, words in found.items() if words] == []


def test_a_task_is_known_by_its_one_name() -> None:
    known = [
        (name_of(path), name)
        for path in FOR_ANY_TASK
        for name in imports(path)
        if re.match(r"common\.task\b", name)
    ]

    assert known
    assert [use for use in known if use[1] != "common.task.TASK"] == []


def test_the_task_has_one_importer_in_common() -> None:
    common = [path for path in FILES if path.parent == ROOT / "common"]

    assert [path.name for path in common if "common.task.TASK" in imports(path)] == ["record.py"]
