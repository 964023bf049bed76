"""How much is let in. Decides what may be reached; `Store` counts, in the step that creates.

limit           what is counted                                      setting
visitor         submissions of one visitor of the page               VISITOR_SUBMISSIONS_PER_HOUR
everyone        submissions of everybody, by page and API            SUBMISSIONS_PER_HOUR
waiting         unfinished analyses; and, with QSTASH_PARALLELISM,   MOST_WAITING
                those whose turn comes before the new one's
daily_analyses  submissions and second tries, by UTC day             DAILY_ANALYSES
daily_tokens    tokens in and out of all model calls, by UTC day     DAILY_TOKENS
paused          nothing: the AI service has just refused our access

Hours and days are those of the clock: a limit may be used up at the end of one, and again at the
beginning of the next. What was let in once is never counted again, and always runs to its end.
"""

import hmac
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from common.failures import Failure, Limit
from common.settings import Settings
from common.times import TimeLadder
from operations.limit_settings import LimitSettings

PAUSE = timedelta(minutes=5)
PAUSING = (Failure.KEY_REFUSED, Failure.QUOTA_EXCEEDED)
HOUR = timedelta(hours=1)
DAYS_KEPT = timedelta(days=35)  # for the operator to see what a month came to


class LimitReached(Exception):
    """A new analysis is rejected just now; `retry_after` says when it may be."""

    def __init__(self, limit: Limit, retry_after: timedelta) -> None:
        super().__init__(limit.sentence)
        self.limit = limit
        self.retry_after = max(retry_after, timedelta(seconds=1))


class Quota(NamedTuple):
    """How far one count may go."""

    limit: Limit
    most: int
    period: str  # 2026-11-24, or 2026-11-24T01, or that with `:<whose>`
    ends_in: timedelta
    kept: timedelta
    adds: int = 1  # when an analysis is let in


class Admission(NamedTuple):
    """What must hold for one more analysis to be let in; 0 is no limit."""

    quotas: Sequence[Quota] = ()
    most_waiting: int = 0
    most_ahead: int = 0  # of those that are not over yet when the new one is due
    slot: timedelta = timedelta(0)
    ignore_pause: bool = False


UNLIMITED = Admission(ignore_pause=True)  # for the operator, who has just mended what was wrong


def admission(
    settings: Settings, limits: LimitSettings, now: datetime, visitor: str | None = None
) -> Admission:
    """Say what must hold just now; `visitor` is None for a program, which has a rate limit."""
    parallelism, times = settings.qstash_parallelism, settings.times
    return Admission(
        list(_quotas(settings, limits, now, visitor)),
        limits.most_waiting,
        capacity(parallelism, times) if parallelism else 0,
        times.delivery_timeout,
    )


def _quotas(
    settings: Settings, limits: LimitSettings, now: datetime, visitor: str | None
) -> Iterator[Quota]:
    hour = f"{now:%Y-%m-%dT%H}"
    hour_ends_in = now.replace(minute=0, second=0, microsecond=0) + HOUR - now
    this_hour = hour, hour_ends_in, HOUR
    this_day = day_of(now), hour_ends_in + HOUR * (23 - now.hour), DAYS_KEPT
    if most := limits.daily_analyses:
        yield Quota(Limit.DAILY_ANALYSES, most, *this_day)
    if most := limits.daily_tokens:
        yield Quota(Limit.DAILY_TOKENS, most, *this_day, adds=0)  # they count when spent
    if most := limits.submissions_per_hour:
        yield Quota(Limit.EVERYONE, most, *this_hour)
    if visitor and (most := limits.visitor_submissions_per_hour):
        # Keyed, so that no address can be guessed from what is stored.
        key = settings.qstash_token.get_secret_value().encode()
        whose = hmac.digest(key, visitor.encode("utf-8", "replace"), "sha256").hex()[:32]
        yield Quota(Limit.VISITOR, most, f"{hour}:{whose}", hour_ends_in, HOUR)


def day_of(now: datetime) -> str:
    """Name a UTC day: `2026-11-24`."""
    return f"{now:%Y-%m-%d}"


def capacity(parallelism: int, times: TimeLadder) -> int:
    """How many analyses that are due at once all get their turn before the last moment for it.

    Each is taken to hold its place for as long as a delivery can last at all. What has its
    deadline before another is due is over by then, so this many may be ahead of any one.
    """
    last_start = times.deadline - times.call
    return parallelism * (1 + last_start // times.delivery_timeout)


def visitor_of(address: str | None, session: str) -> str:
    """Tell visitors of the page apart: by a public address, else by the session.

    An address that is none (loopback, a proxy's own) would make all visitors one.
    """
    parsed = _parse(address)
    return network(address) if address and parsed and parsed.is_global else session


def network(address: str) -> str:
    """The address of a caller; of an IPv6 one the /64, as all of it is usually one household's."""
    parsed = _parse(address)
    if isinstance(parsed, IPv6Address):
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed or address[:64])


def _parse(address: str | None) -> IPv4Address | IPv6Address | None:
    """Read an address, also one with its port, as some proxies write it."""
    text = (address or "").strip()
    for candidate in (text, text.rpartition(":")[0].strip("[]")):
        try:
            parsed = ip_address(candidate)
        except ValueError:
            continue
        return getattr(parsed, "ipv4_mapped", None) or parsed
    return None
