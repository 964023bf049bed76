"""What the model answers: the base class of a task's result. Untrusted: escape it when drawing.

A task's result may hold texts, `Short` texts, numbers, yes or no, enums, dates, lists, and objects
that derive from `Result` themselves. Limits on numbers and on the length of lists go to the model;
OpenAI's strict mode knows none on the length of texts, so each may have `MAX_TEXT` characters.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Annotated

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from common.fields import Model, visible
from common.questions import is_optional

MAX_TEXT = 20_000  # characters


@dataclass(frozen=True)
class Brief:
    """Marks a text of a few words, which is drawn so."""


Short = Annotated[str, Brief()]


class Result(Model):
    """What the model answers. A text that shows nothing is none."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())  # see common/tasks.py

    @field_validator("*", mode="after")
    @classmethod
    def _check_texts(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields[str(info.field_name)]
        return readable(value, is_optional=is_optional(field.annotation))


def readable(value: object, *, is_optional: bool = False) -> object:
    """Trim texts, alone, in lists or in plain models.

    Raises: ValueError for a blank text, unless it is optional, and for what JSON can't hold.
    """
    if isinstance(value, list):
        return [readable(item) for item in value]
    if isinstance(value, BaseModel) and not isinstance(value, Result):  # which has done it
        return value.model_copy(update=dict(_read_fields(value)))
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("not finite")
    if type(value) is not str:  # an enum's texts are the developer's
        return value
    if len(value) > MAX_TEXT:
        raise ValueError("too long")
    if visible(value).strip():
        return value.strip()
    if is_optional:
        return None
    raise ValueError("empty")


def _read_fields(model: BaseModel) -> Iterator[tuple[str, object]]:
    for name, field in type(model).model_fields.items():
        yield name, readable(getattr(model, name), is_optional=is_optional(field.annotation))


def first_text(result: Result) -> str:
    """The first text of a result, as a sample of it; all of it where there is none."""
    texts = (value for _, value in result if isinstance(value, str))
    return next(texts, result.model_dump_json(by_alias=True))
