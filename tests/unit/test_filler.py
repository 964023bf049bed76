"""The OpenAI stand-in fills any schema that strict mode takes, with what was counted."""

import json
import re
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import IntEnum, StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Literal
from uuid import UUID

import jsonschema
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, conlist

from common.result import Result, Short
from common.strict_schema import FORMATS, Schema, strict_problems
from local_stack.filler import Unfillable, fill
from tests.fakes import ADA, BOB

GIVEN = {"name": "Ada", "topics": ["looms"], "text": "I sketch machines. I like machines!"}

# ── Whether a value fits, asked of others than those who made it ──

CHECKS: dict[str, Callable[[str], object]] = {
    "date": date.fromisoformat,
    "date-time": TypeAdapter(datetime).validate_python,
    "time": TypeAdapter(time).validate_python,
    "duration": TypeAdapter(timedelta).validate_python,
    "email": re.compile(r"[\w.]+@[\w.]+\.[a-z]+").fullmatch,
    "hostname": re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*").fullmatch,
    "ipv4": IPv4Address,
    "ipv6": IPv6Address,
    "uuid": UUID,
}
FORMAT_CHECKER = jsonschema.FormatChecker(())
for name, check in CHECKS.items():
    FORMAT_CHECKER.checks(name, raises=ValueError)(lambda text, check=check: bool(check(text)))


def multiple_of(validator: object, step: float, value: float, schema: Schema) -> Any:
    """In decimals: in binary, 0.3 is not a multiple of 0.1."""
    if Decimal(str(value)) % Decimal(str(step)):
        yield jsonschema.ValidationError(f"{value} is not a multiple of {step}")


Validator = jsonschema.validators.extend(
    jsonschema.Draft202012Validator, {"multipleOf": multiple_of}
)


def fits(value: object, schema: Schema) -> bool:
    sent = json.loads(json.dumps(value))
    Validator(schema, format_checker=FORMAT_CHECKER).validate(sent)
    return True


# ── Legal schemas at random ──

WORDS = st.sampled_from(["", "In one to four words.", "Two sentences."])
NAMES = st.sampled_from(["summary", "nextStep", "first_text", "tags", "required", "items"])
STEPS = st.sampled_from([None, 0.1, 0.25, 1, 3, 2.5])
DISTANCES = st.sampled_from([None, 0, 0.05, 1, 7, 1000])


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    """Limits around a number that fits them all."""
    is_whole, step = draw(st.booleans()), draw(STEPS)
    times = draw(st.integers(-50, 50)) * (20 if is_whole else 1)
    number = Decimal(str(step or 1)) * times
    schema: Schema = {"type": "integer" if is_whole else "number"}
    if step:
        schema["multipleOf"] = step
    for limit, sign in (("inimum", -1), ("aximum", 1)):
        distance = draw(DISTANCES)
        if distance is not None:
            bound = float(number + sign * Decimal(str(distance)))
            is_open = distance > 0 and draw(st.booleans())
            name = f"exclusiveM{limit}" if is_open else f"m{limit}"
            schema[name] = int(bound) if bound.is_integer() else bound
    return schema


def texts() -> st.SearchStrategy[Schema]:
    return st.builds(
        lambda words, more: {"type": "string", "description": words, **more},
        WORDS,
        st.sampled_from([{}, *({"format": name} for name in sorted(FORMATS))]),
    )


def choices() -> st.SearchStrategy[Schema]:
    values = st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True)
    return st.one_of(
        values.map(lambda found: {"type": "string", "enum": found}),
        values.map(lambda found: {"type": "string", "const": found[0]}),
        values.map(lambda found: {"type": ["string", "null"], "enum": [*found, None]}),
        st.just({"type": "integer", "enum": [3, 5]}),
        st.just({"type": "null"}),
        st.just({"type": "boolean"}),
    )


