"""Any result is drawn and exported: every value of it, as text, and nothing else."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from html.parser import HTMLParser
from typing import Annotated, Any, Literal
from uuid import UUID

import hypothesis
import pytest
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from streamlit.testing.v1 import AppTest

from common.result import Result, Short
from page import export
from page.parts import Cards, Label, Labels, Lines, Meter, Part, Section, Table, Text, parts
from page.result import as_html
from tests.fakes import ANALYSIS
from tests.unit.test_export import MARKUP, blocks


class Urgency(StrEnum):
    LOW = "low"
    VERY_HIGH = "very_high"


class Level(IntEnum):
    FIRST = 1
    SECOND = 2


class Rewrite(Result):
    before: str
    after: str | None
    why: Short
    score: Annotated[int, Field(ge=0, le=10)]


class Cause(Result):
    name: Short | None
    details: str | None
    rewrites: list[Rewrite]


class Everything(Result):
    urgency: Urgency
    verdict: str
    tone: Short
    mood: Short | None
    kind: Literal["quick_fix", "redesign"] | None
    level: Level | None
    match: Annotated[int, Field(title="How well it fits", ge=0, le=100)]
    clarity: Annotated[float, Field(ge=-1, le=1)] | None
    years: int | None
    hours: float
    escalate: bool
    due: date | None
    sent_at: datetime | None
    themes: list[Short]
    urgencies: list[Urgency]
    next_steps: list[str]
    scores: list[Annotated[int, Field(ge=1, le=5)]]
    reply: str | None
    cause: Cause
    other_cause: Cause | None
    rewrites: list[Rewrite]


REWRITE = Rewrite(before="Was in charge", after=None, why="vague", score=7)
FULL = Everything(
    urgency=Urgency.VERY_HIGH,
    verdict="It fits.\nMostly.",
    tone="warm",
    mood=None,
    kind="quick_fix",
    level=Level.SECOND,
    match=72,
    clarity=0.5,
    years=5,
    hours=2.0,
    escalate=False,
    due=date(2026, 5, 3),
    sent_at=datetime(2026, 5, 3, 14, 5, tzinfo=UTC),
    themes=["machines", "walking"],
    urgencies=[Urgency.LOW, Urgency.VERY_HIGH],
    next_steps=["Build one."],
    scores=[3],
    reply="Dear Ada",
    cause=Cause(name="haste", details="Too fast.", rewrites=[REWRITE]),
    other_cause=Cause(name=None, details=None, rewrites=[]),
    rewrites=[REWRITE, REWRITE],
)
REWRITE_PARTS: list[Part] = [
    Text("Before", "Was in charge"),
    Label("Why", "vague"),
    Meter("Score", "7 of 10", 7, 0, 10),
]


def test_each_field_is_shown_as_its_type_asks_and_an_empty_one_is_left_out() -> None:
    assert parts(FULL) == [
        Label("Urgency", "Very high"),
        Text("Verdict", "It fits.\nMostly.", is_lead=True),
        Label("Tone", "warm"),
        Label("Kind", "Quick fix"),
        Label("Level", "2"),
        Meter("How well it fits", "72 of 100", 72, 0, 100),
        Meter("Clarity", "0.5 (from -1 to 1)", 0.5, -1, 1),
        Label("Years", "5"),
        Label("Hours", "2"),
        Label("Escalate", "No"),
        Label("Due", "3 May 2026"),
        Label("Sent at", "3 May 2026, 14:05 UTC"),
        Labels("Themes", ["machines", "walking"]),
        Labels("Urgencies", ["Low", "Very high"]),
        Lines("Next steps", ["Build one."]),
        Labels("Scores", ["3 of 5"]),
        Text("Reply", "Dear Ada"),
        Section(
            "Cause",
            [
                Label("Name", "haste"),
                Text("Details", "Too fast."),
                Cards("Rewrites", [REWRITE_PARTS]),
            ],
        ),
        Cards("Rewrites", [REWRITE_PARTS, REWRITE_PARTS]),
    ]


def test_the_html_of_a_result() -> None:
    assert as_html(parts(ANALYSIS)) == (
        '<p dir="auto" class="lead">You like machines.</p>'
        '<dl class="facts"><div><dt>Tone</dt><dd dir="auto">curious</dd></div></dl>'
        '<h2>Themes</h2><ul class="chips"><li dir="auto">machines</li></ul>'
        '<h2>Suggestions</h2><ul class="lines"><li dir="auto">Build one.</li></ul>'
    )


def test_labels_that_follow_each_other_stand_in_one_row() -> None:
    chips = [Label("a", "1"), Label("b", "2")]

    assert as_html([*chips, Text("c", "3"), *chips]).count('<dl class="facts">') == 2


def test_a_meter_says_its_value_as_text_too() -> None:
    assert as_html([Meter("Fit", "72 of 100", 72, 0, 100)]) == (
        '<div class="measure"><span>Fit</span>'
        '<meter min="0" max="100" value="72" aria-label="Fit"></meter><b>72 of 100</b></div>'
    )


def test_headings_go_one_level_deeper_with_each_object_down_to_the_fourth() -> None:
    inner = Section("b", [Section("c", [Section("d", [Text("e", "f")])])])

    drawn = as_html([Section("a", [inner])])

    assert [tag for tag, _ in Parsed(drawn).tags if tag[0] == "h"] == ["h2", "h3", "h4", "h4", "h4"]


class Ingredient(Result):
    name: Short
    amount: Annotated[int, Field(ge=0, le=10)]
    unit: Short | None


class Recipe(Result):
    ingredients: list[Ingredient]


RECIPE = Recipe(
    ingredients=[
        Ingredient(name="<b>milk", amount=3, unit=None),
        Ingredient(name="salt|", amount=1, unit="g"),
    ]
)


def test_objects_of_short_values_are_a_table() -> None:
    [table] = parts(RECIPE)
    assert table == Table(
        "Ingredients",
        ["Name", "Amount", "Unit"],
        [
            [Label("Name", "<b>milk"), Meter("Amount", "3 of 10", 3, 0, 10), None],
            [Label("Name", "salt|"), Meter("Amount", "1 of 10", 1, 0, 10), Label("Unit", "g")],
        ],
    )
    drawn = as_html([table])
    assert '<h2>Ingredients</h2><table><thead><tr><th scope="col">Name</th>' in drawn
    assert '<td data-title="Name"><span dir="auto">&lt;b&gt;milk</span></td>' in drawn
    assert '<span dir="auto">3 of 10</span><meter min="0" max="10" value="3"' in drawn
    assert "<td></td></tr>" in drawn


def test_a_table_in_the_exports() -> None:
    assert export.as_text(RECIPE, "The end.") == (
        "Ingredients\n- Name: <b>milk, Amount: 3 of 10\n"
        "- Name: salt|, Amount: 1 of 10, Unit: g\n\nThe end.\n"
    )
    assert [text for _, text in blocks(export.as_markdown(RECIPE, "The end."))] == [
        *("Analysis", "Ingredients", "Name", "Amount", "Unit"),
        *("<b>milk", "3 of 10", "", "salt|", "1 of 10", "g", "", "The end."),
    ]


@pytest.mark.parametrize(
    "item",
    [{"a": 1, "b": [2]}, {name: 1 for name in "abcde"}, {"a": 1, "A": 2}],
    ids=["a list", "too many for a line", "two of one name"],
)
def test_what_no_table_can_show_is_none(item: dict[str, object]) -> None:
    found = parts(Odd.model_construct(value=[item, {"a": 1}]))

    assert not any(isinstance(part, Table) for part in found)


def test_a_text_after_a_heading_is_no_lead() -> None:
    class Late(Result):
        steps: list[str]
        remark: str

    assert parts(Late(steps=["One"], remark="Two"))[1] == Text("Remark", "Two")


def test_objects_in_the_exports() -> None:
    result = Cause(name="haste", details=None, rewrites=[REWRITE, REWRITE])

    rewrite = "Before\nWas in charge\n\nWhy: vague\n\nScore: 7 of 10\n\n"
    assert export.as_text(result, "The end.") == (
        f"Name: haste\n\nRewrites\n\n1 of 2\n\n{rewrite}2 of 2\n\n{rewrite}The end.\n"
    )
    rewrite = "#### Before\n\nWas in charge\n\n**Why:** vague\n\n**Score:** 7 of 10\n\n"
    assert export.as_markdown(result, "The end.") == (
        "# Analysis\n\n**Name:** haste\n\n## Rewrites\n\n"
        f"### 1 of 2\n\n{rewrite}### 2 of 2\n\n{rewrite}---\n\nThe end.\n"
    )


# ── Hostile texts ───────────────────────────────────────────────────────────────────────────

HOSTILE = (
    '<img src=x onerror="alert(1)">',
    "'\"><script>alert(1)</script><b>",
    "</p></div><meter value=1>",
    "<!-- &lt;b&gt; &#65; &copy",
    "**x** _y_ [a](http://b.example) ![c](https://canary.example/d)",
    "</li><style>*{display:none}</style>",
    "مرحبا ‮abc",
    *MARKUP.values(),
)
texts = (
    st.lists(
        st.sampled_from([*HOSTILE, "\n", "\n\n", " ", "\t"])
        | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=4),
        min_size=1,
        max_size=3,
    )
    .map("".join)
    .map(lambda text: f"{text}a")  # so that something of it can be seen
)
rewrites = st.builds(
    Rewrite, before=texts, after=st.none() | texts, why=texts, score=st.integers(0, 10)
)
causes = st.builds(
    Cause,
    name=st.none() | texts,
    details=st.none() | texts,
    rewrites=st.lists(rewrites, max_size=2),
)
everything = st.builds(
    Everything,
    verdict=texts,
    tone=texts,
    mood=st.none() | texts,
    match=st.integers(0, 100),
    clarity=st.none() | st.floats(-1, 1),
    hours=st.floats(allow_nan=False, allow_infinity=False),
    themes=st.lists(texts, max_size=2),
    nextSteps=st.lists(texts, max_size=2),
    scores=st.lists(st.integers(1, 5), max_size=2),
    reply=st.none() | texts,
    cause=causes,
    otherCause=st.none() | causes,
    rewrites=st.lists(rewrites, max_size=2),
)


def leaves(value: object) -> Iterator[str]:
    """Each value in a result, as it is shown."""
    if isinstance(value, BaseModel):
        for _, inner in value:
            yield from leaves(inner)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    elif isinstance(value, bool):
        yield "Yes" if value else "No"
    elif isinstance(value, float):
        yield str(value).removesuffix(".0")
    elif isinstance(value, date):
        yield value.strftime("%-d %B %Y")
    elif isinstance(value, Enum) or value in ("quick_fix", "redesign"):
        yield str(value).replace("_", " ").capitalize()
    elif value is not None:
        yield str(value)


class Parsed(HTMLParser):
    """The tags of an HTML text with their attributes, and the texts between them."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.texts = [""]
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))
        self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.texts.append("")

    def handle_data(self, data: str) -> None:
        self.texts[-1] += data

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", []))

    def handle_decl(self, decl: str) -> None:
        self.tags.append(("declaration", []))

    def handle_pi(self, data: str) -> None:
        self.tags.append(("instruction", []))


