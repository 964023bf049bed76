"""What OpenAI's strict mode takes: a part of JSON Schema. Anything else is refused with HTTP 400.

Problems are told in OpenAI's words, so that they can be searched for.
Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1_000
MAX_NAME_CHARACTERS = 120_000  # of all names, enum values and constants together
LONG_ENUM = 250  # texts; of a longer enum, all together may have:
MAX_LONG_ENUM_CHARACTERS = 15_000
FORMATS = {
    *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"),
}
NUMBERS = {"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
KEYWORDS = {
    "string": {"pattern", "format"},
    "number": NUMBERS,
    "integer": NUMBERS,
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
    "boolean": set(),
    "null": set(),
}
NO_TYPE = "schema must have a 'type' key"
ANYWHERE = {"type", "title", "description", "enum", "const", "anyOf", "$defs"}

Schema = dict[str, Any]


class Problem(NamedTuple):
    """What strict mode refuses, and where: `("properties", "rewrites", "items")`."""

    context: tuple[str, ...] | None  # None: of the whole
    why: str

    @property
    def path(self) -> str:
        """The name of the field, as a developer says it: `rewrites[].after`."""
        path, steps = "", iter(self.context or ())
        for step in steps:
            if step == "items":
                path += "[]"
            elif step == "properties":
                path += f".{next(steps)}"
            else:  # which option of `anyOf` it is
                next(steps)
        return path.lstrip(".")

    def told(self) -> str:
        """The problem with its place, as OpenAI tells it."""
        return self.why if self.context is None else f"In context={self.context}, {self.why}"


def strict_problems(schema: Schema) -> list[Problem]:
    """Say what strict mode refuses in a schema, as it is sent.

    Definitions are looked at where they are used: one that isn't stands for nothing.
    """
    if schema.get("type") != "object":
        return [Problem(None, "schema must be a JSON Schema of 'type: \"object\"'")]
    if "anyOf" in schema:
        return [Problem(None, "schema must not have 'anyOf' at the top level")]
    return [*_Walk(schema).problems(schema, (), 0), *_too_much(schema)]


def resolve(schema: Schema, root: Schema) -> Schema:
    """Follow a `$ref` within the schema. Raises: KeyError."""
    while ref := schema.get("$ref"):
        target: Any = root
        for part in str(ref).removeprefix("#").strip("/").split("/"):
            target = target[part] if part else target
        schema = target
    return schema


def names(schema: object) -> Iterator[str]:
    """All names of fields and definitions."""
    for each in _schemas(schema):
        yield from each.get("properties", ())
        yield from each.get("$defs", ())


@dataclass
class _Walk:
    """Through a schema; into each definition once, as it may hold itself."""

    root: Schema
    seen: set[str] = field(default_factory=set)

    def problems(self, schema: object, context: tuple[str, ...], depth: int) -> Iterator[Problem]:
        """`depth` counts fields and items, the way OpenAI's SDK for Java does."""
        if not isinstance(schema, dict):
            yield Problem(context, NO_TYPE)
        elif depth > MAX_DEPTH:
            yield Problem(context, f"{depth} levels of nesting exceeds limit of {MAX_DEPTH}")
        elif "$ref" in schema:
            yield from self._of_reference(schema, context)
        else:
            for why in _wrong(schema):
                yield Problem(context, why)
            yield from self._inside(schema, context, depth)

    def _of_reference(self, schema: Schema, context: tuple[str, ...]) -> Iterator[Problem]:
        ref = str(schema["$ref"])
        if others := sorted(schema.keys() - {"$ref"}):
            yield Problem(context, f"$ref cannot have keywords {_quoted(others)}")
        if ref not in {"#", *(f"#/$defs/{name}" for name in self.root.get("$defs", ()))}:
            why = "reference can only point to definitions defined at the top level of the schema"
            yield Problem(context, why)
        elif ref != "#" and ref not in self.seen:
            self.seen.add(ref)
            definition = self.root["$defs"][ref.removeprefix("#/$defs/")]
            yield from self.problems(definition, context, 1)

    def _inside(self, schema: Schema, context: tuple[str, ...], depth: int) -> Iterator[Problem]:
        for name, value in schema.get("properties", {}).items():
            yield from self.problems(value, (*context, "properties", name), depth + 1)
        if "items" in schema:
            yield from self.problems(schema["items"], (*context, "items"), depth + 1)
        for index, option in enumerate(schema.get("anyOf", ())):
            yield from self.problems(option, (*context, "anyOf", str(index)), depth)


