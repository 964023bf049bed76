"""The documents are true about the options."""

from pathlib import Path

import pytest

from tests.documents import (
    DOCUMENTS,
    is_option,
    layout,
    leads_somewhere,
    links,
    listed_files,
    modules,
)
from tests.processes import ROOT


def test_the_readme_lists_their_folder() -> None:
    assert "operations" in layout()


def test_the_architecture_lists_every_file() -> None:
    assert modules("operations") <= listed_files()
    assert [path for path in listed_files() if is_option(path) and not (ROOT / path).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_to_them_leads_somewhere(document: Path) -> None:
    for path, anchor in links(document):
        assert not is_option(path) or leads_somewhere(path, anchor), (path, anchor)
