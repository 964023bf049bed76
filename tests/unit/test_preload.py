"""What a first visitor's browser is told to load, from what Streamlit says of its files."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import pytest
import streamlit as st
from pydantic import Field

from common.form import Form, questions
from page.preload import scripts, sooner

STATIC = Path(st.__file__).parent / "static"
INDEX = (STATIC / "index.html").read_text()


class One(Form):
    """One question of each kind that has scripts of its own."""

    line: Annotated[str, Field(max_length=9)]
    area: Annotated[str, Field(max_length=900)]
    number: int
    few: Literal["a", "b"]
    many: Literal["a", "b", "c", "d", "e", "f"]


class Bare(Form):
    """A question alone."""

    line: Annotated[str, Field(max_length=9)]


def names(form: type[Form], static: Path = STATIC) -> set[str]:
    """The scripts without folder and hash."""
    found = scripts(questions(form), static)
    return {Path(name).name.partition(".")[0] for name in found}


def test_names_the_scripts_of_a_forms_elements_and_what_they_import() -> None:
    assert {"TextInput", "TextArea", "NumberInput", "Radio", "Selectbox", "Html"} <= names(One)
    assert {"TextInput", "useTextField", "BidiComponent", "serialization"} <= names(Bare)
    assert not {"TextArea", "NumberInput", "Radio", "Selectbox"} & names(Bare)


def test_names_files_that_are_there_and_that_streamlit_does_not_name_itself() -> None:
    found = scripts(questions(One), STATIC)

    assert found
    assert [name for name in found if not (STATIC / name).is_file()] == []
    assert [name for name in found if name in INDEX] == []
    assert len(set(found)) == len(found)


@pytest.mark.parametrize(
    "change",
    [
        Path.unlink,
        lambda path: path.write_text("no JSON"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text('{"index.html": {}, "x/TextInput.tsx": []}'),
        lambda path: path.write_text('{"index.html": {"imports": ["gone.js"]}}'),
    ],
    ids=["gone", "no JSON", "a list", "other entries", "an import without entry"],
)
def test_names_none_when_the_list_of_files_is_not_as_we_know_it(
    change: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "manifest.json"
    path.write_text("{}")
    change(path)

    assert scripts(questions(One), tmp_path) == []
    assert "<title>" in sooner(INDEX, questions(One), tmp_path)


def test_leaves_out_an_element_that_has_another_name_now(tmp_path: Path) -> None:
    known = {"index.html": {"file": "i.js"}, "x/Html.tsx": {"file": "h.js"}}
    (tmp_path / "manifest.json").write_text(json.dumps(known))

    assert scripts(questions(One), tmp_path) == ["h.js"]


def test_the_font_comes_after_the_scripts_that_draw_text_and_before_those_of_the_form() -> None:
    page = sooner(INDEX, questions(One), STATIC)

    links = re.findall(r'<link\s[^>]*href="./([^"]+)"', page)
    fonts = [link for link in links if link.endswith(".woff2")]
    own = [Path(link).name for link in scripts(questions(One), STATIC)]
    names = [Path(link).name for link in links]
    assert len(fonts) == 1
    assert names[-len(own) - 1 :] == [Path(fonts[0]).name, *own]


def test_a_page_without_a_font_stays_without() -> None:
    assert ".woff2" not in sooner("<head></head>", [], STATIC)
