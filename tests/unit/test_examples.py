"""Each example can replace `common/task.py`, and the one in use can be used."""

import ast
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import openai
import pytest

from common.strict_schema import strict_problems
from common.tasks import Task
from tests.processes import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
TASK_FILES = [ROOT / "common" / "task.py", *EXAMPLES]
each_task_file = pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: path.stem)


def load(path: Path) -> Task:
    """Run the file itself: `common.task` is the tests' own."""
    spec = spec_from_file_location(f"{path.stem}_of_a_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    task = module.TASK
    assert isinstance(task, Task)
    return task


def imported(path: Path) -> set[str]:
    """The modules that a file imports."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return modules


def test_there_are_three() -> None:
    assert len(EXAMPLES) == 3


@each_task_file
def test_its_examples_come_back_from_json(path: Path) -> None:
    task = load(path)

    sent = [example.model_dump_json(by_alias=True) for example in task.examples]
    answered = task.example_result.model_dump_json(by_alias=True)

    assert tuple(map(task.form.model_validate_json, sent)) == task.examples
    assert len(task.examples) == 2, "to choose from"
    assert task.result.model_validate_json(answered) == task.example_result


@each_task_file
def test_strict_mode_takes_its_schema(path: Path) -> None:
    function = openai.pydantic_function_tool(load(path).result)["function"]

    assert strict_problems(function["parameters"]) == []


@each_task_file
def test_it_imports_nothing_but_the_core_and_what_is_always_there(path: Path) -> None:
    ours = {"common.form", "common.questions", "common.result", "common.tasks"}

    assert imported(path) - ours - {"pydantic"} - sys.stdlib_module_names == set()


def test_no_two_are_alike() -> None:
    tasks = [load(path) for path in EXAMPLES]  # the one in use may be a copy of one

    for name in ("fingerprint", "name", "icon", "noun", "headline", "instructions"):
        assert len({getattr(task, name) for task in tasks}) == len(tasks), name