TABLE_TAGS = {"table", "thead", "tbody", "tr", "th", "td"}
OUR_TAGS = {
    *TABLE_TAGS,
    *["p", "div", "span", "b", "h2", "h3", "h4", "ul", "dl", "dt", "dd", "li", "meter"],
}
OUR_CLASSES = {"lead", "chips", "facts", "lines", "measure", "inner", "item"}
OUR_BLOCKS = {"p", "p  strong_close strong_open", "ul li p", "hr"} | {f"h{n}" for n in range(1, 7)}


def squeezed(text: str) -> str:
    return " ".join(text.split())


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
@hypothesis.given(everything)
def test_every_value_is_on_the_page_and_none_of_it_is_markup(result: Everything) -> None:
    drawn = Parsed(as_html(parts(result)))

    for leaf in leaves(result):
        assert any(
            text == leaf or text.startswith((f"{leaf} ", f"{leaf},")) for text in drawn.texts
        ), leaf
    for tag, attributes in drawn.tags:
        assert tag in OUR_TAGS
        for name, value in attributes:
            assert name in {
                "dir",
                "class",
                "scope",
                "data-title",
                "min",
                "max",
                "value",
                "aria-label",
            }
            assert name != "class" or value in OUR_CLASSES


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
@hypothesis.given(everything)
def test_every_value_is_in_the_exports_and_none_of_it_is_markup(result: Everything) -> None:
    text = export.as_text(result, "The end.")
    rendered = blocks(export.as_markdown(result, "The end."))

    shown = squeezed("\n".join(block for _, block in rendered))
    for leaf in leaves(result):
        assert leaf in text
        assert squeezed(leaf) in shown
    assert {elements for elements, _ in rendered} <= OUR_BLOCKS


@hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
@hypothesis.given(everything)
def test_nothing_is_said_of_what_is_empty(result: Everything) -> None:
    drawn = {text.removesuffix(": ") for text in Parsed(as_html(parts(result))).texts}

    titles = {"mood": "Mood", "kind": "Kind", "reply": "Reply", "other_cause": "Other cause"}
    for name, title in titles.items():
        assert (title in drawn) == any(leaves(getattr(result, name))), name


# ── What else a model may answer ────────────────────────────────────────────────────────────


class Plain(BaseModel):
    city: str


@dataclass
class Place:
    city: str


class Operator(Enum):
    ge = "ge"
    le = "le"


class Odd(Result):
    model_config = ConfigDict(extra="allow")

    value: Operator | Annotated[int, Field(ge=0, le=10)] | Any


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("NaN"), "NaN"),
        (Decimal("1.50"), "1.50"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (11, "11"),
        (timedelta(hours=1), "1:00:00"),
        (time(14, 5), "14:05"),
        (Plain(city="Rome"), "Rome"),
        ({"city": "Rome"}, "Rome"),
        (Place("Rome"), "Rome"),
        (Operator.ge, "Ge"),
        ([["Rome"], ["Oslo", "Bern"]], "Bern"),
        ([Plain(city="Rome"), "Oslo"], "Oslo"),
        (b"Rome", "Rome"),
    ],
    ids=str,
)
def test_a_value_of_any_type_is_shown(value: object, shown: str) -> None:
    result = Odd.model_construct(value=value)

    assert shown in as_html(parts(result))
    assert shown in export.as_text(result, "The end.")
    assert shown in export.as_markdown(result, "The end.").replace("\\", "")


