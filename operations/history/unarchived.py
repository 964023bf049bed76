"""What has ended and is not in the history yet, as Redis lists it.

key              value                                       time to live
unarchived       sorted set: request ids, by when they       a week longer than any record it names
                 ended
unarchived:turn  there while one process writes them         some seconds
unarchived:lost  how many were gone before they were written five weeks from the last

A request id enters in the very step that ends its analysis, whose record then lives longer, and
leaves once the database has it: no crash comes between. One that was begun again and has ended
again since has another time in the set, and stays there.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from common.connection import NotOurs
from common.record import AnalysisRecord
from common.store import Command, Store, milliseconds, record_key
from operations.statistics import COUNTS_TTL, timestamp

UNARCHIVED, TURN, LOST = "unarchived", "unarchived:turn", "unarchived:lost"
WEEK = timedelta(days=7)  # to tell of what is lost, though nothing else ends
TURN_TTL = timedelta(seconds=20)
RECENT = timedelta(minutes=1)  # what ended since is probably being written

# Gives those out that ended first, to one process at a time. Repeated, it gives none.
TAKE = """
local ttl_ms, condition, first, last = unpack(ARGV)
if not redis.call('SET', KEYS[2], '1', condition, 'PX', ttl_ms) then return false end
return redis.call('ZRANGE', KEYS[1], first, last, 'WITHSCORES')
"""
# Lets leave those whose time is still the one that is named, and gives their records their usual
# time to live again. Tells how many are left that ended some time before.
LEAVE = """
local ttl_ms, before = unpack(ARGV)
for i = 2, #KEYS do
  local request_id, ended_at = ARGV[2 * i - 1], ARGV[2 * i]
  local stored = redis.call('ZSCORE', KEYS[1], request_id)
  if stored and tonumber(stored) == tonumber(ended_at) then
    redis.call('ZREM', KEYS[1], request_id)
    redis.call('PEXPIRE', KEYS[i], ttl_ms)
  end
end
return redis.call('ZCOUNT', KEYS[1], '-inf', before)
"""
# Lets leave those that are not to be written, and counts what is lost of them; tells which left.
DROP = """
local lost_ttl_ms, left = ARGV[1], {}
for i = 2, #ARGV, 2 do
  local stored = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if stored and tonumber(stored) == tonumber(ARGV[i + 1]) then
    redis.call('ZREM', KEYS[1], ARGV[i])
    table.insert(left, ARGV[i])
    if KEYS[2] then
      redis.call('INCR', KEYS[2])
      redis.call('PEXPIRE', KEYS[2], lost_ttl_ms)
    end
  end
end
return left
"""
COUNT = """
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {redis.call('ZCARD', KEYS[1]), first[2] or '', redis.call('GET', KEYS[2]) or '0'}
"""


class Ended(NamedTuple):
    """An analysis in the set, and when it ended, as the set has it."""

    request_id: str
    ended_at: str


class Backlog(NamedTuple):
    """How many are in the set, when the first of them ended, and how many were lost."""

    number: int
    oldest: datetime | None
    lost: int


class Unarchived:
    """The set. Every method raises StoreUnavailable when Redis is away."""

    def __init__(self, store: Store, max_outage: timedelta) -> None:
        self._client = store.connection.client
        self._errors = store.connection.errors
        self._ttl = store.ttl
        self._longer = store.ttl + max_outage
        self._take_script = store.connection.script(TAKE)
        self._leave_script = store.connection.script(LEAVE)
        self._drop_script = store.connection.script(DROP)
        self._count_script = store.connection.script(COUNT)

    def note_change(self, old: AnalysisRecord, new: AnalysisRecord) -> Iterator[Command]:
        """List what a change ends, and keep its record for longer: for `count_with_changes`."""
        if new.status.is_terminal and not old.status.is_terminal:
            request_id, ended_at = ended(new)
            yield ["ZADD", UNARCHIVED, ended_at, request_id]
            yield ["PEXPIRE", UNARCHIVED, str(milliseconds(self._longer + WEEK))]
            yield ["PEXPIRE", record_key(request_id), str(milliseconds(self._longer))]
        elif old.status.is_terminal and not new.status.is_terminal:
            yield ["ZREM", UNARCHIVED, new.request_id]

    def take(self, skipped: int, number: int, *, is_first: bool = False) -> list[Ended] | None:
        """Take the next of those that ended first; None while it is another process's turn."""
        condition = "NX" if is_first else "XX"
        found: list[Any] | None = self._take_script(
            [UNARCHIVED, TURN],
            [milliseconds(TURN_TTL), condition, skipped, skipped + number - 1],
        )
        if found is None:
            return None
        return [Ended(*map(str, pair)) for pair in zip(found[::2], found[1::2], strict=True)]

    def values(self, these: list[Ended]) -> list[object]:
        """Read their records as they are stored; None for what is gone."""
        keys = [record_key(each.request_id) for each in these]
        try:
            with self._errors():
                return list(self._client.mget(keys))
        except NotOurs:  # one of them is no text
            return [self._value(key) for key in keys]

    def _value(self, key: str) -> object:
        try:
            with self._errors():
                return self._client.get(key)
        except NotOurs:
            return "no text"

    def leave(self, these: list[Ended]) -> bool:
        """The database has them; say whether others have been waiting for it. One command."""
        latest = max(float(each.ended_at) for each in these)
        keys = [record_key(each.request_id) for each in these]
        before = f"{latest - RECENT.total_seconds():.6f}"
        arguments = [milliseconds(self._ttl), before, *_flat(these)]
        return bool(self._leave_script([UNARCHIVED, *keys], arguments))

    def drop(self, these: list[Ended], *, are_lost: bool = False) -> list[str]:
        """Take out what is not to be written; tell which of them nobody has taken out before."""
        keys = [UNARCHIVED, LOST] if are_lost else [UNARCHIVED]
        arguments = [milliseconds(COUNTS_TTL), *_flat(these)]
        return [str(each) for each in self._drop_script(keys, arguments)]

    def forget(self, request_id: str) -> None:
        """Take out an analysis that was deleted."""
        with self._errors():
            self._client.zrem(UNARCHIVED, request_id)

    def check(self) -> None:
        """Name all keys to Redis, which checks the right to them, and change nothing."""
        self._drop_script([UNARCHIVED, LOST, TURN], [0])

    def backlog(self) -> Backlog:
        """Count them. One command."""
        number, first, lost = self._count_script([UNARCHIVED, LOST], [])
        return Backlog(int(number), instant(first) if first else None, int(lost))


def ended(record: AnalysisRecord) -> Ended:
    """Name a terminal record as the set does."""
    assert record.finished_at, "a terminal record says when"
    return Ended(record.request_id, timestamp(record.finished_at))


def instant(score: str) -> datetime:
    return datetime.fromtimestamp(float(score), UTC)


def _flat(these: Iterable[Ended]) -> list[str]:
    return [word for each in these for word in each]
