"""Each kind of field as a widget: what is shown, what it gives, and how it is filled again."""

import re
from datetime import date
from enum import IntEnum, StrEnum
from html import unescape
from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import Field, model_validator
from streamlit.testing.v1 import AppTest

from common.form import Form, questions
from common.questions import Says
from page.widgets import as_label, to_widget


class Color(StrEnum):
    DEEP_RED = "deep_red"
    BLUE = "blue"


class Stars(IntEnum):
    ONE = 1
    TWO = 2


class Survey(Form):
    """All kinds; the session's own keys and Streamlit's marks are names and words like others."""

    requests: Annotated[str, Field(max_length=10, description="As <b>you</b> *like*")]
    age: Annotated[int, Field(ge=1, le=120)]
    page_state: Annotated[str | None, Field(max_length=10, title="*Nick*")] = None
    born: Annotated[date | None, Field(ge=date(1850, 1, 1), le=date(2020, 12, 31))] = None
    story__told: Annotated[str, Field(min_length=5, max_length=300, examples=["Once"])]
    notes: Annotated[str, Field(max_length=300)] = "None yet"
    weight: Annotated[float | None, Field(gt=0), Says("How heavy is it?")] = None
    share: Annotated[float, Field(ge=0, le=1)] = 0.5
    arrives: date
    color: Color
    stars: Stars = Stars.TWO
    size: Literal["s", "m", "l", "xl", "xxl", "<b>"]
    month: Literal[1, 2, 3] | None = None
    topics: Annotated[list[Literal["art", "music", "rock_n_roll"]], Field(min_length=1)]
    colors: Annotated[list[Color], Field(max_length=1, default_factory=lambda: [Color.BLUE])]
    news: bool = True
    consent: Literal[True]


ENTERED: dict[str, Any] = {
    "requests": " Ada ",
    "age": 36.0,
    "pageState": "Countess",
    "born": date(1990, 12, 10),
    "story__Told": "I sketch.\nI walk.",
    "notes": "Some",
    "weight": 59.5,
    "share": 1.0,
    "arrives": date(2026, 12, 1),
    "color": "deep_red",
    "stars": 1,
    "size": "xxl",
    "month": 2,
    "topics": ["rock_n_roll", "art"],
    "colors": ["deep_red"],
    "news": False,
    "consent": True,
}
OPTIONAL = {name for name, field in Survey.model_fields.items() if not field.is_required()}
ONLY_REQUIRED = {
    question.key: ENTERED[question.key]
    for question in questions(Survey)
    if question.name not in OPTIONAL
}
ALL_GIVEN = Survey(
    requests="Ada",
    age=36,
    page_state="Countess",
    born=date(1990, 12, 10),
    story__told="I sketch.\nI walk.",
    notes="Some",
    weight=59.5,
    share=1.0,
    arrives=date(2026, 12, 1),
    color=Color.DEEP_RED,
    stars=Stars.ONE,
    size="xxl",
    month=2,
    topics=["rock_n_roll", "art"],
    colors=[Color.DEEP_RED],
    news=False,
    consent=True,
)
NOTHING_GIVEN = ALL_GIVEN.model_copy(
    update={"page_state": None, "born": None, "weight": None, "month": None, "colors": []}
)


def ask(asked: "type[Form]", form: "Form | None") -> None:  # AppTest runs this text alone
    import streamlit as st

    from page.form import ask_for

    st.session_state["sent"] = ask_for(asked, "Send", form)[0]


def draw(asked: type[Form] = Survey, *, form: Form | None = None) -> AppTest:
    page = AppTest.from_function(ask, args=(asked, form), default_timeout=20).run()
    assert not page.exception
    return page


def widgets(page: AppTest) -> dict[str, Any]:
    """All of the page, by the keys of their fields."""
    kinds = ("text_input", "text_area", "number_input", "checkbox", "radio", "selectbox")
    found = [widget for kind in (*kinds, "multiselect", "date_input") for widget in page.get(kind)]
    return {str(widget.key).removeprefix("form-"): widget for widget in found}