@pytest.mark.parametrize("number", [11, -1, float("nan")])
def test_a_number_outside_its_limits_gets_no_meter(number: float) -> None:
    assert parts(REWRITE.model_copy(update={"score": number}))[-1] == Label("Score", str(number))


def test_what_another_version_of_the_task_wrote_is_shown() -> None:
    result = Odd.model_validate({"value": 1, "advice": "Rest.", "steps": [{"first": "Sleep"}]})

    assert parts(result)[1:] == [
        Text("Advice", "Rest.", is_lead=True),
        Cards("Steps", [[Text("First", "Sleep")]]),
    ]


class Node(Result):
    name: Short
    next: "Node | None"


def test_a_result_that_holds_itself_is_drawn_as_deep_as_json_is_read() -> None:
    node: object = None
    for _ in range(190):
        node = {"name": "node", "next": node}
    result = Node.model_validate_json(json.dumps(node))

    assert as_html(parts(result)).count(">node<") == 190
    assert export.as_text(result, "The end.").count("Name: node") == 190
    assert export.as_markdown(result, "The end.").count("**Name:** node") == 190


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (FULL, "It fits."),
        (Cause(name=None, details=None, rewrites=[]), "There is nothing in it."),
    ],
    ids=["full", "empty"],
)
def test_the_page_draws_it(result: Result, said: str) -> None:
    def script(result):  # type: ignore[no-untyped-def]
        from page.result import draw_result

        draw_result(result)

    page = AppTest.from_function(script, args=(result,)).run(timeout=20)

    assert not page.exception
    [drawn] = page.get("html")
    assert said in drawn.proto.body
