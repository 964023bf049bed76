"""What the documents say, for the tests that hold it against the files."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from tests.processes import ROOT

README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
OPTIONS = ("operations", "tests/operations")  # may be deleted, and all that is said of them stays


def is_option(path: str) -> bool:
    return path.startswith(OPTIONS)


def section(document: str, title: str) -> str:
    return document.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def layout() -> list[str]:
    """The folders that the README lists."""
    return re.findall(r"(?m)^(\w+)/ ", section(README, "Layout"))


def listed_files() -> set[str]:
    """The files that docs/architecture.md lists, and some folders."""
    return set(re.findall(r"(?m)^\| `([\w/.]+)` \|", section(ARCHITECTURE, "Files")))


def modules(folder: str) -> set[str]:
    """What is to be listed of a folder of the product."""
    present = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
    return {path for path in present if not re.search(r"/versions/|/__init__\.py$", path)}


def links(document: Path) -> Iterator[tuple[str, str]]:
    """Where a document's links lead within the project: path and heading."""
    for link in re.findall(r"\]\((?!https?:|\./\))([^)\s]+)\)", document.read_text()):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        yield target.relative_to(ROOT).as_posix(), anchor


def leads_somewhere(path: str, anchor: str) -> bool:
    target = ROOT / path
    return target.exists() and (not anchor or anchor in slugs(target))


def slugs(document: Path) -> set[str]:
    """The names under which GitHub links the headings of a document."""
    headings = re.findall(r"(?m)^#+ (.+)$", document.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def readme_task() -> str:
    """The task that the README prints."""
    (source,) = re.findall(r"```python\n(.*?)```", section(README, "Make it yours"), re.DOTALL)
    return str(source)


def copy_project(copy: Path) -> None:
    """Copy all but what a machine makes. Times are kept: what is compiled and cached stays good."""
    being_written = "*.pyc.*"
    ignored = shutil.ignore_patterns(".venv*", ".local", ".git", ".env", ".*_cache", being_written)
    shutil.copytree(ROOT, copy, ignore=ignored)


def copy_with_another_task(directory: Path, source: str) -> Path:
    """A copy of the project with this text as its `common/task.py`."""
    copy = directory / "copy"
    copy_project(copy)
    (copy / "common" / "task.py").write_text(source)
    return copy
