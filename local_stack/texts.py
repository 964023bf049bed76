"""A text of a JSON schema's format or pattern, for the OpenAI stand-in."""

import re
from datetime import date, timedelta
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from random import Random
from uuid import UUID

FIRST_DAY = date(2026, 1, 1)


def text_shaped(format_name: str | None, pattern: str | None, chance: Random) -> str | None:
    """Draw a text of a format, of a pattern, or of both; None if none is found."""
    if format_name is None:
        return _of_pattern(pattern or "")
    text = _of_format(format_name, chance)
    return text if pattern is None or _fits(pattern, text) else None


def _of_format(name: str, chance: Random) -> str:
    day = FIRST_DAY + timedelta(days=chance.randrange(365))
    clock = f"{chance.randrange(24):02}:{chance.randrange(0, 60, 5):02}:00Z"
    number = chance.randrange(1, 255)
    return {
        "date": f"{day}",
        "time": clock,
        "date-time": f"{day}T{clock}",
        "duration": f"PT{number}M",
        "email": f"person{number}@example.com",
        "hostname": f"host{number}.example.com",
        "ipv4": f"{IPv4Address('192.0.2.0') + number}",
        "ipv6": f"{IPv6Address('2001:db8::') + number}",
        "uuid": f"{UUID(int=chance.getrandbits(128), version=4)}",
    }[name]


def _fits(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


@cache
def _of_pattern(pattern: str) -> str | None:
    """The simplest text that fits, always the same; None if none of plain letters is found."""
    # Takes a second, with the import: only where there is a pattern, and once for each.
    from hypothesis import find, settings
    from hypothesis.errors import HypothesisException
    from hypothesis.strategies import characters, from_regex

    letters = characters(min_codepoint=32, max_codepoint=126)
    try:
        return find(
            from_regex(pattern, alphabet=letters),
            lambda text: bool(text.strip()),  # a text that shows nothing is no answer
            settings=settings(database=None, deadline=None),
        )
    except (re.error, HypothesisException, NotImplementedError):  # the last: of some parts of one
        return None
