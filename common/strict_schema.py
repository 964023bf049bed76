"""What OpenAI's strict mode takes: a part of JSON Schema. Anything else is refused with HTTP 400.

Source: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from collections.abc import Iterator
from typing import Any

MAX_PROPERTIES = 5_000
MAX_DEPTH = 10
MAX_ENUM_VALUES = 1_000
MAX_NAME_CHARACTERS = 120_000  # of all names and enum values together
TYPES = {"string", "number", "integer", "boolean", "object", "array", "null"}
FORMATS = {
    *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"),
}
ANYWHERE = {"type", "title", "description", "enum", "const", "anyOf", "$ref", "$defs"}
KEYWORDS = {
    "string": {"pattern", "format"},
    "number": {"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"},
    "array": {"items", "minItems", "maxItems"},
    "object": {"properties", "required", "additionalProperties"},
}
NEEDED = {"type", "anyOf", "$ref", "enum", "const"}  # one of them
KEYWORDS["integer"] = KEYWORDS["number"]

Schema = dict[str, Any]


def strict_problems(schema: Schema) -> list[tuple[str, str]]:
    """Say what strict mode refuses: the path of each field (`rewrites[].after`), and why."""
    if schema.get("type") != "object" or "anyOf" in schema:
        return [("", "the whole must be an object")]
    found = list(_problems(schema, schema, "", 1, frozenset()))
    return found + list(_too_much(schema))


def resolve(schema: Schema, root: Schema) -> Schema:
    """Follow a `$ref` within the schema. Raises: KeyError."""
    while ref := schema.get("$ref"):
        target: Any = root
        for part in str(ref).removeprefix("#").strip("/").split("/"):
            target = target[part] if part else target
        schema = target
    return schema


def _problems(
    schema: object, root: Schema, path: str, depth: int, inside: frozenset[str]
) -> Iterator[tuple[str, str]]:
    if not isinstance(schema, dict) or not schema.keys() & {
        "type",
        "anyOf",
        "$ref",
        "enum",
        "const",
    }:
        yield path, "needs a type: strict mode knows no field of any type"
        return
    if ref := schema.get("$ref"):
        if ref not in inside:  # else it holds itself, which is allowed
            yield from _problems(resolve(schema, root), root, path, depth, inside | {ref})
        return
    yield from _wrong_keywords(schema, path)
    for option in schema.get("anyOf", ()):
        yield from _problems(option, root, path, depth, inside)
    if "items" in schema:
        yield from _problems(schema["items"], root, f"{path}[]", depth, inside)
    elif schema.get("type") == "array":
        yield path, "needs a type for its items"
    if schema.get("type") == "object":
        if depth > MAX_DEPTH:
            yield path, f"is nested deeper than {MAX_DEPTH} levels"
            return
        yield from _object_problems(schema, root, path, depth, inside)


def _object_problems(
    schema: Schema, root: Schema, path: str, depth: int, inside: frozenset[str]
) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties", {})
    if schema.get("additionalProperties") is not False or not properties:
        yield path, "strict mode knows no object without named fields, such as a dict"
    if sorted(schema.get("required", ())) != sorted(properties):
        yield path, "each of its fields must be required; one that may be missing is `| None`"
    for name, value in properties.items():
        yield from _problems(value, root, f"{path}.{name}".lstrip("."), depth + 1, inside)


def _wrong_keywords(schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if unknown := set(kinds) - TYPES:
        yield path, f"strict mode has no type {', '.join(sorted(unknown))}"
    allowed = ANYWHERE.union(*(KEYWORDS.get(kind, set()) for kind in kinds))
    for keyword in sorted(schema.keys() - allowed):
        yield path, f"strict mode has no `{keyword}`"
    if "format" in schema and schema["format"] not in FORMATS:
        yield path, f"strict mode has no format `{schema['format']}`"


def _too_much(schema: Schema) -> Iterator[tuple[str, str]]:
    all_names, values = list(names(schema)), list(_enum_values(schema))
    if len(all_names) > MAX_PROPERTIES:
        yield "", f"has more than {MAX_PROPERTIES:,} fields"
    if len(values) > MAX_ENUM_VALUES:
        yield "", f"has more than {MAX_ENUM_VALUES:,} choices"
    if sum(len(str(word)) for word in all_names + values) > MAX_NAME_CHARACTERS:
        yield "", f"has more than {MAX_NAME_CHARACTERS:,} characters of names and choices"


def names(schema: object) -> Iterator[str]:
    """All names of fields and definitions."""
    for each in _schemas(schema):
        for keyword in ("properties", "$defs"):
            yield from each.get(keyword, ())


def _enum_values(schema: object) -> Iterator[object]:
    for each in _schemas(schema):
        yield from each.get("enum", ())
        if "const" in each:
            yield each["const"]


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
