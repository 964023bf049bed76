"""What strict mode takes and refuses, and whether the check of a task sees what will be sent."""

from dataclasses import replace
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import openai
import pytest
from pydantic import BaseModel, Field, conlist, create_model

from common.result import Result
from common.strict_schema import Schema, strict_problems
from common.tasks import TaskError, _as_the_sdk_makes_it
from tests.toy.task import TASK

TEXT: Schema = {"type": "string"}
NOT_LISTED = "'required' is required to be supplied and to be an array including every key in"
IS_NO_OBJECT = "schema must be a JSON Schema of 'type: \"object\"'"
NOT_TOP_LEVEL = "reference can only point to definitions defined at the top level of the schema"
DICT = "'additionalProperties' is required to be supplied and to be false: a dict is refused"


def an_object(**fields: Schema) -> Schema:
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def nested(levels: int) -> Schema:
    schema = TEXT
    for _ in range(levels):
        schema = an_object(a=schema)
    return schema


LEGAL: dict[str, Schema] = {
    "every type": an_object(
        a={"type": "string", "title": "A", "description": "Some text."},
        b={"type": "number"},
        c={"type": "integer"},
        d={"type": "boolean"},
        e={"type": "null"},
        f={"type": "array", "items": TEXT},
        g=an_object(h=TEXT),
    ),
    "limits": an_object(
        a={"type": "number", "minimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.1},
        b={"type": "integer", "exclusiveMinimum": 0, "maximum": 9},
        c={"type": "array", "items": TEXT, "minItems": 1, "maxItems": 3},
        d={"type": "string", "pattern": "^[a-z]+$"},
    ),
    "formats": an_object(
        **{
            name: {"type": "string", "format": name}
            for name in ("date-time", "time", "date", "duration", "email", "hostname")
        },
        ipv4={"type": "string", "format": "ipv4"},
        ipv6={"type": "string", "format": "ipv6"},
        uuid={"type": "string", "format": "uuid"},
    ),
    "choices": an_object(
        a={"type": "string", "enum": ["x", "y"]},
        b={"type": "integer", "enum": [1, 2]},
        c={"type": "string", "const": "x"},
        d={"type": ["string", "null"], "enum": ["x", None]},
        e={"anyOf": [{"type": "number"}, TEXT, {"type": "null"}]},
    ),
    "a list of types": an_object(a={"type": ["integer", "null"], "minimum": 0}),
    "an object that may be null": an_object(a={**an_object(b=TEXT), "type": ["object", "null"]}),
    "itself": an_object(a={"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
    "definitions": {
        **an_object(a={"$ref": "#/$defs/A"}, b={"$ref": "#/$defs/A"}),
        "$defs": {"A": an_object(inner={"type": "array", "items": {"$ref": "#/$defs/A"}})},
    },
    "a definition that nothing uses": {**an_object(a=TEXT), "$defs": {"A": {"oneOf": []}}},
    "names of keywords": an_object(
        required=TEXT, items=TEXT, properties=TEXT, anyOf=TEXT, default=TEXT, oneOf=TEXT
    ),
    "ten levels": nested(10),
    "ten levels, in each definition": {
        **an_object(a={"$ref": "#/$defs/A"}),
        "$defs": {"A": nested(9)},
    },
    "1,000 choices": an_object(a={"type": "integer", "enum": list(range(1000))}),
    "1,000 constants more": an_object(
        **{f"f{n}": {"type": "integer", "const": n} for n in range(2000)}
    ),
    "5,000 fields": an_object(**{f"f{n}": TEXT for n in range(5000)}),
    "250 long texts": an_object(a={"type": "string", "enum": [f"{n:0100}" for n in range(250)]}),
}


@pytest.mark.parametrize("schema", LEGAL.values(), ids=LEGAL.keys())
def test_what_is_legal_has_no_problem(schema: Schema) -> None:
    assert strict_problems(schema) == []


ILLEGAL: dict[str, tuple[Schema, str, str]] = {
    "a list": ({"type": "array", "items": TEXT}, "", IS_NO_OBJECT),
    "a reference": ({"$ref": "#/$defs/A", "$defs": {"A": an_object(a=TEXT)}}, "", IS_NO_OBJECT),
    "options": (
        {**an_object(a=TEXT), "anyOf": [TEXT]},
        "",
        "schema must not have 'anyOf' at the top level",
    ),
    "any type": (an_object(a={"title": "A"}), "a", "schema must have a 'type' key"),
    "a constant of no type": (an_object(a={"const": 1}), "a", "schema must have a 'type' key"),
    "choices of no type": (
        an_object(a={"enum": ["x", None]}),
        "a",
        "schema must have a 'type' key",
    ),
    "no schema": (
        an_object(a={"type": "array", "items": True}),
        "a[]",
        "schema must have a 'type' key",
    ),
    "an unknown type": (an_object(a={"type": "text"}), "a", "'text' is not a valid type"),
    "no items": (an_object(a={"type": "array"}), "a", "array schema missing items"),
    "a dict": (an_object(a={"type": "object", "additionalProperties": TEXT}), "a", DICT),
    "a dict of anything": (an_object(a={"type": "object"}), "a", DICT),
    "more fields allowed": ({**an_object(a=TEXT), "additionalProperties": True}, "", DICT),
    "no fields": (
        an_object(a=an_object()),
        "a",
        "'properties' is required to be supplied: an object needs a field",
    ),
    "a field that may be missing": (
        {**an_object(a=TEXT, b=TEXT), "required": ["a"]},
        "",
        f"{NOT_LISTED} properties. Missing 'b'",
    ),
    "a required field that isn't there": (
        {**an_object(a=TEXT), "required": ["a", "b"]},
        "",
        "Extra required key 'b' supplied",
    ),
    "an unknown format": (
        an_object(a={"type": "string", "format": "uri"}),
        "a",
        "'uri' is not a valid format",
    ),
    "choices of several types": (
        an_object(a={"type": ["string", "integer"], "enum": ["x", 1]}),
        "a",
        "enum values must be of the same type",
    ),
    "a reference with a description": (
        {
            **an_object(a={"$ref": "#/$defs/A", "description": "Of a"}),
            "$defs": {"A": TEXT},
        },
        "a",
        "$ref cannot have keywords 'description'",
    ),
    "a reference into the fields": (
        an_object(a=TEXT, b={"$ref": "#/properties/a"}),
        "b",
        NOT_TOP_LEVEL,
    ),
    "a reference to nothing": (an_object(a={"$ref": "#/$defs/A"}), "a", NOT_TOP_LEVEL),
    "in a definition": (
        {
            **an_object(a={"type": "array", "items": {"$ref": "#/$defs/A"}}),
            "$defs": {"A": an_object(b={"type": "string", "default": "x"})},
        },
        "a[].b",
        "'default' is not permitted",
    ),
    "in an option": (
        an_object(a={"anyOf": [{"type": "null"}, {**TEXT, "minLength": 1}]}),
        "a",
        "'minLength' is not permitted",
    ),
    "eleven levels": (
        nested(11),
        "a.a.a.a.a.a.a.a.a.a.a",
        "11 levels of nesting exceeds limit of 10",
    ),
    "1,001 choices": (
        an_object(a={"type": "integer", "enum": list(range(1001))}),
        "",
        "Expected at most 1000 enum values in total within a single schema, but received 1001",
    ),
    "251 long texts": (
        an_object(a={"type": "string", "enum": [f"{n:060}" for n in range(251)]}),
        "a",
        "an enum of more than 250 values may have 15000 characters, but has 15060",
    ),
    "5,001 fields": (
        an_object(**{f"f{n}": TEXT for n in range(5001)}),
        "",
        "5001 parameters exceeds limit of 5000",
    ),
    "long names": (
        {**an_object(**{"f" * 60_000: TEXT}), "$defs": {"d" * 60_001: TEXT}},
        "",
        "120001 characters of names, enum values and constants exceeds limit of 120000",
    ),
    "long constants": (
        an_object(a={"type": "string", "const": "x" * 120_000}),
        "",
        "120001 characters of names, enum values and constants exceeds limit of 120000",
    ),
    **{
        keyword: (an_object(a={**schema, keyword: value}), "a", f"'{keyword}' is not permitted")
        for schema, unknown in (
            ({"type": "string"}, {"minLength": 1, "maxLength": 2, "default": "x", "minimum": 1}),
            ({"type": "integer"}, {"format": "int32", "not": {}, "examples": [1]}),
            (
                {"type": "array", "items": TEXT},
                {"prefixItems": [], "uniqueItems": True, "contains": {}},
            ),
            (
                an_object(b=TEXT),
                {
                    **{"allOf": [], "oneOf": [], "if": {}, "then": {}, "else": {}},
                    **{"dependentRequired": {}, "dependentSchemas": {}, "patternProperties": {}},
                },
            ),
        )
        for keyword, value in unknown.items()
        if keyword != "format"
    },
}


@pytest.mark.parametrize(("schema", "path", "why"), ILLEGAL.values(), ids=ILLEGAL.keys())
def test_what_is_illegal_is_told_with_its_path(schema: Schema, path: str, why: str) -> None:
    assert [(problem.path, problem.why) for problem in strict_problems(schema)] == [(path, why)]


def test_a_place_is_told_as_openai_tells_it() -> None:
    inner = {"type": "array", "items": {"anyOf": [{"type": "null"}, {"type": "any"}]}}

    (problem,) = strict_problems(an_object(items=inner))

    assert problem.context == ("properties", "items", "items", "anyOf", "1")
    assert problem.path == "items[]"


class Tone(StrEnum):
    CALM = "calm"
    LIVELY = "lively"


class Step(BaseModel):
    text: str
    minutes: int | None = None


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Tree(BaseModel):
    """Its schema begins with a reference, as it holds itself."""

    name: str
    children: list["Tree"]


Described = Annotated[Tone, Field(description="How it sounds.")]
DescribedStep = Annotated[Step, Field(description="The first one.")]
Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
CLASSES: dict[str, tuple[type[BaseModel], list[str]]] = {
    "plain": (create_model("M", a=str, b=int, c=float, d=bool, e=list[str], f=Literal["x"]), []),
    "an enum": (create_model("M", a=Tone, b=list[Tone]), []),
    "an enum with a description": (create_model("M", a=Described), []),
    "an enum with a default": (create_model("M", a=(Described, Tone.CALM)), ["a"]),
    "optional": (create_model("M", a=str | None, b=Step | None), []),
    "nested": (create_model("M", a=list[Step], b=DescribedStep, c=Step), []),
    "recursive": (Tree, []),
    "a recursive field": (create_model("M", a=Annotated[Tree, Field(description="A")]), []),
    "None by default": (create_model("M", a=(int | None, None), const=(str | None, None)), []),
    "5 by default": (create_model("M", a=(int, 5)), ["a"]),
    "a dict": (create_model("M", a=dict[str, int]), ["a"]),
    "a set": (create_model("M", a=set[str]), ["a"]),
    "a tuple": (create_model("M", a=tuple[int, str]), ["a", "a"]),
    "anything": (create_model("M", a=(Any, ...)), ["a"]),
    "Decimal": (create_model("M", a=Decimal), []),
    "times": (create_model("M", a=datetime, b=date, c=time, d=timedelta), []),
    "UUID": (create_model("M", a=UUID), []),
    "bytes": (create_model("M", a=bytes), ["a"]),
    "a discriminated union": (create_model("M", a=Pet), ["a", "a"]),
    "a union": (create_model("M", a=Cat | Dog), []),
    "limits": (
        create_model(
            "M", a=conlist(str, min_length=1, max_length=3), b=Annotated[int, Field(gt=0)]
        ),
        [],
    ),
    "limits of a text": (create_model("M", a=Annotated[str, Field(max_length=9)]), ["a"]),
    "choices of several types": (create_model("M", a=Literal["x", 1]), ["a", "a"]),
}


@pytest.mark.parametrize(("model", "paths"), CLASSES.values(), ids=CLASSES.keys())
def test_what_is_checked_is_what_the_sdk_sends(model: type[BaseModel], paths: list[str]) -> None:
    sent = openai.pydantic_function_tool(model)["function"]["parameters"]

    made = _as_the_sdk_makes_it(model.model_json_schema())

    assert made == sent
    assert [problem.path for problem in strict_problems(made)] == paths


class Endless(Result):
    name: str
    children: list[Annotated["Endless", Field(description="They are of its kind.")]]


def test_what_the_sdk_cannot_make_a_schema_of_is_told_before() -> None:
    with pytest.raises(RecursionError):
        openai.pydantic_function_tool(Endless)

    with pytest.raises(TaskError, match="Endless: a field or item that may hold its own kind"):
        replace(TASK, result=Endless, example_result=Endless(name="A", children=[]))


class Titled(Result):
    title: Annotated[str, Field(max_length=80)]


def test_a_task_says_who_would_refuse_its_result() -> None:
    with pytest.raises(TaskError, match="title: OpenAI would refuse it: 'maxLength' is not"):
        replace(TASK, result=Titled, example_result=Titled(title="A"))
