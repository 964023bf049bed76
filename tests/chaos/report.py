from typing import NamedTuple


class Row(NamedTuple):
    """One line of the table: what was tried, how often, and how often it went wrong (must be 0)."""

    what: str
    tried: int
    wrong: int
    note: str = ""
