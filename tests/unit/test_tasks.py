"""What a task is told when it can't work, and what is derived from one that can."""

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, computed_field, create_model, field_validator

from common.form import Form
from common.questions import Says
from common.result import Result, Short
from common.tasks import MAX_FORM_CHARACTERS, TaskError
from tests.processes import ROOT
from tests.toy.task import TASK

Text = Annotated[str, Field(max_length=80)]
T = TypeVar("T")
Some = Annotated[list[T], Field(min_length=1)]


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    LOW = 1


class Weight(Enum):
    LIGHT = 0.5


class Nothing(Enum):
    pass


class Written(Form):
    text: Text


class Answered(Result):
    text: str


class Nested(Result):
    text: str


class Plain(BaseModel):
    text: str


class Cat(Result):
    kind: Literal["cat"]


class Dog(Result):
    kind: Literal["dog"]


def problems_of(**changes: Any) -> list[str]:
    """What is said about the toy with these changes: a line for each problem."""
    try:
        replace(TASK, **changes)
    except TaskError as error:
        first, *lines = str(error).split("\n")
        assert first == "common/task.py can't work yet:"
        return [line.removeprefix("  ") for line in lines]
    return []


def form_of(kind: Any, default: Any = ...) -> Any:
    """A form with one field."""
    return create_model("Asked", __base__=Form, field=(kind, default))


def with_form(form: type[Form], **values: Any) -> list[str]:
    return problems_of(form=form, examples=(form.model_construct(**values),))


def with_result(result: type[Result], **values: Any) -> list[str]:
    return problems_of(result=result, example_result=result.model_construct(**values))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (bytes, "bytes"),
        (dict, "dict"),
        (dict[str, str], "dict[str, str]"),
        (Nested, "Nested"),
        (list, "list"),
        (list[Text], "str"),
        (list[list[Literal["a"]]], "list[Literal['a']]"),
        (list[Literal["a"] | None], "list[Optional[Literal['a']]]"),
        (tuple[int, int], "tuple[int, int]"),
        (set[Literal["a"]], "set[Literal['a']]"),
        (datetime, "datetime"),
        (Decimal, "Decimal"),
        (Any, "Any"),
        (object, "object"),
        (None, "NoneType"),
        (int | str, "int | str"),
        (Callable, "Callable"),
        (Literal["a", 1], "Literal['a', 1]"),
        (Literal["a", None], "Literal['a', None]"),
        (Literal[True, False], "Literal[True, False]"),
        (Literal[False], "Literal[False]"),
        (Weight, "Weight"),
        (Nothing, "Nothing"),
    ],
    ids=str,
)
def test_a_field_that_the_page_can_not_ask_for_is_named(kind: Any, name: str) -> None:
    assert with_form(form_of(kind)) == [
        f"Asked.field: the page can't ask for {name}; it can for str, int, float, bool, date, a "
        "Literal or an enum of texts or of whole numbers, and a list of such choices"
    ]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (str, "give this text a limit, as in Field(max_length=200)"),
        (Annotated[str, Field(min_length=2)], "give this text a limit"),
        (Text | None, "an optional field has None as its default: write `| None = None`"),
        (Literal["", "a"], "one of its choices is blank"),
        (list[Colour], "say how many: Field(min_length=1), or Field(default_factory=list)"),
    ],
    ids=str,
)
def test_a_field_that_lacks_something_says_what(kind: Any, said: str) -> None:
    (line,) = with_form(form_of(kind))

    assert line.startswith(f"Asked.field: {said}")


@pytest.mark.parametrize(
    ("kind", "value"),
    [(Level, 1), (Colour, "red"), (Some[Level], [1]), (Literal[1, 2], 2), (float, 1.5)],
    ids=str,
)
def test_a_form_that_can_be_asked_is_taken(kind: Any, value: object) -> None:
    form = form_of(kind)

    assert problems_of(form=form, examples=(form(field=value),)) == []


@pytest.mark.parametrize(
    ("kind", "default", "said"),
    [
        (Text, "a" * 81, "String should have at most 80 characters"),
        (Text, "", "String should have at least 1 character"),
        (Text, None, "Input should be a valid string"),
        (int, "one", "Input should be of another type"),
        (int, True, "Input should be of another type"),
        (Annotated[int, Field(ge=5)], 3, "Input should be greater than or equal to 5"),
        (bool, None, "Input should be a valid boolean"),
        (Colour, "blue", "Input should be 'red'"),
        (list[Colour], ["blue"], "Input should be 'red'"),
        (date, "today", "Input should be of another type"),
    ],
    ids=str,
)
def test_a_default_that_can_not_be_used_is_named(kind: Any, default: object, said: str) -> None:
    """Whether the example uses it or not."""
    form: Any = create_model("Asked", __base__=Form, text=(Text, ...), the_field=(kind, default))

    found = problems_of(form=form, examples=(form(text="a"),))

    assert f"Asked.the_field: its default can't be used: {said}" in found


