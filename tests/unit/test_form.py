"""What is said about wrong values of a form, of whatever fields it has."""

import json
import re
from datetime import date
from enum import IntEnum, StrEnum
from math import inf, nan
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from common.form import MAX_WHOLE, Form, problems, questions
from common.questions import Says
from tests.toy.task import AnalysisInput


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


Text = Annotated[str, Field(max_length=80)]
DAY = date(2026, 11, 27)


class Everything(Form):
    """A field of each kind, with each limit that it may have."""

    first_step: Text = "walk"
    long: Annotated[str, Field(min_length=10, max_length=2000)] = "a long text"
    code: Annotated[str, Field(max_length=5, pattern="^[a-z]+$")] = "abc"
    note: Text | None = None
    whole: int = 1
    from_to: Annotated[int, Field(ge=1, le=120)] = 1
    between: Annotated[int, Field(gt=1, lt=5)] = 2
    at_least: Annotated[int, Field(ge=1)] = 1
    at_most: Annotated[int, Field(le=100_000)] = 1
    fives: Annotated[int, Field(multiple_of=5)] = 5
    maybe: Annotated[int, Field(ge=1)] | None = None
    decimal: float = 1.5
    decimal_from_to: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    above: Annotated[float, Field(gt=0)] = 1.0
    below: Annotated[float, Field(lt=0.5)] = 0.25
    halves: Annotated[float, Field(multiple_of=0.5)] = 0.5
    ticked: bool = False
    agreed: Literal[True] = True
    size: Literal["small", "large"] = "small"
    stars: Literal[1, 2, 3] = 1
    colour: Colour = Colour.RED
    level: Level = Level.LOW
    any_colours: list[Colour] = Field(default_factory=list)
    some: Annotated[list[Literal["x", "y", "z"]], Field(min_length=1, max_length=2)] = Field(
        default=["x"]
    )
    two: Annotated[list[Level], Field(min_length=2)] = Field(
        default_factory=lambda: [Level.LOW, Level.HIGH]
    )
    day: date = DAY
    in_2026: Annotated[date, Field(ge=date(2026, 1, 1), le=date(2026, 12, 31))] = DAY
    later: Annotated[date, Field(gt=date(2026, 1, 1))] = DAY
    earlier: Annotated[date, Field(le=date(2026, 12, 31))] = DAY
    own_words: Annotated[int, Field(ge=18), Says("Please be of age.")] = 18


DEFAULTS = Everything().model_dump_json(by_alias=True)
KEYS = [question.key for question in questions(Everything)]
EMPTY = "Please fill this in."
WHOLE = "Please enter a whole number."
FROM_TO = "Please enter a whole number from 1 to 120."
DECIMAL = "Please enter a number."
DATE = "Please enter a date."
YES_NO = "Please answer with yes or no: true or false in JSON."
SIZES = "Please choose from: small, large."
STARS = "Please choose from: 1, 2, 3."
LETTERS = "Please choose from: x, y, z."
DIGITS = "That number has too many digits."

