"""Settings of the limits on submissions and spend."""

from pydantic import Field

from common.environment import Part
from common.setting_types import MaxCount

SPEND_LIMITS = (
    "visitor_submissions_per_hour",
    "submissions_per_hour",
    "most_waiting",
    "daily_analyses",
    "daily_tokens",
)


class LimitSettings(Part):
    """Limits on submissions and spend.

    They hold for page and API together. 0: no limit, and so in the local stack unless set. The
    defaults are beyond what an honest site of one page process comes to; an office of 100
    people may be one visitor. A day's tokens are its analyses at 2,000 each.
    """

    visitor_submissions_per_hour: MaxCount = Field(
        default=100, description="How many requests one visitor of the page may send in an hour."
    )
    submissions_per_hour: MaxCount = Field(
        default=1_000, description="How many requests everybody together may send in an hour."
    )
    most_waiting: MaxCount = Field(
        default=1_000, description="How many analyses may be unfinished at once."
    )
    daily_analyses: MaxCount = Field(
        default=5_000,
        description="How many analyses are accepted before new ones wait for the next UTC day.",
    )
    daily_tokens: MaxCount = Field(
        default=10_000_000,
        description="How many tokens are spent before new analyses wait for the next UTC day.",
    )

    @property
    def unlimited(self) -> list[str]:
        """The limits on submissions and spend that are switched off, as variables."""
        return [name.upper() for name in SPEND_LIMITS if not getattr(self, name)]
