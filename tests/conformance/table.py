"""The table of `make conformance`. Each part is `check(…) -> Iterator[Row]`."""

import sys
from dataclasses import dataclass

HEAD = "| what | held | of | why not the rest |\n|---|--:|--:|---|"


@dataclass(frozen=True)
class Row:
    """One line: how many of how many hold, and in words why the rest doesn't.

    `excused` says how many of the rest are so on purpose; what is left is wrong, and the command
    fails. Which ones are wrong belongs on stderr, one a line.
    """

    what: str
    passed: int
    total: int
    rest: str = ""
    excused: int = 0

    @property
    def wrong(self) -> int:
        return self.total - self.passed - self.excused

    def __str__(self) -> str:
        return f"| {self.what} | {self.passed:,} | {self.total:,} | {self.rest} |"


def wrong(what: str, why: object) -> None:
    """Tell on stderr what does not hold."""
    print(f"{what}: {why}", file=sys.stderr)
