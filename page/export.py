"""The result to take along: as text, and as a Markdown file."""

import re
from collections.abc import Iterator, Sequence

from common.questions import in_words
from common.result import Result
from common.task import TASK
from page.parts import Cards, Label, Labels, Lines, Part, Section, Table, Text, parts, rows

DEEPEST_HEADING = 6  # of Markdown


def file_name(noun: str) -> str:
    """`Cover letter` → `cover-letter`."""
    return re.sub(r"[\W_]+", "-", noun.lower()).strip("-") or "result"


def as_text(result: Result, ending: str) -> str:
    """The result to be pasted anywhere."""
    return "\n\n".join([*_plain(parts(result)), f"{ending}\n"])


def as_markdown(result: Result, ending: str) -> str:
    """The result as a file, for whomever it gets to; what the model wrote stays text there, too."""
    title = f"# {_line_in_markdown(in_words(TASK.noun))}"
    return "\n\n".join([title, *_markdown(parts(result)), f"---\n\n{_in_markdown(ending)}\n"])


def _plain(found: Sequence[Part]) -> Iterator[str]:
    """What stands between blank lines."""
    for row in rows(found):
        match row[0]:
            case Text(title, text):
                yield f"{title}\n{text}".lstrip("\n")
            case Label():
                yield "\n".join(label.line for label in row if isinstance(label, Label))
            case Labels(title, texts) | Lines(title, texts):
                yield "\n".join(([title] if title else []) + [f"- {text}" for text in texts])
            case Section(title, inner):
                yield title
                yield from _plain(inner)
            case Table(title, _, lines):
                yield "\n".join(([title] if title else []) + [_plain_line(line) for line in lines])
            case Cards(title, items):
                if title:
                    yield title
                for number, item in enumerate(items, 1):
                    yield f"{number} of {len(items)}"
                    yield from _plain(item)


def _plain_line(line: Sequence[Label | None]) -> str:
    return f"- {', '.join(label.line for label in line if label)}"


def _markdown(found: Sequence[Part], level: int = 2) -> Iterator[str]:
    for part in found:
        if part.title and not isinstance(part, Label):
            yield _heading(part.title, level)
        match part:
            case Text(_, text):
                yield _in_markdown(text)
            case Label(title, text):
                label = f"**{_line_in_markdown(title)}:** " if title else ""
                yield label + _line_in_markdown(text)
            case Labels(_, texts) | Lines(_, texts):
                yield "\n".join(f"- {_line_in_markdown(text)}" for text in texts)
            case Section(_, inner):
                yield from _markdown(inner, level + 1)
            case Table(_, columns, lines):
                yield _table_in_markdown(columns, lines)
            case Cards(_, items):
                for number, item in enumerate(items, 1):
                    yield _heading(f"{number} of {len(items)}", level + 1)
                    yield from _markdown(item, level + 2)


def _table_in_markdown(columns: Sequence[str], lines: Sequence[Sequence[Label | None]]) -> str:
    texts = [columns, *([label.text if label else "" for label in line] for line in lines)]
    rows = [f"| {' | '.join(map(_line_in_markdown, row))} |" for row in texts]
    return "\n".join([rows[0], f"|{' --- |' * len(columns)}", *rows[1:]])


def _heading(title: str, level: int) -> str:
    return f"{'#' * min(level, DEEPEST_HEADING)} {_line_in_markdown(title)}"


# Links, entities, emphasis and the like begin anywhere; lists and underlines where a line does.
_MARKUP = re.compile(r"[\\`*_\[\]<>#|~$&]|[.:](?=\S)|/(?=/)|(?<=\d)[.)]|(?<=www)\.|^[-+=]")


def _line_in_markdown(text: str) -> str:
    """Escape all that Markdown and GitHub's extensions would not show as it is.

    White space becomes single spaces: several make code at the start, a line break at the end.
    GitHub itself links a mail address even when it is escaped; others show it as text.
    Source: https://github.github.com/gfm/#backslash-escapes
    """
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _in_markdown(text: str) -> str:
    """Keep the lines of a text."""
    return "\n".join(map(_line_in_markdown, text.splitlines()))