SAID = [
    # texts
    ("firstStep", None, EMPTY),
    ("firstStep", "", EMPTY),
    ("firstStep", " \u200b\n", EMPTY),
    ("firstStep", 7, "Please enter text."),
    ("firstStep", True, "Please enter text."),
    ("firstStep", ["a"], "Please enter text."),
    ("firstStep", "a" * 81, "That's 81 characters; please keep it to 80 or fewer."),
    ("firstStep", "a\0b", "Remove the characters that can't be displayed."),
    ("long", "too short", "Please write at least 10 characters."),
    ("long", "a" * 50_000, "That's 50,000 characters; please keep it to 2,000 or fewer."),
    ("code", "ABC", "This isn't in the expected format."),
    ("note", 7, "Please enter text."),
    ("note", "a" * 81, "That's 81 characters; please keep it to 80 or fewer."),
    # whole numbers
    ("whole", None, WHOLE),
    ("whole", "36", WHOLE),
    ("whole", True, WHOLE),
    ("whole", 1.5, WHOLE),
    ("whole", inf, WHOLE),
    ("whole", {}, WHOLE),
    ("whole", MAX_WHOLE + 1, DIGITS),
    ("whole", -(10**5000), DIGITS),
    ("fromTo", 0, FROM_TO),
    ("fromTo", 121, FROM_TO),
    ("fromTo", 10**5000, FROM_TO),
    ("fromTo", "1", FROM_TO),
    ("between", 1, "Please enter a whole number from 2 to 4."),
    ("between", 5, "Please enter a whole number from 2 to 4."),
    ("atLeast", 0, "Please enter a whole number of at least 1."),
    ("atLeast", 10**20, DIGITS),
    ("atMost", 100_001, "Please enter a whole number of at most 100,000."),
    ("fives", 7, "Please enter a multiple of 5."),
    ("maybe", 0, "Please enter a whole number of at least 1."),
    # decimals
    ("decimal", None, DECIMAL),
    ("decimal", "1.5", DECIMAL),
    ("decimal", False, DECIMAL),
    ("decimal", inf, DECIMAL),
    ("decimal", -inf, DECIMAL),
    ("decimal", nan, DECIMAL),
    ("decimal", 10**400, DECIMAL),
    ("decimalFromTo", 0.25, "Please enter a number from 0.5 to 2."),
    ("above", 0, "Please enter a number greater than 0."),
    ("below", 0.5, "Please enter a number less than 0.5."),
    ("halves", 0.7, "Please enter a multiple of 0.5."),
    # checkboxes
    ("ticked", None, YES_NO),
    ("ticked", 1, YES_NO),
    ("ticked", "true", YES_NO),
    ("agreed", False, "Please tick this box."),
    ("agreed", 1, "Please tick this box."),
    # one choice
    ("size", None, "Please choose one."),
    ("size", "", "Please choose one."),
    ("size", "Small", SIZES),
    ("size", 0, SIZES),
    ("size", {"a": "small"}, SIZES),
    ("size", ["small"], SIZES),
    ("stars", 4, STARS),
    ("stars", True, STARS),
    ("stars", "1", STARS),
    ("colour", "green", "Please choose from: red, blue."),
    ("level", "1", "Please choose from: 1, 2."),
    ("level", True, "Please choose from: 1, 2."),
    # several choices
    ("anyColours", None, "Please choose from: red, blue."),
    ("anyColours", ["green"], "Please choose from: red, blue."),
    ("some", None, "Please choose at least one."),
    ("some", [], "Please choose at least one."),
    ("some", [None], LETTERS),
    ("some", ["x", ["y"]], LETTERS),
    ("some", "x", LETTERS),
    ("some", {"x": "y"}, LETTERS),
    ("some", ["x", "x"], "Please choose each only once."),
    ("some", ["x", "y", "z"], "Please choose at most 2."),
    ("two", [1], "Please choose at least 2."),
    ("two", None, "Please choose at least 2."),
    ("two", [1, True], "Please choose from: 1, 2."),
    # dates
    ("day", None, DATE),
    ("day", "", DATE),
    ("day", "27.11.2026", DATE),
    ("day", "2026-02-30", DATE),
    ("day", "2026-11-27T00:00:00", DATE),
    ("day", "1796083200", DATE),
    ("day", 1796083200, DATE),
    ("day", True, DATE),
    ("in2026", "2027-01-01", "Please enter a date from 1 January 2026 to 31 December 2026."),
    ("later", "2026-01-01", "Please enter a date on or after 2 January 2026."),
    ("earlier", "2027-01-01", "Please enter a date on or before 31 December 2026."),
    # the field's own sentence, whatever is wrong
    ("ownWords", 17, "Please be of age."),
    ("ownWords", "18", "Please be of age."),
    ("ownWords", None, "Please be of age."),
]


def problems_of(form: type[Form], values: object) -> dict[str, str]:
    with pytest.raises(ValidationError) as caught:
        form.model_validate(values)
    return problems(form, caught.value)


def name_of(case: object) -> str:
    return str(case)[:40] if isinstance(case, str | float | list) else type(case).__name__


@pytest.mark.parametrize(("key", "value", "sentence"), SAID, ids=name_of)
def test_each_wrong_value_gets_a_sentence(key: str, value: object, sentence: str) -> None:
    assert problems_of(Everything, {key: value}) == {key: sentence}


@pytest.mark.parametrize(
    ("key", "given", "taken"),
    [
        ("firstStep", "  a step\n", "a step"),
        ("first_step", "a step", "a step"),
        ("note", " \u200b", None),
        ("note", None, None),
        ("whole", 36.0, 36),
        ("whole", -MAX_WHOLE, -MAX_WHOLE),
        ("maybe", None, None),
        ("decimal", 2, 2.0),
        ("decimal", 1e300, 1e300),
        ("level", 2, Level.HIGH),
        ("colour", "blue", Colour.BLUE),
        ("anyColours", [], []),
        ("some", ["z", "x"], ["z", "x"]),
        ("day", "2026-11-27", DAY),
        ("day", DAY, DAY),
    ],
    ids=name_of,
)
def test_each_right_value_is_taken(key: str, given: object, taken: object) -> None:
    form = Everything.model_validate({key: given})

    written = {key: value for key, value in dict(form).items() if key in form.model_fields_set}
    assert list(written.values()) == [taken]
    assert Everything.model_validate_json(form.model_dump_json(by_alias=True)) == form


