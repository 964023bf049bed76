"""The documents are true: the layout, every link, and the README's change of form and answer."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.processes import ROOT, start_stack, wait_for

README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")]
PRODUCT = ["page", "common", "webhook_service", "operations"]
TRY_THE_PAGE = """
from streamlit.testing.v1 import AppTest
page = AppTest.from_file("streamlit_app.py", default_timeout=20).run()
page.text_input[0].set_value("Ada")
page.text_input[1].set_value("Build an engine")
page.text_area[0].set_value("I sketch machines and like long walks.")
page.button[0].click().run()
print(page.title[0].value, page.exception)
"""


def section(document: str, title: str) -> str:
    return document.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_readme_lists_every_folder() -> None:
    listed = re.findall(r"(?m)^(\w+)/ ", section(README, "Layout"))

    assert sorted(set(listed) & set(PRODUCT)) == sorted(PRODUCT)
    assert all((ROOT / folder).is_dir() for folder in listed)


@pytest.mark.parametrize("folder", PRODUCT)
def test_the_architecture_lists_every_file(folder: str) -> None:
    listed = set(re.findall(r"(?m)^\| `([\w/.]+)` \|", section(ARCHITECTURE, "Files")))
    present = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.py")}
    wanted = {path for path in present if not re.search(r"/versions/|/__init__\.py$", path)}

    assert wanted <= listed
    assert all((ROOT / path).exists() for path in listed)


def slugs(document: Path) -> set[str]:
    """The names under which GitHub links the headings of a document."""
    headings = re.findall(r"(?m)^#+ (.+)$", document.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|\./\))([^)\s]+)\)", document.read_text()):
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), link
        assert not anchor or anchor in slugs(target), link


def test_the_change_of_form_and_answer_works_as_printed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns(".venv", ".local", ".git", ".env", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, copy, ignore=ignored)
    (diff,) = re.findall(r"```diff\n(.*?)```", README, re.DOTALL)
    subprocess.run(["git", "apply", "-"], cwd=copy, input=diff, text=True, check=True)

    with start_stack(tmp_path, copy, QSTASH_DELAY="1s") as stack:
        answers = httpx.post(
            f"{stack.service_url}/analyze",
            json={"name": "Ada", "goal": "Build an engine", "description": "I sketch machines."},
        )
        url = stack.service_url + answers.headers["Location"]
        wait_for(lambda: httpx.get(url).json()["status"] == "completed")
        result = httpx.get(url).json()["result"]
        page, smoke = (
            subprocess.run(
                [sys.executable, *arguments],
                cwd=copy,
                env=stack.process_of("gunicorn").environ() | {"PATH": os.environ["PATH"]},
                capture_output=True,
                text=True,
                check=False,
            )
            for arguments in (["-c", TRY_THE_PAGE], ["-m", "operations.smoke"])
        )

    assert result["firstStep"]
    assert smoke.returncode == 0, smoke.stderr
    assert page.stdout.strip() == "Your request is in the queue ElementList()", page.stderr
