"""Whoever works on the product submits as often as they like."""

from pathlib import Path

from local_stack.__main__ import environment
from operations.limit_settings import SPEND_LIMITS


def test_the_local_stack_limits_nothing_but_what_is_set() -> None:
    ports = {"page": 1, "service": 2}

    settings = environment([], ports, Path("/data"), given={"DAILY_TOKENS"})

    assert [settings.get(name.upper()) for name in SPEND_LIMITS] == ["0", "0", "0", "0", None]
