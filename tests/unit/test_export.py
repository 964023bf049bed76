"""The result to take along: what the model wrote stays text."""

import re
import string

import hypothesis
import pytest
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from mdit_py_plugins.gfm import gfm_plugin

from page import export
from tests.fakes import ANALYSIS

HOSTILE = ANALYSIS.model_copy(update={"summary": "![x](https://canary.example/x) <img src=y>"})


def test_what_is_copied_is_what_the_model_wrote() -> None:
    assert export.as_text(HOSTILE, "The end.") == (
        "Summary\n![x](https://canary.example/x) <img src=y>\n\n"
        "Tone: curious\n\n"
        "Themes\n- machines\n\n"
        "Suggestions\n- Build one.\n\n"
        "The end.\n"
    )


def test_the_file_holds_every_field_and_what_the_model_wrote_stays_text() -> None:
    assert export.as_markdown(HOSTILE, "The end.") == (
        "# Analysis\n\n"
        "## Summary\n\n!\\[x\\](https\\:\\//canary\\.example/x) \\<img src=y\\>\n\n"
        "**Tone:** curious\n\n"
        "## Themes\n\n- machines\n\n"
        "## Suggestions\n\n- Build one.\n\n"
        "---\n\nThe end.\n"
    )


@pytest.mark.parametrize(
    ("noun", "name"),
    [
        ("analysis", "analysis"),
        ("Cover letter", "cover-letter"),
        ("../x_y", "x-y"),
        ("Prüfung", "prüfung"),
        ("🎉", "result"),
    ],
)
def test_a_file_is_named_after_what_one_gets(noun: str, name: str) -> None:
    assert export.file_name(noun) == name


GITHUB = MarkdownIt("gfm-like").use(gfm_plugin, dollarmath=True)
MARKUP = {
    "heading": "# Heading",
    "setext heading": "Heading\n===\nHeading\n---",
    "bullets": "- one\n+ two\n* three",
    "numbers": "1. one\n2) two\n\n1) one\n\n1.",
    "task list": "[ ] one\n- [x] two",
    "quotation": "> quoted",
    "alert": "> [!NOTE]\n> quoted",
    "thematic breaks": "---\n\n***\n\n_ _ _\n\n- - -",
    "indented code": "    code\n\n\tcode",
    "fenced code": "```sh\ncode\n```\n~~~\ncode",
    "hard breaks": "one  \ntwo\\\nthree",
    "emphasis": "*a* _b_ **c** __d__ ***e*** ~f~ ~~g~~",
    "code": "`code` ``co`de``",
    "maths": "$x$ $$y$$",
    "link": "[text](https://a.example) [text][1] [text]\n\n[1]: https://a.example\n[text]: /a",
    "image": "![text](https://a.example/a.png)",
    "autolink": "<https://a.example> <a@b.example>",
    "bare addresses": "https://a.example/b?c=d&e=f#g HTTP://A.EXAMPLE ftp://a.example //localhost",
    "bare names": "www.a.com a.com. (b.org) 例え.jp a.de/b",
    "mail": "a.b+c@d.com mailto:a@b.com xmpp:a@b.com/c",
    "entities": "&amp; &lt;b&gt; &#65; &#x41; &nbsp;",
    "HTML": "<b>bold</b>\n\n<script>\nalert()\n</script>\n\n<!-- x --> <?x?> <![CDATA[x]]>",
    "footnote": "text[^1] ^[inline]\n\n[^1]: note",
    "table": "a | b\n--|--\n1 | 2\n\n|a|\n|-|\n\na\n:-\nb\n\na\n-:\nb",
    "escapes": r"\* \\* \&amp; \\",
    "front matter": "---\na: b\n---",
}


def lines(text: str) -> list[str]:
    """What is kept of white space: where lines and words end. A NUL can't be shown.

    Source: https://spec.commonmark.org/0.31.2/#insecure-characters
    """
    return [" ".join(line.split()) for line in text.replace("\0", "\ufffd").splitlines()]


def blocks(markdown: str) -> list[tuple[str, str]]:
    """Each block of the rendered text with its elements, those within the text too."""
    found: list[tuple[str, str]] = []
    opened: list[str] = []
    for token in GITHUB.parse(markdown):
        if token.nesting:
            opened = [*opened, token.tag] if token.nesting > 0 else opened[:-1]
            continue
        leaves = token.children or []
        inner = {leaf.type for leaf in leaves} - {"text", "softbreak"}
        text = "".join("\n" if leaf.type == "softbreak" else leaf.content for leaf in leaves)
        found.append(
            (" ".join([*opened, token.tag, *sorted(inner)]).strip(), text or token.content)
        )
    return found


def assert_stays_text(text: str) -> None:
    result = ANALYSIS.model_copy(update={"summary": text, "themes": [text, "machines"]})
    paragraphs = re.split("\n\n+", "\n".join(lines(text)).strip("\n"))

    assert blocks(export.as_markdown(result, "The end.")) == [
        ("h1", "Analysis"),
        ("h2", "Summary"),
        *(("p", paragraph) for paragraph in paragraphs),
        ("p  strong_close strong_open", "Tone: curious"),
        ("h2", "Themes"),
        ("ul li p", " ".join(filter(None, lines(text)))),
        ("ul li p", "machines"),
        ("h2", "Suggestions"),
        ("ul li p", "Build one."),
        ("hr", ""),
        ("p", "The end."),
    ]


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in MARKUP.items()])
def test_markup_from_the_model_stays_text_in_the_file(text: str) -> None:
    assert_stays_text(text)


def test_www_is_no_link_though_a_space_follows() -> None:
    """GitHub's own parser links `www.` alone, the one used here doesn't."""
    result = ANALYSIS.model_copy(update={"summary": "www. a"})

    assert "\n\nwww\\. a\n\n" in export.as_markdown(result, "The end.")


pieces = (
    st.sampled_from([*string.punctuation, *" \t\n1ax", "\n\n", "    ", "www.", "http://", ".com"])
    | st.sampled_from([*MARKUP.values()])
    | st.text(st.characters(codec="utf-8"), max_size=3)
)


@hypothesis.settings(max_examples=100, deadline=None, derandomize=True, database=None)
@hypothesis.given(st.lists(pieces, min_size=1, max_size=12).map("".join).filter(str.strip))
def test_whatever_the_model_writes_stays_text_in_the_file(text: str) -> None:
    assert_stays_text(text)
