"""How the fields of a task's form are asked: what the page needs to know of each.

| the field's type | how it is asked |
|---|---|
| `str` with a `max_length`; of more than `LONG` characters | a line; an area with a counter |
| `int`, `float` | a number |
| `bool`; `Literal[True]` | a checkbox; one that must be ticked |
| `Literal[…]` or an enum of texts or whole numbers | radio buttons; a list, if they are many |
| `list` of such | several choices |
| `date` | a date |
| any of them `\\| None`, with `None` as default | the same, optional |

`Field` says the rest: `title` is the label, `description` the hint, `examples` holds a placeholder;
`min_length`, `ge` and the like are the limits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from enum import Enum, StrEnum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

LONG = 200  # characters; a text that may be longer gets an area


class Kind(StrEnum):
    """How a field is asked."""

    LINE = "line"
    AREA = "area"
    WHOLE = "whole number"
    DECIMAL = "number"
    CHECKBOX = "checkbox"
    CHOICE = "choice"
    CHOICES = "choices"
    DATE = "date"

    @property
    def is_text(self) -> bool:
        return self in (Kind.LINE, Kind.AREA)

    @property
    def is_number(self) -> bool:
        return self in (Kind.WHOLE, Kind.DECIMAL)


SIMPLE_KINDS = {int: Kind.WHOLE, float: Kind.DECIMAL, bool: Kind.CHECKBOX, date: Kind.DATE}


@dataclass(frozen=True)
class Says:
    """Put into `Annotated`: the sentence about any wrong value of this field."""

    sentence: str


@dataclass(frozen=True)
class Autocomplete:
    """Put into `Annotated`: what the browser may fill in.

    Source: https://developer.mozilla.org/docs/Web/HTML/Reference/Attributes/autocomplete
    """

    token: str


@dataclass(frozen=True)
class Question:
    """A field, as the page asks it."""

    name: str
    key: str  # its name in JSON
    kind: Kind
    label: str
    hint: str
    placeholder: str
    options: tuple[str | int, ...]  # of a choice, as they are in JSON
    is_required: bool
    must_be_true: bool
    default: Any
    at_least: Any  # a number or a date; of a text or of choices, how many
    at_most: Any
    says: str
    autocomplete: str


class Undrawable(Exception):
    """The page can't ask for a field of this type; the text says what would do."""


def ask(name: str, field: FieldInfo) -> Question:
    """Make the question of a field. Raises: Undrawable."""
    plain, inner = _without_none(field.annotation)
    notes = [*field.metadata, *inner]
    at_least, at_most = _limits(notes, plain)
    kind, options = _kind(plain, at_most)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    if is_optional(field.annotation) and (field.is_required() or default is not None):
        raise Undrawable("an optional field has None as its default: write `| None = None`")
    must_be_true = get_args(plain) == (True,)
    is_required = not is_optional(field.annotation)
    if kind is Kind.CHOICES:
        if field.is_required() and not at_least:
            raise Undrawable("say how many: Field(min_length=1), or Field(default_factory=list)")
        is_required = bool(at_least)
    label = field.title or in_words(name)
    return Question(
        name=name,
        key=field.alias or name,
        kind=kind,
        label=label if is_required or kind is Kind.CHECKBOX else f"{label} (optional)",
        hint=field.description or "",
        placeholder=str(field.examples[0]) if field.examples else "",
        options=options,
        is_required=is_required,
        must_be_true=must_be_true,
        default=default,
        at_least=at_least,
        at_most=at_most,
        says=next((note.sentence for note in notes if isinstance(note, Says)), ""),
        autocomplete=next((note.token for note in notes if isinstance(note, Autocomplete)), ""),
    )


def in_words(name: str) -> str:
    """`first_step` → `First step`, `no nuts` → `No nuts`; capitals of your own stay as they are."""
    words = name.replace("_", " ").strip() if name == name.lower() else name
    return words[:1].upper() + words[1:]


def _kind(plain: Any, longest: int | None) -> tuple[Kind, tuple[str | int, ...]]:
    if plain is str:
        if longest is None:
            raise Undrawable("give this text a limit, as in Field(max_length=200)")
        return (Kind.AREA if longest > LONG else Kind.LINE), ()
    if plain in SIMPLE_KINDS:
        return SIMPLE_KINDS[plain], ()
    if get_args(plain) == (True,):
        return Kind.CHECKBOX, ()
    if get_origin(plain) is list and not is_optional(get_args(plain)[0]):
        return Kind.CHOICES, _options(_without_none(get_args(plain)[0])[0])
    return Kind.CHOICE, _options(plain)


def _options(plain: Any) -> tuple[str | int, ...]:
    found: tuple[Any, ...] = ()
    if get_origin(plain) is Literal:
        found = get_args(plain)
    elif isinstance(plain, type) and issubclass(plain, Enum):
        found = tuple(plain)
    values = tuple(option.value if isinstance(option, Enum) else option for option in found)
    if not (_are_all(str, values) or _are_all(int, values)):
        name = plain.__name__ if isinstance(plain, type) else str(plain).replace("typing.", "")
        raise Undrawable(
            f"the page can't ask for {name}; it can for str, int, float, bool, date, a Literal "
            "or an enum of texts or of whole numbers, and a list of such choices"
        )
    if any(not str(value).strip() for value in values):
        raise Undrawable("one of its choices is blank")
    return values


def _are_all(kind: type, values: tuple[Any, ...]) -> bool:
    """Whether there are values, and all of this type; of an enum that derives from it, too."""
    kinds = [isinstance(value, kind) and not isinstance(value, bool) for value in values]
    return bool(kinds) and all(kinds)


def is_optional(annotation: Any) -> bool:
    """Whether a field of this type may be None."""
    if get_origin(annotation) is Annotated:
        return is_optional(get_args(annotation)[0])
    return get_origin(annotation) in (Union, UnionType) and NoneType in get_args(annotation)


def _without_none(annotation: Any) -> tuple[Any, list[object]]:
    """Take `| None` and `Annotated` off; return the type, and what was annotated."""
    if get_origin(annotation) is Annotated:
        inner, *notes = get_args(annotation)
        plain, more = _without_none(inner)
        return plain, [*_spread(notes), *more]
    if get_origin(annotation) in (Union, UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not NoneType]
        if len(kinds) == 1:
            return _without_none(kinds[0])
    return annotation, []


def _spread(notes: Iterable[object]) -> list[object]:
    """A `Field` inside of a type keeps its limits in its metadata."""
    spread: list[object] = []
    for note in notes:
        spread += note.metadata if isinstance(note, FieldInfo) else [note]
    return spread


def _limits(notes: Iterable[object], plain: Any) -> tuple[Any, Any]:
    """The least and the most that is allowed; None where there is no such limit."""
    bounds: dict[str, Any] = {}
    for note in notes:
        for name in ("min_length", "max_length", "ge", "le", "gt", "lt"):
            if (bound := getattr(note, name, None)) is not None:
                bounds[name] = bound
    at_least = bounds.get("min_length", bounds.get("ge"))
    at_most = bounds.get("max_length", bounds.get("le"))
    step = {int: 1, date: timedelta(days=1)}.get(plain)
    if step and "gt" in bounds:
        at_least = bounds["gt"] + step
    if step and "lt" in bounds:
        at_most = bounds["lt"] - step
    return at_least, at_most