def test_what_is_missing_has_its_default() -> None:
    fields = Everything.model_fields.items()

    assert dict(Everything()) == {
        name: field.get_default(call_default_factory=True) for name, field in fields
    }


def test_every_missing_field_is_named() -> None:
    assert problems_of(AnalysisInput, {}) == {
        "name": EMPTY,
        "age": FROM_TO,
        "description": EMPTY,
    }


@pytest.mark.parametrize("value", [None, [], "text", 7, [{"firstStep": "a"}]])
def test_what_is_no_object_is_one_problem(value: object) -> None:
    assert problems_of(Everything, value) == {"input": "Send an object with the fields' values."}


def test_a_field_that_there_is_not_is_named() -> None:
    found = problems_of(Everything, {"role": "admin", "firstStep": ""})

    assert found == {"firstStep": EMPTY, "role": "There is no such field."}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(values=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6))
def test_whatever_is_sent_is_taken_as_json_holds_it_or_gets_sentences(values: Any) -> None:
    found: dict[str, str] = {}
    stored = DEFAULTS
    try:
        stored = Everything.model_validate(values).model_dump_json(by_alias=True)
    except ValidationError as error:
        found = problems(Everything, error)
        assert found

    json.loads(stored, parse_constant=pytest.fail)
    assert Everything.model_validate_json(stored).model_dump_json(by_alias=True) in (
        stored,
        DEFAULTS,
    )
    assert set(found) <= set(values)
    assert all(re.fullmatch(r"[A-Z].{10,}\.", sentence) for sentence in found.values())


@settings(max_examples=100, deadline=None)
@given(key=st.sampled_from([*KEYS, "role"]), around=st.text(max_size=90), in_list=st.booleans())
def test_no_sentence_and_no_error_repeats_what_was_written(
    key: str, around: str, in_list: bool
) -> None:
    value = f"{around}S3CRET{around}"
    said = ""
    try:
        Everything.model_validate({key: [value] if in_list else value})
    except ValidationError as error:
        said = f"{error} {problems(Everything, error)}"

    assert "S3CRET" not in said


class Trip(Form):
    start: date
    end: Annotated[date, Says("Please say when it ends.")]
    place: Text = "Rome"
    people: int = 1

    @field_validator("start")
    @classmethod
    def _is_in_the_future(cls, start: date) -> date:
        if start <= DAY:
            raise ValueError("Enter a date in the future.")
        return start

    @field_validator("place")
    @classmethod
    def _is_a_capital(cls, place: str) -> str:
        if place not in ("Rome", "Paris"):
            raise AssertionError("Enter a capital.")  # as `assert` does where pytest isn't
        return place

    @field_validator("people")
    @classmethod
    def _are_a_few(cls, people: int) -> int:
        if people > 9:
            raise PydanticCustomError("too_many", "Enter at most nine.")
        return people

    @field_validator("end")
    @classmethod
    def _is_this_century(cls, end: date) -> date:
        if end.year > 2099:
            raise ValueError("Enter a date in this century.")
        return end

    @model_validator(mode="after")
    def _ends_after_its_start(self) -> "Trip":
        if self.end < self.start:
            raise ValueError("The end must come after the start.")
        return self


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"start": "2026-01-01"}, {"start": "Enter a date in the future."}, id="field"),
        pytest.param({"place": "Bonn"}, {"place": "Enter a capital."}, id="assertion"),
        pytest.param({"people": 10}, {"people": "Enter at most nine."}, id="pydantic's own"),
        pytest.param(
            {"end": "2027-01-01"}, {"input": "The end must come after the start."}, id="form"
        ),
        pytest.param({"end": "2100-01-01"}, {"end": "Please say when it ends."}, id="Says wins"),
    ],
)
def test_a_validator_of_the_task_is_quoted(
    changes: dict[str, object], said: dict[str, str]
) -> None:
    trip = {"start": "2027-05-01", "end": "2027-05-08"}
    Trip.model_validate(trip)

    assert problems_of(Trip, trip | changes) == said


def test_a_default_that_is_made_is_made_each_time() -> None:
    """Today, in a page that runs for weeks."""
    days = iter([date(2026, 1, 1), date(2026, 1, 2), date(2026, 1, 3)])

    class Dated(Form):
        day: date = Field(default_factory=lambda: next(days))

    first, second = (questions(Dated)[0].default for _ in range(2))

    assert first < second
