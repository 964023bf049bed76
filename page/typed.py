"""What was typed into a form and not sent, as the visitor's browser kept it: see `form.js`.

It comes from a browser, so it may be anything: whatever a field can't hold is left out.
"""

from collections.abc import Mapping
from datetime import date
from math import isfinite

from common.form import Form, questions
from common.questions import Kind, Question, in_words
from page.widgets import Values, to_widget

MOST_CHARACTERS = 300_000


def read_typed(form: type[Form], typed: object) -> Values:
    """Return the values for all widgets of a form; where nothing fits, that of an untouched one."""
    given = typed if isinstance(typed, Mapping) else {}
    values = {}
    for question in questions(form):
        value = _read(question, given.get(question.key))
        values[question.key] = to_widget(question, question.default) if value is None else value
    return values


def _read(question: Question, value: object) -> object:
    match question.kind:
        case Kind.LINE | Kind.AREA:
            return _text(value)
        case Kind.WHOLE | Kind.DECIMAL:
            return _number(value)
        case Kind.CHECKBOX:
            return value if isinstance(value, bool) else None
        case Kind.CHOICE:
            return _option(question, value)
        case Kind.CHOICES:
            return _options(question, value)
        case Kind.DATE:
            return to_widget(question, _date(value))


def _text(value: object) -> str | None:
    if not isinstance(value, str) or len(value) > MOST_CHARACTERS:
        return None
    return value.encode("utf-8", "replace").decode()  # half an emoji can't be sent back


def _number(value: object) -> float | None:
    try:
        number = float(value) if isinstance(value, str) else float("nan")
    except ValueError:
        return None
    return number if isfinite(number) else None


def _option(question: Question, value: object) -> str | int | None:
    """The browser knows radio buttons by their place, and what is in a list by its words."""
    if isinstance(value, int) and not isinstance(value, bool):
        return question.options[value] if 0 <= value < len(question.options) else None
    return next((o for o in question.options if in_words(str(o)) == value), None)


def _options(question: Question, value: object) -> list[str | int] | None:
    if not isinstance(value, list):
        return None
    options = [_option(question, each) for each in value if isinstance(each, str)]
    return list(dict.fromkeys(each for each in options if each is not None))


def _date(value: object) -> date | None:
    try:
        return date(*map(int, value.split("-"))) if isinstance(value, str) else None
    except (ValueError, TypeError, OverflowError):
        return None