def _wrong(schema: Schema) -> Iterator[str]:
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    unknown = list(_wrong_keywords(schema, kinds))
    yield from unknown
    if not (kinds or "anyOf" in schema or unknown):
        yield NO_TYPE
    yield from _wrong_values(schema)
    if "object" in kinds:
        yield from _wrong_object(schema)
    if "array" in kinds and "items" not in schema:
        yield "array schema missing items"


def _wrong_keywords(schema: Schema, kinds: list[str]) -> Iterator[str]:
    for kind in kinds:
        if kind not in KEYWORDS:
            yield f"'{kind}' is not a valid type"
    allowed = ANYWHERE.union(*(KEYWORDS.get(kind, ()) for kind in kinds))
    for keyword in sorted(schema.keys() - allowed):
        yield f"'{keyword}' is not permitted"


def _wrong_values(schema: Schema) -> Iterator[str]:
    if "format" in schema and schema["format"] not in FORMATS:
        yield f"'{schema['format']}' is not a valid format"
    values = schema.get("enum", ())
    if len({type(value) for value in values if value is not None}) > 1:
        yield "enum values must be of the same type"
    characters = sum(map(len, filter(_is_text, values)))
    if len(values) > LONG_ENUM and characters > MAX_LONG_ENUM_CHARACTERS:
        yield (
            f"an enum of more than {LONG_ENUM} values may have {MAX_LONG_ENUM_CHARACTERS} "
            f"characters, but has {characters}"
        )


def _wrong_object(schema: Schema) -> Iterator[str]:
    properties, required = schema.get("properties", {}), schema.get("required", ())
    if schema.get("additionalProperties") is not False:
        yield "'additionalProperties' is required to be supplied and to be false: a dict is refused"
    elif not properties:
        yield "'properties' is required to be supplied: an object needs a field"
    if missing := sorted(properties.keys() - set(required)):
        why = "'required' is required to be supplied and to be an array including every key in"
        yield f"{why} properties. Missing {_quoted(missing)}"
    if extra := sorted(set(required) - properties.keys()):
        yield f"Extra required key {_quoted(extra)} supplied"


def _too_much(schema: Schema) -> Iterator[Problem]:
    schemas = list(_schemas(schema))
    fields = sum(len(each.get("properties", ())) for each in schemas)
    values = [value for each in schemas for value in each.get("enum", ())]
    constants = [each["const"] for each in schemas if "const" in each]
    characters = sum(len(str(word)) for word in [*names(schema), *values, *constants])
    if fields > MAX_PROPERTIES:
        yield Problem(None, f"{fields} parameters exceeds limit of {MAX_PROPERTIES}")
    if len(values) > MAX_ENUM_VALUES:
        yield Problem(
            None,
            f"Expected at most {MAX_ENUM_VALUES} enum values in total within a single schema, "
            f"but received {len(values)}",
        )
    if characters > MAX_NAME_CHARACTERS:
        why = f"{characters} characters of names, enum values and constants exceeds limit of"
        yield Problem(None, f"{why} {MAX_NAME_CHARACTERS}")


def _schemas(schema: object) -> Iterator[Schema]:
    """A schema and all that are written in it."""
    if not isinstance(schema, dict):
        return
    yield schema
    for keyword in ("properties", "$defs"):
        for inner in schema.get(keyword, {}).values():
            yield from _schemas(inner)
    yield from _schemas(schema.get("items"))
    for option in schema.get("anyOf", ()):
        yield from _schemas(option)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _quoted(words: list[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)
