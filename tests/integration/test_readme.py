"""The documents are true: the layout, every link, and the README's change of form and answer."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.documents import (
    DOCUMENTS,
    copy_with_another_form,
    is_option,
    layout,
    leads_somewhere,
    links,
    listed_files,
    modules,
)
from tests.processes import ROOT, start_stack, wait_for

PRODUCT = ["page", "common", "webhook_service"]
TRY_THE_PAGE = """
from streamlit.testing.v1 import AppTest
page = AppTest.from_file("streamlit_app.py", default_timeout=20).run()
page.text_input[0].set_value("Ada")
page.text_input[1].set_value("Build an engine")
page.text_area[0].set_value("I sketch machines and like long walks.")
page.button[0].click().run()
print(page.title[0].value, page.exception)
"""


def test_the_readme_lists_every_folder() -> None:
    assert {*layout()} >= {*PRODUCT}
    assert all((ROOT / folder).is_dir() for folder in layout() if not is_option(folder))


@pytest.mark.parametrize("folder", PRODUCT)
def test_the_architecture_lists_every_file(folder: str) -> None:
    assert modules(folder) <= listed_files()


def test_every_file_that_the_architecture_lists_is_there() -> None:
    for path in listed_files():
        assert is_option(path) or (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(document: Path) -> None:
    for path, anchor in links(document):
        assert is_option(path) or leads_somewhere(path, anchor), (path, anchor)


def test_the_change_of_form_and_answer_works_as_printed(tmp_path: Path) -> None:
    copy = copy_with_another_form(tmp_path)

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