def values(page: AppTest) -> dict[str, object]:
    return {key: widget.value for key, widget in widgets(page).items()}


def send(page: AppTest, entered: dict[str, Any]) -> AppTest:
    for key, value in entered.items():
        widgets(page)[key].set_value(value)
    page.button[0].click().run()
    assert not page.exception
    return page


def drawn(page: AppTest) -> str:
    return "".join(str(getattr(element, "body", "")) for element in page.get("html"))


def problems(page: AppTest) -> list[str]:
    return [unescape(said) for said in re.findall('class="problem.*?>(.*?)</p>', drawn(page))]


def note(page: AppTest) -> str:
    """What is said above the button."""
    (said,) = re.findall('class="note.*?>(.*?)</p>', drawn(page))
    return unescape(" ".join(re.sub("<.*?>", "", said).split()))


def test_right_values_make_the_form() -> None:
    page = send(draw(), ENTERED)

    assert problems(page) == []
    assert page.session_state["sent"] == ALL_GIVEN


def test_what_is_optional_may_be_left_out_and_defaults_are_there_already() -> None:
    page = send(draw(), ONLY_REQUIRED)

    sent = page.session_state["sent"].model_dump(include=OPTIONAL)
    assert sent == Survey.model_construct().model_dump(include=OPTIONAL)


def test_a_default_can_be_taken_back() -> None:
    page = send(draw(), ONLY_REQUIRED | {"colors": [], "news": False})

    sent = page.session_state["sent"]
    assert (sent.colors, sent.news) == ([], False)


@pytest.mark.parametrize(
    ("key", "entered", "sentence"),
    [
        ("requests", "  ", "Please fill this in."),
        ("requests", "a" * 1200, "That's 1,200 characters; please keep it to 10 or fewer."),
        ("requests", "A\x00", "Remove the characters that can't be displayed."),
        ("story__Told", "Once", "Please write at least 5 characters."),
        ("notes", "", "Please fill this in."),
        ("age", None, "Please enter a whole number from 1 to 120."),
        ("age", 36.5, "Please enter a whole number from 1 to 120."),
        ("age", 1e300, "Please enter a whole number from 1 to 120."),
        ("weight", -1.0, "How heavy is it?"),
        ("share", 1.5, "Please enter a number from 0 to 1."),
        ("born", date(2021, 1, 1), "Please enter a date from 1 January 1850 to 31 December 2020."),
        ("arrives", None, "Please enter a date."),
        ("color", None, "Please choose one."),
        ("size", None, "Please choose one."),
        ("topics", [], "Please choose at least one."),
        ("colors", ["blue", "deep_red"], "Please choose at most one."),
        ("consent", False, "Please tick this box."),
    ],
)
def test_a_wrong_value_is_named_and_stays(key: str, entered: object, sentence: str) -> None:
    page = send(draw(), ENTERED | {key: entered})

    assert problems(page) == [sentence]
    assert note(page) == "Not sent yet. One field needs a look."
    assert page.session_state["sent"] is None
    assert values(page) == ENTERED | {key: entered}


def test_an_empty_form_names_all_that_is_required() -> None:
    page = send(draw(), {})

    required = len(Survey.model_fields) - len(OPTIONAL)
    assert len(problems(page)) == required
    assert note(page) == f"Not sent yet. {required} fields need a look."


@pytest.mark.parametrize("form", [ALL_GIVEN, NOTHING_GIVEN], ids=["all given", "nothing optional"])
def test_what_was_written_is_put_back_and_can_be_sent_again(form: Form) -> None:
    page = draw(form=form)

    assert send(page, {}).session_state["sent"] == form


def test_what_is_optional_can_be_emptied_again() -> None:
    """Streamlit offers that only where it is empty by default."""
    page = draw(form=ALL_GIVEN)
    defaults = [list(widgets(page)["born"].proto.default)]
    defaults += [widgets(page)[key].proto.HasField("default") for key in ("weight", "month")]
    emptied = {"born": None, "weight": None, "month": None}

    sent = send(page, emptied).session_state["sent"]

    assert defaults == [[], False, False]
    assert sent == ALL_GIVEN.model_copy(update=emptied)


