"""What a browser says was typed: what a field can hold is taken, and the rest is left out."""

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.form import questions
from page.typed import read_typed
from page.widgets import to_widget
from tests.unit.test_widgets import Color, Survey

UNTOUCHED = {question.key: to_widget(question, question.default) for question in questions(Survey)}
DEEP: Any = json.loads("[" * 500 + "]" * 500)


@pytest.mark.parametrize(
    ("key", "typed", "value"),
    [
        ("requests", " Ada", " Ada"),
        ("requests", "x" * 2500, "x" * 2500),
        ("notes", "", ""),
        ("age", "36", 36.0),
        ("age", "-1e3", -1000.0),
        ("weight", "59.5", 59.5),
        ("news", False, False),
        ("color", 0, "deep_red"),
        ("stars", 1, 2),
        ("size", "Xl", "xl"),
        ("month", "2", 2),
        ("topics", ["Rock n roll", "Art"], ["rock_n_roll", "art"]),
        ("colors", [], []),
        ("arrives", "2026-2-1", date(2026, 2, 1)),
    ],
)
def test_what_was_typed_is_there_again(key: str, typed: object, value: object) -> None:
    assert read_typed(Survey, {key: typed}) == UNTOUCHED | {key: value}


@pytest.mark.parametrize(
    ("key", "typed"),
    [
        ("requests", 3),
        ("requests", ["Ada"]),
        ("notes", "x" * 300_001),
        ("age", "NaN"),
        ("age", "1e999"),
        ("age", "old"),
        ("age", 36),
        ("age", True),
        ("news", "on"),
        ("news", 0),
        ("color", 2),
        ("color", -1),
        ("color", True),
        ("color", float("nan")),
        ("color", "red"),
        ("size", ""),
        ("topics", "art"),
        ("colors", {"0": "Blue"}),
        ("arrives", "2026-02-30"),
        ("arrives", "2026-02"),
        ("arrives", "9999999999999-1-1"),
        ("arrives", "1850-01-01"),
        ("arrives", 20260201),
        ("elsewhere", "x"),
        ("", DEEP),
    ],
    ids=str,
)
def test_what_a_field_can_not_hold_is_left_out(key: str, typed: object) -> None:
    assert read_typed(Survey, {key: typed}) == UNTOUCHED


@pytest.mark.parametrize("typed", [None, [], "text", 3, True, DEEP], ids=lambda _: "")
def test_what_is_no_form_at_all_is_an_untouched_one(typed: object) -> None:
    assert read_typed(Survey, typed) == UNTOUCHED


def test_of_several_choices_those_are_taken_that_there_are() -> None:
    typed = {"topics": ["Art", "Art", "Chess", 1, None, DEEP]}

    assert read_typed(Survey, typed)["topics"] == ["art"]


def test_half_an_emoji_can_be_sent_back() -> None:
    notes = read_typed(Survey, {"notes": "a\ud83d"})["notes"]

    assert str(notes).encode() == b"a?"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(typed=st.dictionaries(st.sampled_from([*UNTOUCHED]), ANYTHING, max_size=6))
def test_whatever_it_is_there_is_a_value_for_each_widget(typed: dict[str, object]) -> None:
    values = read_typed(Survey, typed)

    assert values.keys() == UNTOUCHED.keys()
    assert all(option in ("art", "music", "rock_n_roll") for option in values["topics"])  # type: ignore[attr-defined]
    assert values["color"] in (None, *Color)
