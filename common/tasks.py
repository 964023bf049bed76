"""What a task is made of, and the checks that it can work. The one in use is `common/task.py`."""

import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema

from common.environment import SettingsError
from common.fields import visible
from common.form import Form, questions
from common.questions import Question, Undrawable, ask
from common.result import Result
from common.strict_schema import Schema, resolve, strict_problems

TASK_FILE = "common/task.py"
TASK_PARTS = ("common", "task.py")
MAX_FORM_CHARACTERS = 200_000  # of all texts together: the page takes messages of up to 1 MB
ESCAPED = 12  # bytes of a character in JSON at most: an emoji as two `\uXXXX`
WORDS_ONLY = ("title", "description", "examples")  # what may be reworded in a schema


Problem = tuple[str, str]  # which field, and what is wrong with it


class TaskError(SettingsError):
    """The task can't work; the text says what is wrong with which field, a line for each."""


@dataclass(frozen=True)
class Task:
    """All that is particular to one product. Raises: TaskError when it can't work."""

    name: str  # of the product
    icon: str  # an emoji, in the tab of the form
    noun: str  # what a person gets: "your analysis", "writing your analysis"
    headline: str  # over the form
    description: str  # one sentence: what one writes and what one gets
    instructions: str  # to the model, which gets the form as JSON
    examples: tuple[Form, ...]  # to be tried on the page; the first is sent by `make smoke`
    example_result: Result
    form: type[Form]
    result: type[Result]

    def __post_init__(self) -> None:
        if found := list(_problems(self)):
            lines = "".join(f"\n  {path or 'TASK'}: {why}" for path, why in found)
            raise TaskError(f"{TASK_FILE} can't work yet:{lines}")

    @property
    def example(self) -> Form:
        """The first: for what needs just one."""
        return self.examples[0]

    @cached_property
    def fingerprint(self) -> str:
        """Names the shape of form and result: the same as long as only words are changed."""
        shape = [_shape(self.form.model_json_schema()), _shape(self.result.model_json_schema())]
        return sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def max_input_bytes(self) -> int:
        """How large a legal input can be in JSON, however it is escaped and indented."""
        return 16_384 + ESCAPED * sum(map(_characters, questions(self.form)))


def load_task() -> Task:
    """Return the task of `common/task.py`. Raises: TaskError, with a sentence for each problem."""
    try:
        with warnings.catch_warnings():
            # pydantic warns of names that hide its own, which the task is refused for.
            warnings.simplefilter("ignore", UserWarning)
            module = import_module("common.task")
    except TaskError:
        raise
    except ValidationError as error:  # an example that breaks its own model
        lines = "".join(
            f"\n  {'.'.join(map(str, (error.title, *problem['loc'])))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise TaskError(f"{TASK_FILE}{_line(error)} can't work yet:{lines}") from error
    except Exception as error:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        why = text.strip().partition("\n")[0] or type(error).__name__
        if "unsupported operand type(s) for |" in why:
            why += "; is a field called like its type, as in `date: date | None`?"
        raise TaskError(f"{TASK_FILE}{_line(error)} can't work yet: {why}") from error
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise TaskError(f"{TASK_FILE} can't work yet: TASK must be a Task")
    return task


def _line(error: BaseException) -> str:
    """Where in the task's file an error comes from, if it does."""
    if isinstance(error, SyntaxError) and Path(error.filename or "").parts[-2:] == TASK_PARTS:
        return f", line {error.lineno},"
    frames = extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).parts[-2:] == TASK_PARTS]
    return f", line {lines[-1]}," if lines else ""


def _problems(task: Task) -> Iterator[Problem]:
    for name in ("name", "icon", "noun", "headline", "description", "instructions"):
        value = getattr(task, name)
        if not isinstance(value, str) or not visible(value).strip():
            yield name, "needs a text"
    for name, base, check in (("form", Form, _form_problems), ("result", Result, _result_problems)):
        model = getattr(task, name)
        if not (isinstance(model, type) and issubclass(model, base)):
            yield name, f"must be a class that derives from {base.__name__}"
            continue
        found = list(_model_problems(model, base))
        yield from found or check(task)


