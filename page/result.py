"""The result on the page: the HTML of its parts. Every text is the model's, and is escaped."""

import html
from collections.abc import Sequence

import streamlit as st

from common.result import Result
from page.parts import Cards, Label, Labels, Lines, Meter, Part, Section, Table, Text, parts, rows

DEEPEST_HEADING = 4  # <h4>


def draw_result(result: Result) -> None:
    """Draw the result of this task. To draw it your own way, replace this function.

    Escape each text with `html.escape`: the model wrote it.
    """
    found = as_html(parts(result)) or "<p>There is nothing in it.</p>"
    st.html(f'<div class="result">{found}</div>')


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
            title = f"<span>{html.escape(meter.title)}</span>"
            return (
                f'<div class="measure">{title}{_bar(meter)}<b>{html.escape(meter.text)}</b></div>'
            )
        case Label():
            facts = "".join(_fact(label) for label in row if isinstance(label, Label))
            return f'<dl class="facts">{facts}</dl>'
        case Labels(title, texts):
            return f'{_heading(title, level)}<ul class="chips">{_items(texts)}</ul>'
        case Lines(title, texts):
            return f'{_heading(title, level)}<ul class="lines">{_items(texts)}</ul>'
        case Section(title, inner):
            inside = as_html(inner, level + 1)
            return f'{_heading(title, level)}<div class="inner">{inside}</div>'
        case Table(title, columns, lines):
            return _heading(title, level) + _table(columns, lines)
        case Cards(title, items):
            cards = [f'<div class="item">{as_html(item, level + 1)}</div>' for item in items]
            return _heading(title, level) + "".join(cards)


def _heading(title: str, level: int) -> str:
    tag = f"h{min(level, DEEPEST_HEADING)}"
    return f"<{tag}>{html.escape(title)}</{tag}>" if title else ""


def _fact(label: Label) -> str:
    title = f"<dt>{html.escape(label.title)}</dt>" if label.title else ""
    return f'<div>{title}<dd dir="auto">{html.escape(label.text)}</dd></div>'


def _bar(meter: Meter) -> str:
    limits = f'min="{meter.low}" max="{meter.high}" value="{meter.value}"'
    return f'<meter {limits} aria-label="{html.escape(meter.title)}"></meter>'


def _items(texts: Sequence[str]) -> str:
    return "".join(f'<li dir="auto">{html.escape(text)}</li>' for text in texts)


def _table(columns: Sequence[str], lines: Sequence[Sequence[Label | None]]) -> str:
    """A table, whose lines become cards where it is narrow: so each value has its title, too."""
    names = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(map(_cell, columns, line))}</tr>" for line in lines)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def _cell(column: str, label: Label | None) -> str:
    if label is None:
        return "<td></td>"
    bar = _bar(label) if isinstance(label, Meter) else ""
    text = f'<span dir="auto">{html.escape(label.text)}</span>'
    return f'<td data-title="{html.escape(column)}">{text}{bar}</td>'
