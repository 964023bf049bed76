"""What Redis counts over all analyses, written down as events come in.

key                          value                          time to live
unfinished                   sorted set: rounds that are    a little longer than any deadline
                             not over, by deadline
count:<name>:<period>        how much of it was used        an hour more; a day's, five weeks more

What a change of a record brings is counted in the change's own step. The rest follows it: a process
that is killed before it has counted a failed attempt's tokens, or a deletion, leaves them out.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import zip_longest
from typing import Any, NamedTuple

from common.connection import NotOurs
from common.events import AttemptFailed, Deleted, Discarded, Event, Reopened, Submitted
from common.failures import Limit
from common.fields import Tokens
from common.record import MAX_ROUNDS, AnalysisRecord
from common.states import Status
from common.store import (
    Command,
    NotFound,
    Store,
    milliseconds,
    nobodys_id,
    parse_record,
    record_key,
)
from common.versions import Unreadable

UNFINISHED = "unfinished"
UNFINISHED_TTL = timedelta(days=8)  # more than the longest delay and deadline
COUNTS_TTL = timedelta(days=35)  # for the operator to see what a month came to
MAX_OVERDUE = 100  # settled at a time, the first first
MAX_LOOKED_AT = 20  # more than crashes leave behind, before the first that is unfinished
INPUT, OUTPUT = "input_tokens", "output_tokens"

# Scripts, as each is one command for Redis, which also goes to the new primary after a fail-over.
# Only reads.
LOOK = """
local overdue_at_once, first_at_once, now = unpack(ARGV)
if now == '' then
  local time = redis.call('TIME')
  now = string.format('%d.%06d', time[1], time[2])
end
local overdue = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, overdue_at_once)
local number = redis.call('ZCOUNT', KEYS[1], '(' .. now, '+inf')
local first = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'LIMIT', 0, first_at_once)
return {now, overdue, number, first}
"""
# Adds a round, and forgets those whose records are gone by now. Safe to repeat.
ADD = """
local member, deadline, ttl_ms, forgotten = unpack(ARGV)
redis.call('ZADD', KEYS[1], deadline, member)
redis.call('PEXPIRE', KEYS[1], ttl_ms)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', forgotten)
return 'done'
"""
# A repetition counts again: of tokens, rather too many.
COUNT = """
for i, count in ipairs(KEYS) do
  redis.call('INCRBY', count, ARGV[i + 1])
  redis.call('PEXPIRE', count, ARGV[1])
