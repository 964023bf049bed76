"""The documents are true: the layout, every link, and the task that the README prints."""

from pathlib import Path

import httpx
import pytest

from tests.documents import (
    DOCUMENTS,
    copy_with_another_task,
    is_option,
    layout,
    leads_somewhere,
    links,
    listed_files,
    modules,
    readme_task,
)
from tests.processes import ROOT, start_stack, wait_for

PRODUCT = ["page", "common", "webhook_service"]


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


def test_the_printed_task_runs_through_the_whole_stack(tmp_path: Path) -> None:
    copy = copy_with_another_task(tmp_path, readme_task())

    with start_stack(tmp_path, copy, QSTASH_DELAY="1s", PYTHONPATH="") as stack:
        accepted = httpx.post(
            f"{stack.service_url}/analyze", json={"city": "Porto", "days": 2, "pace": "easy"}
        )
        url = stack.service_url + accepted.headers["Location"]
        wait_for(lambda: httpx.get(url).json()["status"] == "completed")
        result = httpx.get(url).json()["result"]
        refused = httpx.post(f"{stack.service_url}/analyze", json={"city": "Porto", "days": 9})

    assert result["overview"]
    assert set(result["stops"][0]) == {"place", "reason"}
    assert [error["field"] for error in refused.json()["errors"]] == ["days", "pace"]
