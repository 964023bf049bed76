"""What docs/task.md and the README say of a task is true, and what else is printed still fits."""

import re
import subprocess
from collections.abc import Iterator
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import openai
import pytest
from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from common.questions import Kind, Question, ask, is_optional
from common.result import Result, Short
from common.strict_schema import strict_problems
from common.tasks import Task
from tests.documents import is_option, readme_task, section
from tests.processes import ROOT

DOCUMENT = (ROOT / "docs" / "task.md").read_text()


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Step(Result):
    step: str


NAMES = {kind.__name__: kind for kind in (str, int, float, bool, list, date, Size, Step, Field)} | {
    "Annotated": Annotated,
    "Literal": Literal,
    "Short": Short,
}


def types(title: str) -> Iterator[Any]:
    """Read the first column of the first table below a heading."""
    rows = section(DOCUMENT, title).partition("\n\n`")[0]
    for cell in re.findall(r"(?m)^\| (`.*?`) \|(?: |$)", rows):
        for code in re.findall(r"`(.+?)`", cell):
            yield eval(code.replace(r"\|", "|"), {}, NAMES)


def asked(kind: Any) -> Question:
    return ask(
        "field", FieldInfo.from_annotated_attribute(kind, None if is_optional(kind) else ...)
    )


def test_every_way_to_ask_is_in_the_table() -> None:
    assert {asked(kind).kind for kind in types("What a form may have")} == {*Kind}


def test_every_type_of_a_result_is_one_that_strict_mode_takes() -> None:
    found = list(types("What a result may have"))
    fields: dict[str, Any] = {f"field_{n}": (kind, ...) for n, kind in enumerate(found)}

    model = create_model("Every", __base__=Result, **fields)

    function = openai.pydantic_function_tool(model)["function"]
    assert len(found) > 10
    assert strict_problems(function["parameters"]) == []


def test_a_longer_text_gets_an_area_from_where_the_table_says() -> None:
    assert "from 201 characters on" in DOCUMENT
    assert asked(Annotated[str, Field(max_length=200)]).kind is Kind.LINE
    assert asked(Annotated[str, Field(max_length=201)]).kind is Kind.AREA


def test_every_part_of_a_task_is_in_the_table() -> None:
    rows = re.findall(r"(?m)^\| (`.*?`) \|", section(DOCUMENT, "Its parts"))

    assert set(re.findall(r"`(\w+)`", " ".join(rows))) - {"Task"} == {*Task.__dataclass_fields__}


def test_the_readmes_task_can_work() -> None:
    namespace: dict[str, Any] = {"__name__": "readme"}

    exec(readme_task(), namespace)

    assert isinstance(namespace["TASK"], Task)


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_every_example_is_in_the_table(example: Path) -> None:
    assert f"\n| `{example.name}` |" in DOCUMENT


RECIPES = {name: (ROOT / "docs" / name).read_text() for name in ("files.md", "without.md")}


DIFFS = re.findall(r"(?s)```diff\n(.*?)```", "".join(RECIPES.values()))


@pytest.mark.parametrize("diff", DIFFS)
def test_every_printed_diff_still_applies(diff: str) -> None:
    command = ["git", "apply", "--check", "-"]

    subprocess.run(command, cwd=ROOT, input=diff, text=True, check=True)


def test_everything_that_is_to_be_deleted_is_there() -> None:
    (*deletions,) = re.findall(r"(?s)```sh\ngit rm (.*?)```", RECIPES["without.md"])
    paths = re.findall(r"[\w/.]+(?:/|\.)?[\w]+", " ".join(deletions).replace("-r ", ""))

    assert len(deletions) == 2
    assert [path for path in paths if not is_option(path) and not (ROOT / path).exists()] == []
