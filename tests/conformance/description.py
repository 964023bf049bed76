"""OpenAI's own description of its Responses API: what fits it, and values made from it."""

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from openai.types.responses import Response
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.openai_answers import Json, Maker

FILE = "openai-responses.json"
SCHEMAS = "#/components/schemas/"
DEEP = 5  # objects in objects; below, only what must be


class Description:
    """OpenAI's description: which schema is whose, and whether something fits it."""

    def __init__(self, specs: Path) -> None:
        # Of its unions, several members often fit: `type` tells which, not that one alone fits.
        self.whole = json.loads((specs / FILE).read_text().replace('"oneOf"', '"anyOf"'))
        self.schemas: dict[str, Json] = self.whole["components"]["schemas"]
        self.version: str = self.whole["info"]["version"]
        resource = Resource.from_contents(self.whole, default_specification=DRAFT202012)
        self._registry: Registry[Any] = Registry().with_resource("urn:openai", resource)

    def operation(self, method: str, path: str) -> Json:
        """What is said of a call. Raises: KeyError when nothing is."""
        for template, operations in self.whole["paths"].items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path.removeprefix("/v1")):
                return operations[method.lower()]
        raise KeyError(path)

    def joined(self, schema: Json) -> Json:
        """One object of all the parts that an `allOf` joins."""
        properties: dict[str, Json] = {}
        required: list[str] = []
        for part in [*schema["allOf"], schema]:
            while "$ref" in part:
                part = self.schemas[part["$ref"].removeprefix(SCHEMAS)]
            if part is not schema and "allOf" in part:
                part = self.joined(part)
            properties |= part.get("properties", {})
            required += part.get("required", [])
        return {"type": "object", "properties": properties, "required": required}

    def problems(self, body: Json, schema: Json) -> list[str]:
        """Where a body does not fit a schema; only places and rules, for bodies are long."""
        pointer = json.loads(json.dumps(schema).replace('"#/', '"urn:openai#/'))
        validator = Draft202012Validator(pointer, registry=self._registry)
        return [f"{error.json_path}: {error.validator}" for error in validator.iter_errors(body)]


class FromDescription(Maker):
    """Makes up values of OpenAI's schemas, where `Maker` takes the SDK's types."""

    def __init__(self, description: Description, chance: random.Random) -> None:
        super().__init__(chance)
        self._description = description
        self._schemas = description.schemas
        self._times_made: Counter[int] = Counter()
        # How fields may stand, and stood: "Schema.field absent", "… null", "… given".
        self.allowed: set[str] = set()
        self.seen: set[str] = set()

    def of(self, kind: Any) -> Json:
        """Make what the description's own rules let pass: some of its kinds exclude each other."""
        name = "Response" if kind is Response else "OutputItem"
        while True:
            made = self._named(name)
            if not self._description.problems(made, {"$ref": f"{SCHEMAS}{name}"}):
                return made

    def kinds_of_item(self) -> set[str]:
        """The `type` of all that an answer may hold."""
        described = self._schemas["OutputItem"]["anyOf"]
        items = [self._description.joined({"allOf": [item]}) for item in described]
        return {item["properties"]["type"]["enum"][0] for item in items}

    def _named(self, name: str) -> Json:
        return self._make(self._schemas[name], name)

    def _make(self, schema: Json, owner: str) -> Json:
        if "$ref" in schema:
            return self._named(schema["$ref"].removeprefix(SCHEMAS))
        if "allOf" in schema:
            return self._make(self._description.joined(schema), owner)
        if kinds := schema.get("anyOf"):
            return self._make(self._choose(self._bearable(kinds)), owner)
        if "enum" in schema:
            return self._chance.choice(schema["enum"])
        return self._plain(schema, owner)

    def _plain(self, schema: Json, owner: str) -> Json:
        kind = schema.get("type", "object" if "properties" in schema else "any")
        if kind == "object":
            return self._object(schema, owner)
        if kind == "array":
            number = max(self._number(), schema.get("minItems", 0))
            return [self._make(schema["items"], owner) for _ in range(number)]
        if kind == "string":
            return self._string(schema)
        least, most = schema.get("minimum", 0), schema.get("maximum", 2048)
        plain: dict[str, list[Json]] = {
            "integer": [least, most],
            "number": [least, most, (least + most) / 2],
            "boolean": [False, True],
            "null": [None],
        }
        return self._chance.choice(plain.get(kind, [None, "anything", 7]))

    def _string(self, schema: Json) -> str:
        if "pattern" in schema:
            return "tunnel_" + "a" * 32 if "tunnel" in schema["pattern"] else "name"
        least, most = schema.get("minLength", 0), schema.get("maxLength", 100)
        text: str = self._chance.choice(["", "text", "{}", "é\n\u2028", "x" * 100])
        return text.ljust(least, "x")[:most]

    def _object(self, schema: Json, owner: str) -> Json:
        self._depth += 1
        required = schema.get("required", ())
        made = dict.fromkeys(required, "of no known type")  # some are not described any further
        for name, field in schema.get("properties", {}).items():
            if self._depth < DEEP:
                self._stand(made, f"{owner}.{name}", name, field, is_free=name not in required)
            elif name in required:
                made[name] = self._make(field, owner)
        self._depth -= 1
        return made

    def _stand(self, made: Json, full_name: str, name: str, field: Json, is_free: bool) -> None:
        """Give a field, leave it out or make it null: first what has not been yet."""
        states = self._states(field) | ({"absent"} if is_free else set())
        self.allowed |= {f"{full_name} {each}" for each in states}
        unseen = [each for each in sorted(states) if f"{full_name} {each}" not in self.seen]
        state = self._chance.choice(unseen or sorted(states))
        self.seen.add(f"{full_name} {state}")
        if state != "absent":
            made[name] = None
        while state == "given" and made[name] is None:
            made[name] = self._make(field, full_name.partition(".")[0])

    def _states(self, schema: Json) -> set[str]:
        """Whether a value may be null, or must."""
        if "$ref" in schema:
            return self._states(self._schemas[schema["$ref"].removeprefix(SCHEMAS)])
        if kinds := schema.get("anyOf"):
            return set().union(*map(self._states, kinds))
        return {"null" if schema.get("type") == "null" else "given"}

    def _number(self) -> int:
        """Longer lists, until all there is has been made."""
        few = super()._number()
        return few if self.allowed <= self.seen else few * 3

    def _choose(self, kinds: list[Json]) -> Json:
        """Any, and now and then what was seldom made: else there are some that never are."""
        seldom = min(kinds, key=lambda kind: self._times_made[id(kind)])
        kind = seldom if self._chance.random() < 0.5 else self._chance.choice(kinds)
        self._times_made[id(kind)] += 1
        return kind

    def _bearable(self, kinds: list[Json]) -> list[Json]:
        """Deep inside, only what holds no more objects, if there is such."""
        if self._depth < DEEP:
            return kinds
        return [kind for kind in kinds if "$ref" not in kind and "properties" not in kind] or kinds
