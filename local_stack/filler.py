"""Fills any schema of OpenAI's strict mode with what can be counted in the input.

The same input gets the same answer, another input most likely another.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from common.strict_schema import Schema, resolve
from local_stack.counting import Counted, texts_in
from local_stack.numbers import number_within
from local_stack.texts import text_shaped

MAX_WITHIN_ITSELF = 2  # how often a definition is used inside itself, and after
MANY_VALUES = 300  # no more
MAX_ITEMS = 3  # of a list that doesn't ask for more
FULL_LISTS = 2  # lists in lists, to this depth; deeper ones have one item


class Unfillable(Exception):
    """No value that this stand-in could give would fit; the text says why."""


def fill(given: dict[str, Any], schema: Schema) -> Any:
    """Make a value that the schema allows. Raises: Unfillable."""
    chance = Random(json.dumps(given, sort_keys=True))  # noqa: S311 (nothing secret)
    return _Filler(schema, Counted(list(texts_in(given))), chance).value(schema, Place())


@dataclass(frozen=True)
class Place:
    """Where a value will be: what its field is called, and what is said about it."""

    name: str = ""
    says: str = ""
    is_item: bool = False

    @property
    def is_brief(self) -> bool:
        """Whether words are asked for, and not sentences."""
        return bool(re.search(r"\bwords?\b", self.says, re.IGNORECASE))

    def told(self, schema: Schema) -> "Place":
        says = f"{self.says} {schema.get('title', '')} {schema.get('description', '')}"
        return replace(self, says=says)


@dataclass
class _Filler:
    root: Schema
    counted: Counted
    chance: Random
    within: Counter[str] = field(default_factory=Counter)
    lists: int = 0
    values: int = 0
    has_opening: bool = False

    def __post_init__(self) -> None:
        self.labels, self.mentions = self.counted.labels(), self.counted.mentions()

    def value(self, schema: Schema, place: Place) -> Any:
        place = place.told(schema)
        self.values += 1
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choice(schema["enum"])
        if "$ref" in schema:
            return self._referenced(schema, place)
        if "anyOf" in schema:
            return self._first_that_works(schema["anyOf"], place)
        if isinstance(schema["type"], list):
            kinds = [{**schema, "type": kind} for kind in schema["type"]]
            return self._first_that_works(kinds, place)
        return self._of_type(schema, place)

    def _of_type(self, schema: Schema, place: Place) -> Any:
        match schema["type"]:
            case "object":
                with self._inside("#" if schema is self.root else ""):
                    return {
                        name: self.value(each, Place(name))
                        for name, each in schema["properties"].items()
                    }
            case "array":
                return self._list(schema, place)
            case "string":
                return self._text(schema, place)
            case "boolean":
                return self.chance.random() < 0.5
            case "null":
                return None
        number = number_within(schema, is_whole=schema["type"] == "integer", chance=self.chance)
        if number is None:
            raise Unfillable(f"there is no number that fits {place.name!r}")
        return number

    def _choice(self, values: list[Any]) -> Any:
        return self.chance.choice([value for value in values if value is not None] or values)

    def _referenced(self, schema: Schema, place: Place) -> Any:
        target = resolve(schema, self.root)
        if target is self.root:
            return self.value(target, place)
        with self._inside(schema["$ref"]):
            return self.value(target, place)

    @contextmanager
    def _inside(self, definition: str) -> Iterator[None]:
        """Refuse a definition too deep inside itself: there, a list of it is empty."""
        most = MAX_WITHIN_ITSELF if self.values < MANY_VALUES else 1
        if definition and self.within[definition] >= most:
            raise Unfillable("a schema that holds itself needs a way to end")
        self.within[definition] += 1
        try:
            yield
        finally:
            self.within[definition] -= 1

    def _first_that_works(self, options: list[Schema], place: Place) -> Any:
        """Take the first option, null last."""
        why = Unfillable(f"{place.name!r} has no options")
        for option in sorted(options, key=lambda option: option.get("type") == "null"):
            try:
                return self.value(option, place)
            except Unfillable as error:
                why = error
        raise why

    def _list(self, schema: Schema, place: Place) -> list[Any]:
        least, most = schema.get("minItems", 0), schema.get("maxItems", MAX_ITEMS)
        usual = min(MAX_ITEMS, max(2, len(self.counted.notable))) if self.lists < FULL_LISTS else 1
        items: list[Any] = []
        with self._inside_list():
            for _ in range(max(least, min(usual, most))):
                try:
                    item = self.value(schema["items"], replace(place, is_item=True))
                except Unfillable:
                    if len(items) < least:
                        raise
                    break
                if item not in items or len(items) < least:
                    items.append(item)
        return items

    @contextmanager
    def _inside_list(self) -> Iterator[None]:
        """Begin with the most notable word again."""
        before = self.labels, self.mentions
        self.labels, self.mentions = self.counted.labels(), self.counted.mentions()
        self.lists += 1
        try:
            yield
        finally:
            self.lists -= 1
            self.labels, self.mentions = before

    def _text(self, schema: Schema, place: Place) -> str:
        if "pattern" in schema or "format" in schema:
            return self._shaped(schema, place)
        if place.is_brief:
            return next(self.labels)
        if place.is_item:
            return next(self.mentions)
        if not self.has_opening:
            self.has_opening = True
            return self.counted.opening()
        return f"Something about {next(self.labels)}."

    def _shaped(self, schema: Schema, place: Place) -> str:
        text = text_shaped(schema.get("format"), schema.get("pattern"), self.chance)
        if text is None:
            why = f"this stand-in finds no text for the pattern of {place.name!r}"
            raise Unfillable(f"{why}: {schema.get('pattern')}")
        return text
