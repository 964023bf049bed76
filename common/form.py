"""What a person writes: the base class of a task's form, and what is said about wrong values."""

import re
from collections.abc import Iterator
from datetime import date, datetime
from functools import cache
from typing import get_args

from pydantic import ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError, PydanticKnownError, core_schema

from common.fields import Model, displayable, visible
from common.questions import Kind, Question, Undrawable, ask

DATE_PATTERN = "[0-9]{4}-[0-9]{2}-[0-9]{2}"
OUR_TYPES = {"not_displayable", "repeated", "too_large", "wrong_type"}
KNOWN_TYPES = OUR_TYPES.union(get_args(core_schema.ErrorType))
MAX_WHOLE = 2**53 - 1  # beyond it, browsers take two numbers for one


class Form(Model):
    """What a person writes. Personal: never logged, never put into a message.

    Texts are trimmed; their limits count characters, the lower one those that can be seen.
    """

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,  # JSON knows neither
        protected_namespaces=(),  # the task is told which names can't be used
    )

    @field_validator("*", mode="before")
    @classmethod
    def _check_type(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what pydantic would turn into another type: true, "36", a time for a date."""
        question = _question(cls, info.field_name)
        if question is None:
            return value
        if question.kind.is_text and isinstance(value, str):
            return displayable(value).strip() or (None if not question.is_required else "")
        if value is not None and not _is_of_kind(value, question):
            raise PydanticCustomError("wrong_type", "Input should be of another type")
        if question.kind is Kind.WHOLE and isinstance(value, int) and abs(value) > MAX_WHOLE:
            raise PydanticCustomError("too_large", "Input should have fewer digits")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _check_value(cls, value: object, info: ValidationInfo) -> object:
        question = _question(cls, info.field_name)
        if isinstance(value, list) and any(value.count(each) > 1 for each in value):
            raise PydanticCustomError("repeated", "Input should hold each choice once")
        if question is None or not (question.kind.is_text and isinstance(value, str)):
            return value
        seen = len(" ".join(visible(value).split()))
        if not seen and not question.is_required:
            return None
        shortest = question.at_least or 1
        if seen < shortest:
            raise PydanticKnownError("string_too_short", {"min_length": shortest})
        return value


def _is_of_kind(value: object, question: Question) -> bool:
    """Whether a value is of the JSON type that this question calls for; pydantic looks closer."""
    match question.kind:
        case Kind.CHECKBOX:
            return isinstance(value, bool)
        case Kind.WHOLE | Kind.DECIMAL:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Kind.DATE:
            is_time = isinstance(value, datetime)
            is_text = isinstance(value, str) and re.fullmatch(DATE_PATTERN, value)
            return bool(is_text) or (isinstance(value, date) and not is_time)
        case Kind.CHOICE | Kind.CHOICES:
            wrong = bool if isinstance(question.options[0], str) else bool | str
            return not any(isinstance(each, wrong) for each in _each(value))
    return True


def _each(value: object) -> Iterator[object]:
    yield from value if isinstance(value, list) else [value]


def questions(form: type[Form]) -> tuple[Question, ...]:
    """The fields in their order, as they are asked. Raises: Undrawable."""
    return tuple(ask(name, field) for name, field in form.model_fields.items())


@cache
def _question(form: type[Form], name: str | None) -> Question | None:
    """None for a field that the page can't ask for, which the task is told about."""
    try:
        return ask(str(name), form.model_fields[str(name)])
    except Undrawable:
        return None


def problems(form: type[Form], error: ValidationError) -> dict[str, str]:
    """Say in a sentence what is wrong with each field: `{"age": "Please enter a number."}`.

    Fields are named as in JSON. The sentences repeat nothing that was written.
    """
    asked = {question.key: question for question in questions(form)}
    asked |= {question.name: question for question in questions(form)}
    found: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else "input"
        question = asked.get(name)
        key = question.key if question else name
        found.setdefault(key, _problem(question, detail))
    return found


def _problem(question: Question | None, detail: ErrorDetails) -> str:
    if question is None:
        if detail["type"] == "extra_forbidden":
            return "There is no such field."
        return _own_words(detail) or "Send an object with the fields' values."
    if detail["type"] == "not_displayable":
        return "Remove the characters that can't be displayed."
    return question.says or _own_words(detail) or _of_constraint(question, detail)


def _own_words(detail: ErrorDetails) -> str:
    """What a validator of the task says; empty if it was none that refused the value."""
    if detail["type"] in ("value_error", "assertion_error"):
        return str(detail.get("ctx", {}).get("error", detail["msg"]))
    return "" if detail["type"] in KNOWN_TYPES else detail["msg"]


def _of_constraint(question: Question, detail: ErrorDetails) -> str:
    """Say which limit was broken."""
    limit, value = detail.get("ctx", {}), detail["input"]
    match detail["type"]:
        case "string_too_long":
            length = f"{len(str(value)):,}"
            return (
                f"That's {length} characters; please keep it to {limit['max_length']:,} or fewer."
            )
        case "string_too_short" if isinstance(value, str) and visible(value).strip():
            return f"Please write at least {limit['min_length']:,} characters."
        case "too_short":
            return f"Please choose at least {_count(limit['min_length'])}."
        case "too_long":
            return f"Please choose at most {_count(limit['max_length'])}."
        case "repeated":
            return "Please choose each only once."
        case "greater_than" if question.kind is Kind.DECIMAL:
            return f"Please enter a number greater than {_shown(limit['gt'])}."
        case "less_than" if question.kind is Kind.DECIMAL:
            return f"Please enter a number less than {_shown(limit['lt'])}."
        case "multiple_of":
            return f"Please enter a multiple of {_shown(limit['multiple_of'])}."
        case "too_large" if question.at_least is None or question.at_most is None:
            return "That number has too many digits."
    return _of_kind(question, value, is_item=len(detail["loc"]) > 1)


def _of_kind(question: Question, value: object, *, is_item: bool) -> str:
    """Say what kind of value is asked for."""
    if question.must_be_true:
        return "Please tick this box."
    if question.kind is Kind.CHECKBOX:
        return "Please answer with yes or no: true or false in JSON."
    if question.kind.is_text:
        if not isinstance(value, str):
            return "Please fill this in." if _is_nothing(value) else "Please enter text."
        is_blank = not visible(value).strip()
        return "Please fill this in." if is_blank else "This isn't in the expected format."
    if question.kind.is_number or question.kind is Kind.DATE:
        return f"Please enter a {question.kind}{_range(question)}."
    if is_item or not (_is_nothing(value) and question.is_required):
        return f"Please choose from: {', '.join(map(str, question.options))}."
    least = question.at_least if question.kind is Kind.CHOICES else None
    return f"Please choose at least {_count(least)}." if least else "Please choose one."


def _is_nothing(value: object) -> bool:
    return value is None or value in ("", [], {})


def _range(question: Question) -> str:
    least, most = question.at_least, question.at_most
    from_least, to_most = " of at least ", " of at most "
    if question.kind is Kind.DATE:
        from_least, to_most = " on or after ", " on or before "
    if least is not None and most is not None:
        return f" from {_shown(least)} to {_shown(most)}"
    if least is not None:
        return from_least + _shown(least)
    return to_most + _shown(most) if most is not None else ""


def _count(number: int) -> str:
    return "one" if number == 1 else f"{number:,}"


def _shown(bound: object) -> str:
    if isinstance(bound, date):
        return f"{bound:%-d %B %Y}"
    if isinstance(bound, float) and bound.is_integer():
        bound = int(bound)
    is_year = isinstance(bound, int) and abs(bound) < 10_000
    return f"{bound:,}" if isinstance(bound, int | float) and not is_year else str(bound)
