"""What is taken of what the model answers."""

import json
from datetime import date
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from common.result import MAX_TEXT, Result, Short, first_text
from tests.fakes import ANALYSIS
from tests.model_replies import response
from tests.toy.task import Analysis
from webhook_service.answer import read_answer


class Mood(StrEnum):
    CALM = " calm "  # the developer's own text


class Step(Result):
    what: str


class Source(BaseModel):
    title: str
    page: str | None = None


class Report(Result):
    title: Short
    note: str | None
    mood: Mood
    kind: Literal["long", "short"]
    score: float
    day: date | None
    steps: list[Step]
    lines: list[list[str]]
    source: Source


REPORT = {
    "title": "A title",
    "note": "a note",
    "mood": " calm ",
    "kind": "long",
    "score": 0.5,
    "day": "2026-11-27",
    "steps": [{"what": "Walk."}],
    "lines": [["one"], ["two"]],
    "source": {"title": "A book", "page": "7"},
}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"summary": " "}, id="blank"),
        pytest.param({"summary": "a" * (MAX_TEXT + 1)}, id="too long"),
        pytest.param({"themes": ["a", ""]}, id="a blank line"),
        pytest.param({"themes": "a"}, id="a text for a list"),
        pytest.param({"tone": None}, id="null"),
        pytest.param({"tone": 7}, id="a number"),
        pytest.param({"extra": 1}, id="a field too many"),
    ],
)
def test_an_answer_out_of_shape_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Analysis.model_validate(ANALYSIS.model_dump() | changes)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"steps": [{"what": " \u200b"}]}, id="a blank text in an object of a list"),
        pytest.param({"lines": [["one"], ["\u2800"]]}, id="a blank text in a list of a list"),
        pytest.param({"lines": [["a" * (MAX_TEXT + 1)]]}, id="a long text in a list of a list"),
        pytest.param({"source": {"title": ""}}, id="a blank text in a plain model"),
        pytest.param({"note": "a" * (MAX_TEXT + 1)}, id="a long optional text"),
        pytest.param({"mood": "calm"}, id="no choice"),
        pytest.param({"day": "tomorrow"}, id="no date"),
    ],
)
def test_texts_are_checked_wherever_they_are(changes: dict[str, object]) -> None:
    Report.model_validate(REPORT)

    with pytest.raises(ValidationError):
        Report.model_validate(REPORT | changes)


def test_texts_are_trimmed_wherever_they_are_but_the_developers_own() -> None:
    report = Report.model_validate(
        REPORT
        | {
            "title": " A title\n",
            "steps": [{"what": "Walk. "}],
            "lines": [[" one"]],
            "source": {"title": " A book ", "page": " "},
        }
    )

    assert report.title == "A title"
    assert report.steps[0].what == "Walk."
    assert report.lines == [["one"]]
    assert report.source == Source(title="A book", page=None)
    assert report.mood is Mood.CALM


@pytest.mark.parametrize("blank", ["", " \n", "\u200b"])
def test_an_optional_text_that_shows_nothing_is_none(blank: str) -> None:
    assert Report.model_validate(REPORT | {"note": blank}).note is None


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_a_number_that_json_can_not_hold_is_refused(number: str) -> None:
    """Stored as null, it would make a record that nobody can read again."""
    text = Report.model_validate(REPORT).model_dump_json().replace("0.5", number)

    with pytest.raises(ValidationError):
        Report.model_validate_json(text)


@pytest.mark.parametrize("surrogate", ["\\ud800", "\ud800"], ids=["escaped", "raw"])
def test_a_lone_surrogate_is_refused(surrogate: str) -> None:
    """Redis could not store it."""
    with pytest.raises(ValidationError):
        Step.model_validate_json(f'{{"what": "a{surrogate}b"}}')


def test_the_name_of_a_model_can_be_stored_whatever_it_is() -> None:
    """Else a paid answer would be lost with each attempt."""
    reply = response(ANALYSIS.model_dump_json(), model="a\ud800model")

    answer = read_answer(json.dumps(reply).encode(), "application/json")

    assert answer.model == "a?model"
    assert answer.analysis == ANALYSIS


def test_the_longest_text_is_taken() -> None:
    assert len(Step(what="a" * MAX_TEXT).what) == MAX_TEXT


def test_a_sample_of_a_result_is_its_first_text() -> None:
    class Score(Result):
        points: Annotated[int, Field(ge=0)]

    assert first_text(ANALYSIS) == ANALYSIS.summary
    assert first_text(Score(points=3)) == '{"points":3}'
