"""What a person writes: the base class of a task's form, and what is said about wrong values."""

from datetime import date
from functools import cache

from pydantic import ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails, PydanticCustomError, PydanticKnownError

from common.fields import Model, displayable, visible
from common.questions import Kind, Question, ask

PYTHON_TYPES = {
    Kind.WHOLE: (int, float),
    Kind.DECIMAL: (int, float),
    Kind.CHECKBOX: (bool,),
    Kind.DATE: (date, str),
}
NOTHING = {
    Kind.CHECKBOX: "Please answer with yes or no.",
    Kind.CHOICE: "Please choose one.",
    Kind.CHOICES: "Please choose at least one.",
    Kind.DATE: "Please enter a date.",
}


class Form(Model):
    """What a person writes. Personal: never logged, never put into a message.

    Texts are trimmed; their limits count characters, the lower one those that can be seen.
    """

    model_config = ConfigDict(extra="forbid")

    @field_validator("*", mode="before")
    @classmethod
    def _check_type(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what pydantic would turn into another type: true, "36", a time for a date."""
        question = _question(cls, info.field_name)
        if question.kind.is_text and isinstance(value, str):
            return displayable(value).strip() or (None if not question.is_required else "")
        types = PYTHON_TYPES.get(question.kind)
        if value is None or types is None:
            return value
        is_wrong_number = question.kind.is_number and isinstance(value, bool)
        if is_wrong_number or not isinstance(value, types):
            raise PydanticCustomError("wrong_type", "of another type")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _check_visible(cls, value: object, info: ValidationInfo) -> object:
        question = _question(cls, info.field_name)
        if not (question.kind.is_text and isinstance(value, str)):
            return value
        seen = len(" ".join(visible(value).split()))
        if not seen and not question.is_required:
            return None
        shortest = question.at_least or 1
        if seen < shortest:
            raise PydanticKnownError("string_too_short", {"min_length": shortest})
        return value


@cache
def questions(form: type[Form]) -> tuple[Question, ...]:
    """The fields in their order, as they are asked. Raises: Undrawable."""
    return tuple(ask(name, field) for name, field in form.model_fields.items())


@cache
def _question(form: type[Form], name: str | None) -> Question:
    return next(question for question in questions(form) if question.name == name)


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
        if detail["type"] == "value_error":  # by a validator of the whole form
            return str(detail["ctx"]["error"])
        return "Send an object with the fields' values."
    if detail["type"] == "not_displayable":
        return "Remove the characters that can't be displayed."
    return question.says or _of_constraint(question, detail)


def _of_constraint(question: Question, detail: ErrorDetails) -> str:
    """Say which limit was broken."""
    limit, value = detail.get("ctx", {}), detail["input"]
    match detail["type"]:
        case "value_error":  # raised by the form's own validator, in its own words
            return str(limit["error"])
        case "string_too_long":
            length = f"{len(str(value)):,}"
            return f"That's {length} characters; please keep it under {limit['max_length']:,}."
        case "string_too_short" if isinstance(value, str) and visible(value).strip():
            return f"Please write at least {limit['min_length']:,} characters."
        case "too_short" if limit["min_length"] > 1:
            return f"Please choose at least {limit['min_length']}."
        case "too_long":
            return f"Please choose at most {limit['max_length']}."
        case "greater_than" | "less_than" as side:
            than, bound = ("more", limit["gt"]) if side == "greater_than" else ("less", limit["lt"])
            return f"Please enter {_noun(question)} of {than} than {_shown(bound)}."
        case "multiple_of":
            return f"Please enter a multiple of {limit['multiple_of']}."
    if question.must_be_true:
        return "Please tick this box."
    if question.kind.is_text:
        return "Please fill this in."
    if question.kind.is_number or (question.kind is Kind.DATE and value is not None):
        return f"Please enter {_noun(question)}{_range(question)}."
    if question.kind in (Kind.CHOICE, Kind.CHOICES) and value:
        return f"Please choose from: {', '.join(map(str, question.options))}."
    return NOTHING[question.kind]


def _noun(question: Question) -> str:
    return f"a {question.kind}"


def _range(question: Question) -> str:
    least, most = question.at_least, question.at_most
    if least is not None and most is not None:
        return f" from {_shown(least)} to {_shown(most)}"
    if least is not None:
        return f" of at least {_shown(least)}"
    return f" of at most {_shown(most)}" if most is not None else ""


def _shown(bound: object) -> str:
    if isinstance(bound, date):
        return f"{bound:%-d %B %Y}"
    is_year = isinstance(bound, int) and abs(bound) < 10_000
    return f"{bound:,}" if isinstance(bound, int | float) and not is_year else str(bound)