@pytest.mark.parametrize(
    ("name", "value", "entered"),
    [
        ("requests", "Ada", "Ada"),
        ("page_state", None, ""),
        ("story__told", "A\nB", "A\nB"),
        ("age", 36, 36.0),
        ("weight", 59.5, 59.5),
        ("weight", None, None),
        ("news", False, False),
        ("consent", None, False),
        ("color", Color.BLUE, "blue"),
        ("stars", Stars.ONE, 1),
        ("size", "s", "s"),
        ("month", None, None),
        ("topics", ["art", "art"], ["art"]),
        ("topics", None, []),
        ("colors", [Color.BLUE], ["blue"]),
        ("born", date(1850, 1, 1), date(1850, 1, 1)),
        ("arrives", date(1850, 1, 1), None),  # further back than the calendar goes
        ("arrives", None, None),
    ],
)
def test_a_value_becomes_that_of_its_widget(name: str, value: object, entered: object) -> None:
    question = next(question for question in questions(Survey) if question.name == name)

    found = to_widget(question, value)

    assert (found, type(found)) == (entered, type(entered))


def test_few_options_of_a_required_field_are_all_shown_and_others_in_a_list() -> None:
    shown = {key: widget.type for key, widget in widgets(draw()).items()}

    assert shown["color"] == shown["stars"] == "radio"
    assert shown["size"] == shown["month"] == "selectbox"  # of six; one that can be cleared


def test_options_are_shown_in_words() -> None:
    shown = widgets(draw())

    assert shown["color"].options == ["Deep red", "Blue"]
    assert shown["stars"].options == ["1", "2"]
    assert shown["topics"].options == ["Art", "Music", "Rock n roll"]


def test_a_short_text_shares_its_row_with_the_number_or_date_after_it() -> None:
    page = draw()

    cells = [next(iter(column.children.values())) for column in page.columns]
    assert [getattr(cell, "key", None) for cell in cells] == [
        *("form-requests", "form-age"),
        *("form-pageState", "form-born"),
    ]


def test_a_number_or_date_with_a_long_name_or_a_hint_has_a_row_of_its_own() -> None:
    class Long(Form):
        one: Annotated[str, Field(max_length=9)]
        years: Annotated[int | None, Field(title="Years of experience")] = None
        two: Annotated[str, Field(max_length=9)]
        day: Annotated[date, Field(description="A guess will do.")]

    assert not draw(Long).columns


def test_hints_and_sentences_are_text_and_no_markup() -> None:
    class Odd(Form):
        odd: Annotated[str, Field(max_length=9, description="<b>*"), Says("<i>*")]

    page = send(draw(Odd), {})

    assert "&lt;b&gt;*</p>" in drawn(page)
    assert "&lt;i&gt;*</p>" in drawn(page)


def test_what_is_wrong_with_the_form_as_a_whole_is_said_above_the_button() -> None:
    class Stay(Form):
        arrives: date
        leaves: date

        @model_validator(mode="after")
        def check(self) -> Self:
            if self.leaves < self.arrives:
                raise ValueError("You can't leave *before* you arrive.")
            return self

    page = send(draw(Stay), {"arrives": date(2026, 2, 2), "leaves": date(2026, 2, 1)})

    assert note(page) == "Not sent yet. You can't leave *before* you arrive."


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("What do you do? (optional)", "What do you do? (optional)"),
        ("At 10:30, e.g. a/b - or #1 > 2 & 3", "At 10\\:30, e.g. a/b - or #1 > 2 \\& 3"),
        ("*one* [x](y)", r"\*one\* \[x\](y)"),
        (":red[x] `y`", r"\:red\[x\] \`y\`"),
        ("1. First", r"1\. First"),
        ("# Head", r"\# Head"),
        ("a\n\nb", "a b"),
    ],
)
def test_a_label_shows_as_it_is(text: str, label: str) -> None:
    assert as_label(text) == label