end
return 'done'
"""


class Spent(NamedTuple):
    """What one UTC day has come to so far."""

    analyses: int  # counted only while DAILY_ANALYSES is set
    input_tokens: int
    output_tokens: int


class Unfinished(NamedTuple):
    """How many analyses are not over; of the first to time out, when they were due; the time."""

    number: int
    due_at: list[datetime]
    now: datetime
    overdue: list[str]  # past their deadline, and not among the others


class Gauge(NamedTuple):
    """A number that an option adds to the metrics, as they are scraped."""

    name: str
    description: str
    value: float


class Statistics:
    """Counts. Every method raises StoreUnavailable when Redis is away.

    A record that can't be read is left out: whoever looks at it is told.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._client = store.connection.client
        self._errors = store.connection.errors
        self._look_script = store.connection.script(LOOK)
        self._add_script = store.connection.script(ADD)
        self._count_script = store.connection.script(COUNT)
        self._gauges: list[Callable[[datetime], Iterable[Gauge]]] = []
        self.adds_submissions = True  # unless the limits do, in the step that admits them

    def watch(self, event: Event) -> None:
        """Count an event: a subscriber."""
        match event:
            case Submitted(record):
                if self.adds_submissions:
                    self._add(record)
            case Reopened(record):  # one that was not queued is admitted again by nobody
                self._add(record)
            case Deleted(request_id, _, number):
                rounds = range(1, MAX_ROUNDS + 1) if number is None else [number]
                with self._errors():
                    self._client.zrem(UNFINISHED, *(f"{request_id}:{each}" for each in rounds))
            case AttemptFailed(record, seconds, Tokens() as tokens) | Discarded(
                record, seconds, Tokens() as tokens
            ):
                assert record.claimed_at, "a claimed record says when"
                counts = token_counts(tokens, record.claimed_at + timedelta(seconds=seconds))
                self._count_script([*counts], [milliseconds(COUNTS_TTL), *counts.values()])

    def unfinished(self, now: datetime | None = None) -> Unfinished:
        """Count the analyses that are not over, by Redis's clock. Two Redis commands, or one."""
        time = timestamp(now) if now else ""
        now_there, overdue, number, first = self._look_script(
            [UNFINISHED], [MAX_OVERDUE, MAX_LOOKED_AT, time]
        )
        due_at = [
            record.due_at
            for record in self._read([request_id_of(each) for each in first])
            if not record.status.is_terminal
        ]
        return Unfinished(number, due_at, datetime.fromtimestamp(float(now_there), UTC), overdue)

    def _read(self, ids: list[str]) -> Iterator[AnalysisRecord]:
        """Read what can be read of these, in one command; of any that is no text, each alone."""
        values: list[Any] = []
        try:
            with self._errors():
                values = self._client.mget(map(record_key, ids)) if ids else []
        except NotOurs:
            pass
        for request_id, raw in zip_longest(ids, values):
            with suppress(NotFound, Unreadable):
                yield parse_record(raw, request_id) if values else self._store.read(request_id)

    def settle_overdue(self, members: Sequence[str]) -> None:
        """Settle analyses whose deadline has passed without anybody reading them.

        What is gone is forgotten, or can't be read by any version. When Redis goes away in between,
        the next call begins where this one did.
        """
        over = [each for each in members if self._is_over(each)]
        if over:
            with self._errors():
                self._client.zrem(UNFINISHED, *over)

    def spent(self, day: str) -> Spent:
        """Tell what a UTC day (`2026-11-24`) has come to; all zero after five weeks."""
        names = (Limit.DAILY_ANALYSES, INPUT, OUTPUT)
        with self._errors():
            counts = self._client.mget(count_key(name, day) for name in names)
        return Spent(*(int(count or 0) for count in counts))

    def check(self) -> None:
        """Raise StoreUnavailable unless Redis does all that is counted and asked; counts nothing.

        What the first script adds is what it then forgets: nobody sees it in between.
        """
        never, nobodys, probe = "-inf", nobodys_id(), count_key(INPUT, nobodys_id())
        self._add_script([UNFINISHED], [nobodys, never, milliseconds(UNFINISHED_TTL), never])
        self._count_script([probe], [1000, 1])
        with self._errors():
            self._client.delete(probe)
            self._client.zrem(UNFINISHED, nobodys)
        self.spent(day_of(self.unfinished().now))

    def add_gauges(self, tell: Callable[[datetime], Iterable[Gauge]]) -> None:
        """Ask this at each scrape, too; it may raise StoreUnavailable."""
        self._gauges.append(tell)

    def gauges(self, now: datetime) -> list[Gauge]:
        """Tell what the options know."""
        return [gauge for tell in self._gauges for gauge in tell(now)]

    def _is_over(self, each: str) -> bool:
        """Settle this round if it is overdue; say whether nothing is left to be settled."""
        try:
            record = self._store.current(request_id_of(each))
        except NotFound:
            return True
        except Unreadable as error:
            return not error.is_newer  # which that version settles
        return record.status.is_terminal or member(record) != each

    def _add(self, record: AnalysisRecord) -> None:
        forgotten = timestamp(record.published_at - self._store.ttl)
        ttl_ms = milliseconds(UNFINISHED_TTL)
        self._add_script(
            [UNFINISHED], [member(record), timestamp(record.deadline_at), ttl_ms, forgotten]
        )


def count_change(old: AnalysisRecord, new: AnalysisRecord) -> Iterator[Command]:
    """Count what a change ends, and what its result has cost."""
    if new.status.is_terminal and not old.status.is_terminal:
        yield ["ZREM", UNFINISHED, member(new)]
    if new.status is Status.COMPLETED is not old.status and new.tokens:
        assert new.finished_at, "a completed record says when"
        for key, count in token_counts(new.tokens, new.finished_at).items():
            yield ["INCRBY", key, str(count)]
            yield ["PEXPIRE", key, str(milliseconds(COUNTS_TTL))]


def token_counts(tokens: Tokens, at: datetime) -> dict[str, int]:
    """What a call at this time adds to each of the day's counts."""
    counts = {
        INPUT: tokens.input_tokens,
        OUTPUT: tokens.output_tokens,
        Limit.DAILY_TOKENS: tokens.input_tokens + tokens.output_tokens,
    }
    return {count_key(name, day_of(at)): count for name, count in counts.items()}


def connect_statistics(store: Store) -> Statistics:
    """Make the statistics of a store, and count its changes and events from now on."""
    statistics = Statistics(store)
    store.count_with_changes(count_change)
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