@pytest.mark.parametrize(
    ("kind", "default"),
    [(Text | None, None), (Colour, Colour.RED), (date, date(2026, 1, 1)), (list[Colour], [])],
    ids=str,
)
def test_a_default_that_can_be_used_is_taken(kind: Any, default: object) -> None:
    form = form_of(kind, default)

    assert problems_of(form=form, examples=(form(),)) == []


@pytest.mark.parametrize(
    ("kind", "path", "said"),
    [
        (dict, "field", "'additionalProperties' is required to be supplied and to be false"),
        (dict[str, int], "field", "'additionalProperties' is required to be supplied"),
        (Any, "field", "schema must have a 'type' key"),
        (object, "field", "schema must have a 'type' key"),
        (list, "field[]", "schema must have a 'type' key"),
        (list[dict[str, str]], "field[]", "'additionalProperties' is required to be supplied"),
        (tuple[int, str], "field", "'prefixItems' is not permitted"),
        (set[str], "field", "'uniqueItems' is not permitted"),
        (bytes, "field", "'binary' is not a valid format"),
        (Annotated[str, Field(min_length=3)], "field", "'minLength' is not permitted"),
        (Annotated[str, Field(max_length=3)], "field", "'maxLength' is not permitted"),
        (list[Written], "field[].text", "'maxLength' is not permitted"),
        (Annotated[Cat | Dog, Field(discriminator="kind")], "field", "'discriminator' is not"),
    ],
    ids=str,
)
def test_a_result_that_strict_mode_refuses_is_named(kind: Any, path: str, said: str) -> None:
    result = create_model("Told", __base__=Result, field=(kind, ...))

    lines = with_result(result)

    assert lines[0].startswith(f"Told.{path}: OpenAI would refuse it: {said}")


@pytest.mark.parametrize("kind", [Callable, type], ids=str)
def test_a_result_that_json_can_not_hold_is_named(kind: Any) -> None:
    result = create_model("Told", __base__=Result, field=(kind, ...))

    (line,) = with_result(result)

    assert line.startswith("Told: JSON can't hold one of its types: ")


def test_a_result_with_a_default_is_named() -> None:
    result = create_model("Told", __base__=Result, field=(int, 5), other=(str | None, None))

    assert with_result(result) == ["Told.field: OpenAI would refuse it: 'default' is not permitted"]


def test_a_result_of_all_that_it_may_hold_is_taken() -> None:
    class Told(Result):
        title: Short
        note: str | None
        mood: Colour
        level: Level
        size: Literal["small", "large"]
        score: Annotated[float, Field(ge=0, le=1)]
        right: bool
        day: date
        lines: Annotated[list[str], Field(min_length=1, max_length=3)]
        nested: list[Nested]
        plain: Plain | None

    assert with_result(Told) == []


