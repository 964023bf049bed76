"""The analysis to take along: as text, and as a Markdown file."""

import re

from common.task import Analysis


def as_text(result: Analysis, ending: str) -> str:
    """The analysis to be pasted anywhere."""
    parts = [f"{title}\n{_plain(value)}" for title, value in _sections(result)]
    return "\n\n".join([*parts, f"{ending}\n"])


def as_markdown(result: Analysis, ending: str) -> str:
    """The analysis as a file; what the model wrote stays text there, too."""
    parts = [f"## {title}\n\n{_in_markdown(value)}" for title, value in _sections(result)]
    return "\n\n".join(["# Your analysis", *parts, f"---\n\n{_in_markdown(ending)}\n"])


def _sections(result: Analysis) -> list[tuple[str, str | list[str]]]:
    return [
        (name.replace("_", " ").capitalize(), value) for name, value in result.model_dump().items()
    ]


def _plain(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "\n".join(f"- {item}" for item in value)


# Links, entities, emphasis and the like begin anywhere; lists and underlines where a line does.
_MARKUP = re.compile(r"[\\`*_\[\]<>#|~$&]|[.:](?=\S)|/(?=/)|(?<=\d)[.)]|(?<=www)\.|^[-+=]")


def _line_in_markdown(text: str) -> str:
    """Escape all that Markdown and GitHub's extensions would not show as it is.

    White space becomes single spaces: several make code at the start, a line break at the end.
    GitHub itself links a mail address even when it is escaped; others show it as text.
    Source: https://github.github.com/gfm/#backslash-escapes
    """
    return _MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _in_markdown(value: str | list[str]) -> str:
    """Keep the lines of a text, and write each item of a list into one."""
    if isinstance(value, str):
        return "\n".join(map(_line_in_markdown, value.splitlines()))
    return "\n".join(f"- {_line_in_markdown(item)}" for item in value)
