"""The README is true: its settings, its layout, and its change of the form and the answer."""

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
TRY_THE_PAGE = """
from streamlit.testing.v1 import AppTest
page = AppTest.from_file("streamlit_app.py", default_timeout=20).run()
page.text_input[0].set_value("Ada")
page.text_input[1].set_value("Build an engine")
page.text_area[0].set_value("I sketch machines and like long walks.")
page.button[0].click().run()
print(page.title[0].value, page.exception)
"""


@pytest.mark.parametrize("folder", ["page", "common", "webhook_service"])
def test_the_layout_lists_every_file(folder: str) -> None:
    layout = README.partition("## Layout")[2].partition("\n## ")[0]

    for path in (ROOT / folder).glob("*.py"):
        assert path.name == "__init__.py" or f"  {path.name}" in layout


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
        page = subprocess.run(
            [sys.executable, "-c", TRY_THE_PAGE],
            cwd=copy,
            env=stack.process_of("gunicorn").environ() | {"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )

    assert result["firstStep"]
    assert page.stdout.strip() == "Your request is in the queue ElementList()", page.stderr
