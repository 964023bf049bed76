"""A number within the limits of a JSON schema, for the OpenAI stand-in."""

import math
from collections.abc import Iterator
from fractions import Fraction
from random import Random
from typing import Any

MANY = 20  # steps away from the only limit, or from 0, at most


def number_within(schema: dict[str, Any], *, is_whole: bool, chance: Random) -> int | float | None:
    """Draw a number that fits; None if there is none.

    Counts as people write: 0.3 is three times 0.1, though not in binary.
    """
    step = Fraction(str(schema["multipleOf"])) if "multipleOf" in schema else None
    if is_whole:
        step = Fraction(step.numerator) if step else Fraction(1)
    candidates = _multiples(schema, step, chance) if step else _anything(schema, chance)
    return next((number for number in map(_plain, candidates) if _fits(number, schema)), None)


def _multiples(schema: dict[str, Any], step: Fraction, chance: Random) -> Iterator[Fraction]:
    """A multiple somewhere within the limits, then those next to them."""
    least, most = _limits(schema)
    first = None if least is None else math.ceil(least / step)
    last = None if most is None else math.floor(most / step)
    if first is None:
        first = 1 if last is None or last > MANY else last - MANY
    if last is None:
        last = first + MANY
    if first <= last:
        yield chance.randint(first, last) * step
    yield from (times * step for times in (first, first + 1, last, last - 1))


def _anything(schema: dict[str, Any], chance: Random) -> Iterator[Fraction]:
    """A number of few digits between the limits, then any, then the limits themselves."""
    least, most = _limits(schema)
    if least is None:
        least = Fraction(0) if most is None or most > 0 else most - MANY
    if most is None:
        most = least + MANY
    part = Fraction(chance.randint(1, 9), 10)
    between = least + (most - least) * part
    if most - least >= MANY / 4:
        yield Fraction(round(between))
    yield Fraction(round(between, 1))
    yield Fraction(round(between, 2))
    yield between
    yield least
    yield most
    yield Fraction(math.nextafter(float(least), math.inf))


def _limits(schema: dict[str, Any]) -> tuple[Fraction | None, Fraction | None]:
    least = [Fraction(str(schema[k])) for k in ("minimum", "exclusiveMinimum") if k in schema]
    most = [Fraction(str(schema[k])) for k in ("maximum", "exclusiveMaximum") if k in schema]
    return max(least, default=None), min(most, default=None)


def _plain(number: Fraction) -> int | float:
    return number.numerator if number.denominator == 1 else float(number)


def _fits(number: float, schema: dict[str, Any]) -> bool:
    return all(
        (
            schema.get("minimum", -math.inf) <= number <= schema.get("maximum", math.inf),
            schema.get("exclusiveMinimum", -math.inf) < number,
            number < schema.get("exclusiveMaximum", math.inf),
        )
    )
