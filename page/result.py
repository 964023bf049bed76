"""The result on the page: the parts it is made of, as its model tells them, and their HTML.

| a field's value | its part | on the page |
|---|---|---|
| a text | `Text` | a heading and the text; the first has one only if its field has a `title` |
| a `Short` text, a choice, a number, yes or no, a date | `Label` | `Level: high`, in a row |
| a number with both limits | `Meter` | a bar, and `72 of 100` |
| a list of such | `Labels` | a heading and a row |
| a list of texts | `Lines` | a heading and a list |
| an object | `Section` | a heading and its parts |
| a list of objects | `Cards` | a heading and a card for each |

What is empty is left out. Every text is the model's: it is escaped here, and in `export.py`.
"""

import html
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from enum import Enum
from itertools import groupby
from typing import Any, get_args

import streamlit as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from common.questions import in_words
from common.result import Brief, Result

DEEPEST_HEADING = 4  # <h4>
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


Part = Text | Label | Labels | Lines | Section | Cards


def draw_result(result: Result) -> None:
    """Draw the result of this task. To draw it your own way, replace this function.

    Escape each text with `html.escape`: the model wrote it.
    """
    found = as_html(parts(result)) or "<p>There is nothing in it.</p>"
    st.html(f'<div class="result">{found}</div>')


# ── The parts ───────────────────────────────────────────────────────────────────────────────


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
    return Cards(title, [item.parts if isinstance(item, Section) else [item] for item in items])


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


# ── Their HTML ──────────────────────────────────────────────────────────────────────────────


def rows(found: Sequence[Part]) -> Iterator[list[Part]]:
    """Put labels that follow each other into one row; anything else stands alone."""
    for is_label, row in groupby(found, lambda part: type(part) is Label):
        if is_label:
            yield list(row)
        else:
            yield from ([part] for part in row)


def as_html(found: Sequence[Part], level: int = 2) -> str:
    """The parts with headings from `<h2>` on, and nothing of the model's as markup."""
    drawn = ""
    for row in rows(found):  # no generator: a result may hold itself, and each frame counts
        drawn += _row(row, level)
    return drawn


def _row(row: Sequence[Part], level: int) -> str:
    match row[0]:
        case Text(title, text, is_lead, is_titled):
            style = ' class="lead"' if is_lead else ""
            heading = _heading(title, level) if is_titled or not is_lead else ""
            return f'{heading}<p dir="auto"{style}>{html.escape(text)}</p>'
        case Meter() as meter:
            return _meter(meter)
        case Label():
            chips = "".join(_chip(label) for label in row if isinstance(label, Label))
            return f'<div class="chips">{chips}</div>'
        case Labels(title, texts):
            return f'{_heading(title, level)}<ul class="chips">{_items(texts)}</ul>'
        case Lines(title, texts):
            return f"{_heading(title, level)}<ul>{_items(texts)}</ul>"
        case Section(title, inner):
            inside = as_html(inner, level + 1)
            return f'{_heading(title, level)}<div class="inner">{inside}</div>'
        case Cards(title, items):
            cards = [f'<div class="item">{as_html(item, level + 1)}</div>' for item in items]
            return _heading(title, level) + "".join(cards)


def _heading(title: str, level: int) -> str:
    tag = f"h{min(level, DEEPEST_HEADING)}"
    return f"<{tag}>{html.escape(title)}</{tag}>" if title else ""


def _chip(label: Label) -> str:
    title = f"{html.escape(label.title)}: " if label.title else ""
    return f'<span class="chip">{title}<b dir="auto">{html.escape(label.text)}</b></span>'


def _meter(meter: Meter) -> str:
    title = html.escape(meter.title)
    limits = f'min="{meter.low}" max="{meter.high}" value="{meter.value}"'
    bar = f'<meter {limits} aria-label="{title}"></meter>'
    return f'<div class="measure"><span>{title}</span>{bar}<b>{html.escape(meter.text)}</b></div>'


def _items(texts: Sequence[str]) -> str:
    return "".join(f'<li dir="auto">{html.escape(text)}</li>' for text in texts)
