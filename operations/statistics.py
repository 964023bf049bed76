"""What Redis counts over all analyses, written down as events come in.

key                          value                          time to live
unfinished                   sorted set: rounds that are    a little longer than any deadline
                             not over, by deadline
count:<name>:<period>        how much of it was used        an hour more; a day's, five weeks more

A process that is killed between a change and its event leaves a count behind: an analysis that is
over counts as unfinished until its deadline has passed.
"""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from common.connection import Unreadable
from common.events import Answered, Deleted, Event, Reopened, Settled, Submitted
from common.failures import Limit
from common.record import AnalysisRecord, Tokens
from common.store import NotFound, Store, parse_record, record_key

UNFINISHED = "unfinished"
UNFINISHED_TTL = timedelta(days=8)  # more than the longest delay and deadline
COUNTS_TTL = timedelta(days=35)  # for the operator to see what a month came to
MAX_OVERDUE = 100
INPUT, OUTPUT = "input_tokens", "output_tokens"


class Spent(NamedTuple):
    """What one UTC day has come to so far."""

    analyses: int  # counted only while DAILY_ANALYSES is set
    input_tokens: int
    output_tokens: int


class Unfinished(NamedTuple):
    """How many analyses are not over, and when the next to time out is due."""

    number: int
    first_due_at: datetime | None


class Statistics:
    """Counts. Every method raises StoreUnavailable when Redis is away."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client = store.connection.client
        self._errors = store.connection.errors

    def watch(self, event: Event) -> None:
        """Count an event: a subscriber."""
        match event:
            case Submitted(record) | Reopened(record):
                self._add(record)
            case Settled(record) | Deleted(_, AnalysisRecord() as record):
                with self._errors():
                    self._client.zrem(UNFINISHED, member(record))
            case Answered(record, _, Tokens() as tokens):
                assert record.claimed_at, "a claimed record says when"
                self._count_tokens(tokens, day_of(record.claimed_at))

    def unfinished(self, now: datetime) -> Unfinished:
        """Count the analyses that are not over."""
        after = f"({timestamp(now)}"
        with self._errors():
            both = self._client.pipeline(transaction=False)
            both.zcount(UNFINISHED, after, "+inf")
            both.zrangebyscore(UNFINISHED, after, "+inf", start=0, num=1)
            number, first = both.execute()
            raw = self._client.get(record_key(request_id_of(first[0]))) if first else None
        return Unfinished(number, parse_record(raw).due_at if raw else None)

    def settle_overdue(self, now: datetime) -> None:
        """Settle analyses whose deadline has passed without anybody reading them.

        At most MAX_OVERDUE at a time, the first first.
        """
        with self._errors():
            members: list[Any] = self._client.zrangebyscore(
                UNFINISHED, "-inf", timestamp(now), start=0, num=MAX_OVERDUE
            )
        for each in members:
            with suppress(NotFound, Unreadable):
                self._store.current(request_id_of(each))
        if members:
            with self._errors():
                self._client.zrem(UNFINISHED, *members)

    def spent(self, day: str) -> Spent:
        """Tell what a UTC day (`2026-11-24`) has come to; all zero after five weeks."""
        names = (Limit.DAILY_ANALYSES, INPUT, OUTPUT)
        with self._errors():
            counts = self._client.mget(count_key(name, day) for name in names)
        return Spent(*(int(count or 0) for count in counts))

    def _add(self, record: AnalysisRecord) -> None:
        with self._errors():
            both = self._client.pipeline(transaction=False)
            both.zadd(UNFINISHED, {member(record): timestamp(record.deadline_at)})
            both.pexpire(UNFINISHED, UNFINISHED_TTL)
            both.execute()

    def _count_tokens(self, tokens: Tokens, day: str) -> None:
        counts = {
            INPUT: tokens.input_tokens,
            OUTPUT: tokens.output_tokens,
            Limit.DAILY_TOKENS: tokens.input_tokens + tokens.output_tokens,
        }
        with self._errors():
            pipeline = self._client.pipeline(transaction=False)
            for name, number in counts.items():
                pipeline.incrby(count_key(name, day), number)
                pipeline.pexpire(count_key(name, day), COUNTS_TTL)
            pipeline.execute()


def connect_statistics(store: Store) -> Statistics:
    """Make the statistics of a store, and count its events from now on."""
    statistics = Statistics(store)
    store.events.subscribe(statistics.watch)
    return statistics


def member(record: AnalysisRecord) -> str:
    """Name a round in the set of the unfinished."""
    return f"{record.request_id}:{record.round}"


def request_id_of(member: str) -> str:
    return member.partition(":")[0]


def count_key(name: str, period: str) -> str:
    return f"count:{name}:{period}"


def day_of(now: datetime) -> str:
    """Name a UTC day: `2026-11-24`."""
    return f"{now:%Y-%m-%d}"


def timestamp(time: datetime) -> str:
    """Write a time as the score of a sorted set."""
    return f"{time.timestamp():.6f}"