def _model_problems(model: type[BaseModel], base: type[BaseModel]) -> Iterator[Problem]:
    name = model.__name__
    if not model.model_fields:
        yield name, "needs a field"
    for private in model.__private_attributes__:
        yield f"{name}.{private}", "is no field, as its name begins with an underscore"
    keys = [field.alias for field in model.model_fields.values()]
    for attribute, field in model.model_fields.items():
        if attribute in dir(base):
            yield f"{name}.{attribute}", f"hides an attribute of {base.__name__}; rename it"
        if keys.count(field.alias) > 1:
            yield f"{name}.{attribute}", f"is called {field.alias} in JSON, as another field is"


def _form_problems(task: Task) -> Iterator[Problem]:
    form = task.form
    wrong = list(_example_problems(task))
    yield from wrong
    asked = []
    for name, field in form.model_fields.items():
        try:
            asked.append(ask(name, field))
        except Undrawable as error:
            yield f"{form.__name__}.{name}", str(error)
    if wrong or len(asked) < len(form.model_fields):
        return
    if sum(map(_characters, asked)) > MAX_FORM_CHARACTERS:
        yield form.__name__, f"its texts have more than {MAX_FORM_CHARACTERS:,} characters together"
    first, *others = (
        each.model_dump(mode="json", by_alias=True, warnings=False) for each in task.examples
    )
    for question in asked:
        if not form.model_fields[question.name].is_required():
            given = {**first, question.key: question.default}
            for where, why in _misfits(form, given):
                if f"{where}.".startswith(f"{form.__name__}.{question.key}."):
                    yield f"{form.__name__}.{question.name}", f"its default can't be used: {why}"
    for example in (first, *others):
        yield from _misfits(form, example)


def _example_problems(task: Task) -> Iterator[Problem]:
    if not isinstance(task.examples, tuple) or not task.examples:
        yield "examples", "needs at least one, in brackets: `examples=(…,)`"
    elif any(type(example) is not task.form for example in task.examples):
        yield "examples", f"must be of {task.form.__name__}"


def _misfits(model: type[BaseModel], values: object) -> Iterator[Problem]:
    try:
        model.model_validate(values)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            yield ".".join(map(str, (model.__name__, *problem["loc"]))), problem["msg"]


def _result_problems(task: Task) -> Iterator[Problem]:
    result = task.result
    if type(task.example_result) is not result:
        yield "example_result", f"must be of {result.__name__}"
    try:
        schema = _as_the_sdk_makes_it(result.model_json_schema())
    except PydanticInvalidForJsonSchema as error:
        yield result.__name__, f"JSON can't hold one of its types: {error.message}"
        return
    except RecursionError:
        why = "a field or item that may hold its own kind can have no description or default"
        yield result.__name__, why
        return
    for problem in strict_problems(schema):
        where = f"{result.__name__}.{problem.path}".rstrip(".")
        yield where, f"OpenAI would refuse it: {problem.why}"


def _as_the_sdk_makes_it(schema: Schema, root: Schema | None = None) -> Schema:
    """Do what OpenAI's SDK does to a schema before it is sent.

    All fields are required and no others allowed; a reference that isn't alone, as it has a
    description, is replaced by what it stands for. Raises: RecursionError for one within itself.
    """
    root = root or schema
    made = {key: value for key, value in schema.items() if (key, value) != ("default", None)}
    for keyword in ("properties", "$defs"):
        if keyword in made:
            inner = made[keyword].items()
            made[keyword] = {name: _as_the_sdk_makes_it(each, root) for name, each in inner}
    if "items" in made:
        made["items"] = _as_the_sdk_makes_it(made["items"], root)
    if "anyOf" in made:
        made["anyOf"] = [_as_the_sdk_makes_it(option, root) for option in made["anyOf"]]
    if "properties" in made:
        made["required"] = list(made["properties"])
    if made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    if "$ref" in made and len(made) > 1:
        made = {**resolve(made, root), **made}
        del made["$ref"]
        return _as_the_sdk_makes_it(made, root)
    return made


def _characters(question: Question) -> int:
    """How many characters an answer has at most, its name included."""
    room = len(question.key) + 32
    if question.kind.is_text:
        return room + int(question.at_most)
    return room + sum(len(str(option)) + 8 for option in question.options)


def _shape(schema: Any) -> Any:
    """A schema without what may be reworded."""
    if isinstance(schema, list):
        return [_shape(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: value for key, value in schema.items() if key not in WORDS_ONLY}
    if isinstance(schema.get("properties"), dict):  # where these are names of fields
        kept["properties"] = {key: _shape(value) for key, value in schema["properties"].items()}
    return {key: value if key == "properties" else _shape(value) for key, value in kept.items()}
