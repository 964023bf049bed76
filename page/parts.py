"""The parts that a result is made of, as its model tells them.

| a field's value | its part | on the page |
|---|---|---|
| a text | `Text` | a heading and the text; the first has one only if its field has a `title` |
| a `Short` text, a choice, a number, yes or no, a date | `Label` | title and value, in a row |
| a number with both limits | `Meter` | a bar, and `72 of 100` |
| a list of such | `Labels` | a heading and a row |
| a list of texts | `Lines` | a heading and a list |
| an object | `Section` | a heading and its parts |
| a list of objects that hold such values alone | `Table` | a heading and a table |
| a list of other objects | `Cards` | a heading and a card for each |

What is empty is left out. Every text is the model's: it is escaped in `result.py` and `export.py`.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from enum import Enum
from itertools import groupby
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from common.questions import in_words
from common.result import Brief

MAX_COLUMNS = 4  # of a table
LISTS = (list, tuple, set, frozenset)


@dataclass(frozen=True)
class Text:
    title: str
    text: str
    is_lead: bool = False
    is_titled: bool = False  # by the task, and not only by the name of its field


@dataclass(frozen=True)
class Label:
    title: str
    text: str

    @property
    def line(self) -> str:
        return f"{self.title}: {self.text}" if self.title else self.text


@dataclass(frozen=True)
class Meter(Label):
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Labels:
    title: str
    texts: Sequence[str]


@dataclass(frozen=True)
class Lines:
    title: str
    texts: Sequence[str]


@dataclass(frozen=True)
class Section:
    title: str
    parts: "Sequence[Part]"


@dataclass(frozen=True)
class Cards:
    title: str
    items: "Sequence[Sequence[Part]]"


@dataclass(frozen=True)
class Table:
    title: str
    columns: Sequence[str]
    rows: "Sequence[Sequence[Label | None]]"  # None: this one has no such value


Part = Text | Label | Labels | Lines | Section | Cards | Table


def parts(result: BaseModel) -> list[Part]:
    """What there is to show, in the order of the fields. A text that begins it is its lead."""
    found = _parts(result)
    for place, part in enumerate(found):
        if isinstance(part, Text):
            return [*found[:place], replace(part, is_lead=True), *found[place + 1 :]]
        if not isinstance(part, Label):
            break
    return found


def _parts(value: BaseModel | dict[str, Any]) -> list[Part]:
    fields: dict[str, FieldInfo] = {}
    values = value
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        values = {name: getattr(value, name) for name in fields} | (value.model_extra or {})
    found = []
    for name, inner in dict(values).items():
        field = fields.get(name)
        title = (field and field.title) or in_words(str(name))
        notes = [*field.metadata, *_notes(field.annotation)] if field else []
        part = _part(title, inner, notes)
        if isinstance(part, Text):
            part = replace(part, is_titled=bool(field and field.title))
        if part:
            found.append(part)
    return found


def _notes(annotation: Any) -> Iterator[object]:
    """All that is written in a type: notes, limits, choices, and the types in it."""
    if isinstance(annotation, FieldInfo):
        yield from annotation.metadata
    for inner in get_args(annotation):
        yield inner
        yield from _notes(inner)


def _part(title: str, value: object, notes: Collection[object]) -> Part | None:
    """Make the part of any value: one that was paid for is shown, of whatever type it is."""
    if isinstance(value, BaseModel | dict):
        inner = _parts(value)
        return Section(title, inner) if inner else None
    if isinstance(value, LISTS):
        return _list(title, [part for item in value if (part := _part("", item, notes))])
    if value is None or not (text := _shown(value, notes)).strip():
        return None
    if _is_text(value, notes):
        return Text(title, text)
    if isinstance(value, int | float) and not isinstance(value, bool | Enum):
        return _number(title, text, value, notes)
    return Label(title, text)


def _list(title: str, items: list[Part]) -> Part | None:
    """Make one part of those of a list."""
    if not items:
        return None
    if all(isinstance(item, Label) for item in items):
        return Labels(title, [item.text for item in items if isinstance(item, Label)])
    texts = [item.text for item in items if isinstance(item, Text | Label)]
    if len(texts) == len(items):
        return Lines(title, texts)
    return _table(title, items) or Cards(title, [_inside(item) for item in items])


def _inside(item: Part) -> Sequence[Part]:
    return item.parts if isinstance(item, Section) else [item]


def _table(title: str, items: list[Part]) -> Table | None:
    """Make a table of objects that hold labels alone, and not too many for a line."""
    rows = []
    for item in items:
        labels = [part for part in _inside(item) if isinstance(part, Label)]
        if not isinstance(item, Section) or len(labels) < len(item.parts):
            return None
        rows.append({label.title: label for label in labels})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if len(columns) > MAX_COLUMNS or sum(map(len, rows)) < sum(len(_inside(i)) for i in items):
        return None
    return Table(title, columns, [[row.get(name) for name in columns] for row in rows])


def _is_text(value: object, notes: Collection[object]) -> bool:
    if not isinstance(value, str) or isinstance(value, Enum) or value in notes:
        return False
    return not any(isinstance(note, Brief) for note in notes)


def _number(title: str, text: str, value: float, notes: Collection[object]) -> Label:
    limits = [note for note in notes if not isinstance(note, type)]
    low = next((note.ge for note in limits if hasattr(note, "ge")), None)
    high = next((note.le for note in limits if hasattr(note, "le")), None)
    if low is None or high is None or not low <= value <= high:
        return Label(title, text)
    of = f"of {_shown(high)}" if low in (0, 1) else f"(from {_shown(low)} to {_shown(high)})"
    return Meter(title, f"{text} {of}", value, low, high)


def _shown(value: object, choices: Collection[object] = ()) -> str:
    match value:
        case Enum():
            return in_words(str(value.value))
        case bool():
            return "Yes" if value else "No"
        case str():
            return in_words(value) if value in choices else value
        case float():
            return repr(value).removesuffix(".0")
        case datetime():
            return f"{_shown(value.date())}, {_shown(value.timetz())}"
        case date():
            return f"{value:%-d %B %Y}"
        case time():
            shown = value.replace(tzinfo=None).isoformat("auto" if value.second else "minutes")
            return f"{shown} {value:%Z}".strip()
    return str(value)


def rows(found: Sequence[Part]) -> Iterator[list[Part]]:
    """Put labels that follow each other into one row; anything else stands alone."""
    for is_label, row in groupby(found, lambda part: type(part) is Label):
        if is_label:
            yield list(row)
        else:
            yield from ([part] for part in row)
