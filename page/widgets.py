"""The fields of a form as Streamlit's widgets: what is drawn for a question, and what it gives."""

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from enum import Enum
from typing import Any, NamedTuple

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from common.form import Form, questions
from common.questions import Kind, Question, in_words
from page import browser
from page.browser import Under
from page.preload import is_radio
from page.quoted import quoted_questions
from page.state import page_state

Values = Mapping[str, object]  # of widgets, by their fields' names in JSON

ONE_LINE = 50  # characters of options that fit beside each other
BESIDE = {Kind.WHOLE: 10, Kind.DECIMAL: 10, Kind.DATE: 20}  # a label's characters beside a text
EARLIEST, LATEST = date(1900, 1, 1), date(2100, 12, 31)
EMPTY: dict[Kind, object] = {Kind.LINE: "", Kind.AREA: "", Kind.CHECKBOX: False, Kind.CHOICES: []}

# In a label: lists and headings begin where it does, the rest anywhere.
_MARKUP = re.compile(r"[\\`*_\[\]<~$&]|:(?=\w)|(?<=\d)[.)](?=\s)|^[-+#>]")


class Fields(NamedTuple):
    """What was entered, and a place under each field for what is wrong with it."""

    values: dict[str, object]
    slots: dict[str, DeltaGenerator]


def draw_fields(
    form: type[Form], prefilled: Form | Values | None = None, examples: Sequence[str] = ()
) -> Fields:
    """Draw a widget for each field of the form; all are named as in JSON.

    What it begins with is the widget's own default. Put into the session's state, it would reach
    the browser once, where a further run may overtake it, and replace what was typed before this
    server was restarted. The names of examples are drawn under the text that they quote.
    """
    asked = questions(form)
    values = _values(asked, prefilled)
    quoted = next(iter(quoted_questions(form)), None) if examples else None
    texts = tuple(widget_key(question) for question in asked if question.kind.is_text)
    offer = Under(examples=tuple(examples), texts=texts)
    fields = Fields({}, {})
    for number, row in enumerate(_rows(asked)):
        with st.container(key=f"row-{number}-{row[-1].kind.split()[-1]}"):
            places = st.columns([2, 1]) if row[1:] else [st.container()]
            for question, place in zip(row, places, strict=True):
                with place:
                    fields.values[question.key] = _draw_widget(question, values[question.key])
                    if question is row[0]:
                        fields.slots[question.key] = st.empty()
                    _draw_under(question, offer if question == quoted else Under(texts=texts))
            for question in row[1:]:  # a narrow field: what is wrong needs the whole width
                fields.slots[question.key] = st.empty()
    if examples and (quoted is None or quoted.kind is not Kind.AREA):
        browser.draw_under(offer)
    return fields


def widget_key(question: Question) -> str:
    """Name a field's widget: apart from all else that the session remembers, and other forms."""
    return f"form-{question.key}-{page_state().form_id}".removesuffix("-")


def to_widget(question: Question, value: Any) -> object:
    """Turn the value of a field into that of its widget."""
    if value is None:
        return EMPTY.get(question.kind)
    if question.kind.is_number:
        return float(value)
    if question.kind is Kind.CHOICE:
        return _plain(value)
    if question.kind is Kind.CHOICES:
        return list(dict.fromkeys(map(_plain, value)))
    if question.kind is Kind.DATE:
        earliest, latest = _calendar(question)
        return value if earliest <= value <= latest else None
    return value


def as_label(text: str) -> str:
    """Escape what Streamlit would take for Markdown, and no more: a label is also read aloud."""
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def can_be_emptied(question: Question) -> bool:
    """Whether it may be left empty, and Streamlit gives it a way to be so."""
    is_of_kind = question.kind.is_number or question.kind in (Kind.CHOICE, Kind.DATE)
    return is_of_kind and not question.is_required


def _values(asked: Sequence[Question], prefilled: Form | Values | None) -> Values:
    if isinstance(prefilled, Mapping):
        return prefilled
    return {
        question.key: to_widget(
            question, getattr(prefilled, question.name) if prefilled else question.default
        )
        for question in asked
    }


def _rows(asked: Sequence[Question]) -> Iterator[Sequence[Question]]:
    """A short text and the number or date after it share a row, if it has but a short name."""
    rest = list(asked)
    while rest:
        second = rest[1] if rest[1:] and rest[0].kind is Kind.LINE else None
        is_pair = second and len(second.label) <= BESIDE.get(second.kind, 0) and not second.hint
        row, rest = (rest[:2], rest[2:]) if is_pair else (rest[:1], rest[1:])
        yield row


def _draw_under(question: Question, offer: Under) -> None:
    key = widget_key(question)
    if question.kind is Kind.AREA:
        limits = {"area": key, "at_least": question.at_least or 0, "at_most": question.at_most}
        browser.draw_under(offer.model_copy(update=limits))
    if question.hint:
        st.html(f'<p class="hint" id="{html.escape(key)}-hint">{html.escape(question.hint)}</p>')


def _draw_widget(question: Question, default: Any) -> object:
    """Draw what takes any value: a browser's own limits would cut or refuse it without a word."""
    label, key, shown = as_label(question.label), widget_key(question), question.placeholder
    if can_be_emptied(question) and default is not None:
        _put_in(key, default)
        default = None
    match question.kind:
        case Kind.LINE:
            filled_in = question.autocomplete or None
            return st.text_input(label, default, key=key, placeholder=shown, autocomplete=filled_in)
        case Kind.AREA:
            return st.text_area(label, default, key=key, placeholder=shown, height=140)
        case Kind.WHOLE | Kind.DECIMAL:
            return st.number_input(
                label, value=default, key=key, step=1.0, format="%g", placeholder=shown
            )
        case Kind.CHECKBOX:
            return st.checkbox(label, default, key=key)
        case Kind.CHOICE:
            return _draw_choice(question, default)
        case Kind.CHOICES:
            return st.multiselect(
                label,
                question.options,
                default,
                key=key,
                format_func=_option,
                placeholder=shown or "Choose any",
            )
        case Kind.DATE:
            earliest, latest = _calendar(question)
            return st.date_input(
                label,
                value=default,
                key=key,
                min_value=earliest,
                max_value=latest,
                format="YYYY-MM-DD",
            )


def _put_in(key: str, value: Any) -> None:
    """Fill a widget in without a default, in each run until the browser has the value.

    Streamlit lets only that be emptied which is so by default.
    """
    is_drawn = page_state().drawn == page_state().form_id
    if not is_drawn and st.session_state.get(key, value) == value:
        st.session_state[key] = value


def _draw_choice(question: Question, default: Any) -> object:
    label, key, options = as_label(question.label), widget_key(question), question.options
    index = None if default is None else options.index(default)
    if is_radio(question):
        return st.radio(
            label,
            options,
            key=key,
            index=index,
            format_func=lambda option: as_label(_option(option)),
            horizontal=sum(len(_option(option)) + 4 for option in options) <= ONE_LINE,
        )
    return st.selectbox(
        label,
        options,
        key=key,
        index=index,
        format_func=_option,
        placeholder=question.placeholder or "Choose one",
    )


def _option(option: str | int) -> str:
    return in_words(str(option))


def _plain(option: Any) -> object:
    return option.value if isinstance(option, Enum) else option


def _calendar(question: Question) -> tuple[date, date]:
    """The dates that can be entered at all; which are allowed, the form decides."""
    return min(question.at_least or EARLIEST, EARLIEST), max(question.at_most or LATEST, LATEST)
