from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table: what was tried, how often, and how often it went wrong (must be 0)."""

    what: str
    tried: int
    wrong: int
    note: str = ""


def beyond_bearable(count: int, of: int) -> int:
    """How much this is over two, and 0.2 % of so many."""
    return max(0, count - max(2, round(of * 0.002)))