@pytest.mark.parametrize("base", [Form, Result])
@pytest.mark.parametrize(
    "name", ["json", "copy", "schema", "dict", "model_dump", "model_fields", "construct"]
)
def test_a_name_that_pydantic_uses_itself_is_named(
    name: str, base: type[Form] | type[Result]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pydantic's, as `load_task` does
        model: Any = create_model("Model", __base__=base, **{name: (Text, ...)})  # type: ignore[call-overload]

    check: Any = with_form if base is Form else with_result
    found = check(model)

    assert found == [f"Model.{name}: hides an attribute of {base.__name__}; rename it"]


def test_a_private_name_is_named() -> None:
    class Asked(Form):
        _secret: Text

    class Told(Result):
        text: str
        _note: str

    why = "is no field, as its name begins with an underscore"
    assert with_form(Asked) == ["Asked: needs a field", f"Asked._secret: {why}"]
    assert with_result(Told) == [f"Told._note: {why}"]


def test_two_fields_of_one_json_name_are_named() -> None:
    class Asked(Form):
        first_step: Text
        firstStep: Text  # noqa: N815 - the mistake

    why = "is called firstStep in JSON, as another field is"
    assert with_form(Asked) == [f"Asked.first_step: {why}", f"Asked.firstStep: {why}"]


@pytest.mark.parametrize("name", ["name", "icon", "noun", "headline", "description"])
@pytest.mark.parametrize("value", ["", " \n", "\u200b", None, 3])
def test_a_missing_word_is_named(name: str, value: object) -> None:
    assert problems_of(**{name: value}) == [f"{name}: needs a text"]


@pytest.mark.parametrize("name", ["form", "result"])
@pytest.mark.parametrize("value", [None, 3, Plain, Plain(text="a"), TASK.example])
def test_what_is_no_class_of_ours_is_named(name: str, value: object) -> None:
    base = name.capitalize()

    assert problems_of(**{name: value}) == [f"{name}: must be a class that derives from {base}"]


def test_models_without_fields_are_named() -> None:
    assert problems_of(form=Form, result=Result) == ["Form: needs a field", "Result: needs a field"]


def test_an_example_of_another_class_is_named() -> None:
    assert problems_of(
        examples=(TASK.example, TASK.example_result), example_result=TASK.example
    ) == [
        "examples: must be of AnalysisInput",
        "example_result: must be of Analysis",
    ]


@pytest.mark.parametrize("value", [(), [TASK.example], TASK.example, None], ids=str)
def test_examples_that_are_no_tuple_of_some_are_named(value: object) -> None:
    why = "examples: needs at least one, in brackets: `examples=(…,)`"

    assert problems_of(examples=value) == [why]


def test_an_example_that_breaks_its_model_is_named() -> None:
    example = TASK.example.model_copy(update={"age": 0, "name": ""})

    assert problems_of(examples=(TASK.example, example)) == [
        "AnalysisInput.name: String should have at least 1 character",
        "AnalysisInput.age: Input should be greater than or equal to 1",
    ]


def test_a_form_that_does_not_read_what_it_writes_is_named() -> None:
    class Asked(Form):
        text: Text

        @computed_field  # type: ignore[prop-decorator]
        @property
        def length(self) -> int:
            return len(self.text)

    assert with_form(Asked, text="a") == ["Asked.length: Extra inputs are not permitted"]


def test_a_form_of_too_much_text_is_named() -> None:
    form: Any = create_model(
        "Asked",
        __base__=Form,
        one=(Annotated[str, Field(max_length=MAX_FORM_CHARACTERS // 2)], ...),
        two=(Annotated[str, Field(max_length=MAX_FORM_CHARACTERS // 2)], ...),
    )

    (line,) = problems_of(form=form, examples=(form(one="a", two="b"),))

    assert line == "Asked: its texts have more than 200,000 characters together"


def test_all_problems_are_told_at_once() -> None:
    form: Any = create_model("Asked", __base__=Form, one=(str, ...), two=(bytes, ...))
    result = create_model("Told", __base__=Result, three=(dict[str, str], ...), four=(Any, ...))

    lines = problems_of(noun="", form=form, examples=(TASK.example,), result=result)

    assert [line.partition(":")[0] for line in lines] == [
        *("noun", "examples", "Asked.one", "Asked.two"),
        *("example_result", "Told.three", "Told.four"),
    ]


# ── How large an input may be ──


class Large(Form):
    a_long_text: Annotated[str, Field(max_length=300)]
    a_choice: Literal["👩‍🚀👩‍🚀👩‍🚀", "b"]
    choices: Annotated[list[Literal["👩‍🚀", "🇯🇵", "c"]], Field(min_length=1)]
    a_number: float
    a_whole_number: int
    a_day: date | None = None
    agreed: bool


LARGE = replace(
    TASK,
    form=Large,
    examples=(
        Large(
            a_long_text="a", a_choice="b", choices=["c"], a_number=1, a_whole_number=1, agreed=True
        ),
    ),
)


def escaped(text: str) -> str:
    """JSON in which each character is written as `\\uXXXX`."""
    units = re.findall("....", text.encode("utf-16-be").hex())
    return '"' + "".join("\\u" + unit for unit in units) + '"'


@settings(max_examples=50, deadline=None)
@given(
    text=st.text(st.sampled_from("🌱👍🗿"), min_size=300, max_size=300),
    number=st.floats(allow_nan=False, allow_infinity=False),
    whole=st.integers(-(2**53) + 1, 2**53 - 1),
    indent=st.integers(0, 40),
)
def test_the_largest_input_fits_however_it_is_written(
    text: str, number: float, whole: int, indent: int
) -> None:
    form = Large(
        a_long_text=text,
        a_choice="👩‍🚀👩‍🚀👩‍🚀",
        choices=["👩‍🚀", "🇯🇵", "c"],
        a_number=number,
        a_whole_number=whole,
        a_day=date(2026, 11, 27),
        agreed=False,
    )
    written = form.model_dump(mode="json", by_alias=True)
    texts = {key: value for key, value in written.items() if isinstance(value, str)}
    body = json.dumps(written, indent=indent)
    for key, value in texts.items():
        body = body.replace(json.dumps(value), escaped(value)).replace(f'"{key}"', escaped(key))

    assert Large.model_validate_json(body) == form
    assert len(body.encode()) <= LARGE.max_input_bytes


def test_what_stands_before_the_service_and_the_page_lets_the_largest_form_through() -> None:
    form = form_of(Annotated[str, Field(max_length=MAX_FORM_CHARACTERS - 40)])
    largest = replace(TASK, form=form, examples=(form(field="a"),))

    nginx = (ROOT / "deploy" / "nginx.conf").read_text()
    page = (ROOT / ".streamlit" / "config.toml").read_text()

    megabytes = int(nginx.partition("client_max_body_size ")[2].partition("m;")[0])
    assert largest.max_input_bytes <= megabytes * 2**20
    of_widgets = int(page.partition("maxWidgetStateSize = ")[2].partition(" ")[0])
    assert of_widgets * 10**6 >= MAX_FORM_CHARACTERS * 4 + 100_000  # bytes of an emoji in UTF-8


# ── The fingerprint ──


class Shape(Form):
    first: Annotated[int, Field(ge=1, le=5)]
    second: Literal["a", "b"]


EXAMPLE: dict[str, Any] = {"first": 1, "second": "a"}


def fingerprint(**fields: Any) -> str:
    """Of a form with these fields, beside those of `Shape`."""
    same = {"first": (Annotated[int, Field(ge=1, le=5)], ...), "second": (Literal["a", "b"], ...)}
    kept = {name: kind for name, kind in (same | fields).items() if kind}
    form: Any = create_model("Renamed", __base__=Form, **kept)
    example = form(**{name: EXAMPLE.get(name, "a") for name in kept})
    return replace(TASK, form=form, examples=(example,)).fingerprint


def test_rewording_leaves_the_fingerprint() -> None:
    worded = Annotated[
        int, Field(ge=1, le=5, title="A title", description="A hint", examples=[3]), Says("No.")
    ]

    reworded = replace(
        TASK,
        name="Another",
        noun="report",
        instructions="Do something else.",
        form=Shape,
        examples=(Shape(first=5, second="b"),),
    )

    assert fingerprint(first=(worded, ...)) == fingerprint() == reworded.fingerprint


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"second": None, "other": (Literal["a", "b"], ...)}, id="another name"),
        pytest.param({"first": (Annotated[float, Field(ge=1, le=5)], ...)}, id="another type"),
        pytest.param({"second": (Literal["a", "c"], ...)}, id="another choice"),
        pytest.param({"first": (Annotated[int, Field(ge=1, le=6)], ...)}, id="another limit"),
        pytest.param({"second": None}, id="one less"),
        pytest.param({"title": (Text, ...)}, id="one more, called as a keyword is"),
        pytest.param({"first": (Annotated[int, Field(ge=1, le=5)] | None, None)}, id="optional"),
    ],
)
def test_another_shape_has_another_fingerprint(fields: dict[str, Any]) -> None:
    assert fingerprint(**fields) != fingerprint()


def test_another_result_has_another_fingerprint() -> None:
    other = replace(TASK, result=Answered, example_result=Answered(text="a"))
    nested = replace(TASK, result=Nested, example_result=Nested(text="a"))

    assert other.fingerprint != TASK.fingerprint
    assert other.fingerprint == nested.fingerprint, "the name of the class is a word, too"


@pytest.mark.parametrize("seed", ["0", "1"])
def test_the_fingerprint_is_the_same_in_each_process(seed: str) -> None:
    command = [sys.executable, "-c", "from tests.toy.task import TASK; print(TASK.fingerprint)"]

    told = subprocess.check_output(command, cwd=ROOT, env={"PYTHONHASHSEED": seed}, text=True)

    assert told.strip() == TASK.fingerprint


def test_a_validator_of_a_field_that_can_not_be_asked_does_not_stop_the_example() -> None:
    class Asked(Form):
        when: datetime

        @field_validator("when")
        @classmethod
        def _is_aware(cls, when: datetime) -> datetime:
            return when

    (line,) = problems_of(form=Asked, examples=(Asked(when=datetime(2026, 11, 27, 12)),))

    assert line.startswith("Asked.when: the page can't ask for datetime")