def lists_of(items: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    def a_list(inner: Schema, words: str, least: int | None, room: int | None) -> Schema:
        schema: Schema = {"type": "array", "items": inner, "description": words}
        if least is not None:
            schema["minItems"] = least
        if room is not None:
            schema["maxItems"] = (least or 0) + room
        return schema

    few = st.sampled_from([None, 0, 1, 5])
    return st.builds(a_list, items, WORDS, few, few)


def objects_of(fields: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return st.dictionaries(NAMES, fields, min_size=1, max_size=4).map(
        lambda found: {
            "type": "object",
            "properties": found,
            "required": list(found),
            "additionalProperties": False,
        }
    )


NULL = {"type": "null"}
REFS = st.sampled_from(["#", "#/$defs/A", "#/$defs/B"]).map(lambda ref: {"$ref": ref})
# What may hold itself ends somewhere: it may be null, or a list of it empty.
ENDING = st.one_of(
    REFS.map(lambda ref: {"anyOf": [ref, NULL]}),
    REFS.map(lambda ref: {"anyOf": [NULL, ref]}),
    REFS.map(lambda ref: {"type": "array", "items": ref}),
    st.just({"$ref": "#/$defs/LEAF"}),
)
FIELDS = st.recursive(
    st.one_of(texts(), numbers(), choices(), ENDING),
    lambda inner: st.one_of(
        lists_of(inner),
        objects_of(inner),
        objects_of(inner).map(lambda found: {**found, "type": ["object", "null"]}),
        st.lists(inner, min_size=1, max_size=3).map(lambda found: {"anyOf": found}),
    ),
    max_leaves=6,
)
SCHEMAS = st.builds(
    lambda root, a, b: {**root, "$defs": {"A": a, "B": b, "LEAF": {"type": "boolean"}}},
    objects_of(FIELDS),
    objects_of(FIELDS),
    objects_of(FIELDS),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCHEMAS)
def test_any_legal_schema_is_filled(schema: Schema) -> None:
    assert strict_problems(schema) == []

    value = fill(GIVEN, schema)

    assert fits(value, schema)
    assert fill(GIVEN, schema) == value


@settings(max_examples=100, deadline=None)
@given(schema=numbers())
def test_a_number_is_within_all_limits(schema: Schema) -> None:
    assert fits(fill({}, schema), schema)


# ── Results as they are written ──


class Tone(StrEnum):
    CALM = "calm"
    LIVELY = "lively"


class Stars(IntEnum):
    ONE = 1
    FIVE = 5


class Step(Result):
    text: str
    minutes: Annotated[int, Field(ge=5, le=90, multiple_of=5)]


class Everything(Result):
    summary: str
    title: Annotated[Short, Field(description="In one to four words.")]
    tone: Annotated[Tone, Field(description="How it sounds.")]
    stars: Stars
    kind: Literal["report"]
    is_clear: bool
    certainty: Annotated[float, Field(ge=0, le=1)]
    price: Decimal
    odd: Annotated[float, Field(gt=0.1, lt=0.3, multiple_of=0.2)]
    first_step: Step
    steps: Annotated[list[Step], Field(min_length=4, max_length=5)]
    words: Annotated[list[Short], Field(description="One word each.")]
    pair: conlist(str, min_length=2, max_length=2)  # type: ignore[valid-type]
    nothing: None
    perhaps: Step | None
    either: int | str
    day: date
    moment: datetime
    hour: time
    length: timedelta
    id: UUID
    place: IPv4Address
    code: Annotated[str, Field(pattern=r"^[A-Z]{2}-\d{3}$")]


class Tree(Result):
    name: str
    children: list["Tree"]
    twin: "Tree | None"


class Forest(Result):
    trees: Annotated[list[Tree], Field(min_length=2)]


class Parent(Result):
    name: str
    children: list["Child"]


class Child(Result):
    name: str
    parents: list[Parent]
    friends: list["Child"]


def schema_of(model: type[Result]) -> Schema:
    return openai.pydantic_function_tool(model)["function"]["parameters"]


@pytest.mark.parametrize("model", [Everything, Tree, Forest, Parent])
@pytest.mark.parametrize("given_", [ADA.model_dump(), BOB.model_dump(), {}, {"text": "?!🌱"}])
def test_a_result_is_filled(model: type[Result], given_: dict[str, Any]) -> None:
    schema = schema_of(model)

    value = fill(given_, schema)

    assert fits(value, schema)
    assert model.model_validate_json(json.dumps(value))


def test_a_tree_has_a_child() -> None:
    tree = Tree.model_validate(fill(GIVEN, schema_of(Tree)))

    assert tree.children
    assert tree.twin


def test_many_definitions_within_each_other_are_few_values() -> None:
    names = ["a", "b", "c", "d", "e"]
    fields = {name: {"type": "array", "items": {"$ref": f"#/$defs/{name}"}} for name in names}
    each = {
        "type": "object",
        "properties": fields,
        "required": names,
        "additionalProperties": False,
    }

    value = fill(GIVEN, {**each, "$defs": dict.fromkeys(names, each)})

    assert len(json.dumps(value)) < 100_000


# ── What it says ──


class Words(Result):
    headline: str
    next_step: str
    label: Annotated[str, Field(description="Up to three words.")]
    tags: Annotated[list[str], Field(description="Tags, one word each.")]
    remarks: list[str]


def test_texts_say_what_was_counted() -> None:
    found = Words.model_validate(fill(GIVEN, schema_of(Words)))

    assert found.headline == (
        "You wrote 8 words in 2 sentences; the longest word is “machines”. "
        "What you return to most is machines."
    )
    assert found.next_step == "Something about machines."
    assert found.label == "sketch"
    assert found.tags == ["machines", "sketch", "looms"]
    assert found.remarks == [
        "You wrote “machines” twice.",
        "You wrote “sketch” once.",
        "You wrote “looms” once.",
    ]


def test_a_long_list_repeats_nothing() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "minItems": 20}

    assert len(set(fill(GIVEN, schema))) == 20


@pytest.mark.parametrize(
    "text", ["?!?!?!?!", "1234567890", "🌱" * 10, "私は機械が大好きです。", "a b c"]
)
def test_any_text_gets_readable_ones(text: str) -> None:
    assert Words.model_validate(fill({"text": text}, schema_of(Words)))


def test_a_word_without_end_is_cut() -> None:
    found = Words.model_validate(fill({"text": "a" * 100_000}, schema_of(Words)))

    assert len(found.model_dump_json()) < 2000


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "boolean"},
        {"type": "string", "enum": ["x", "y"]},
        {"type": "integer", "minimum": 1, "maximum": 5},
        {"type": "string", "format": "date"},
    ],
    ids=lambda schema: schema["type"],
)
def test_other_inputs_get_other_values(schema: Schema) -> None:
    values = {str(fill({"text": f"{number}"}, schema)) for number in range(30)}

    assert len(values) > 1


# ── What it can't fill ──


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "integer", "minimum": 2, "maximum": 1}, "no number that fits"),
        ({"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1}, "no number that fits"),
        ({"type": "integer", "multipleOf": 7, "minimum": 8, "maximum": 13}, "no number that fits"),
        ({"type": "string", "pattern": "^("}, "finds no text for the pattern"),
        ({"type": "string", "pattern": "a^b"}, "finds no text for the pattern"),
        ({"type": "string", "pattern": "^x", "format": "date"}, "finds no text for the pattern"),
    ],
)
def test_what_has_no_solution_is_told(schema: Schema, why: str) -> None:
    with pytest.raises(Unfillable, match=why):
        fill(GIVEN, schema)


def test_what_holds_itself_without_end_is_told() -> None:
    endless = {"type": "object", "properties": {"a": {"$ref": "#"}}}

    with pytest.raises(Unfillable, match="needs a way to end"):
        fill(GIVEN, endless)


def test_another_option_is_taken_where_the_first_has_no_solution() -> None:
    options = [{"type": "integer", "minimum": 2, "maximum": 1}, {"type": "null"}]

    assert fill(GIVEN, {"anyOf": options}) is None
