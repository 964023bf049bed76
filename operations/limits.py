"""How much is admitted. Decides what may be reached; one script checks and counts in one step.

limit           what is counted                                      setting
visitor         submissions of one visitor of the page               VISITOR_SUBMISSIONS_PER_HOUR
everyone        submissions of everybody, by page and API            SUBMISSIONS_PER_HOUR
waiting         unfinished analyses; and, with QSTASH_PARALLELISM,   MOST_WAITING
                those whose turn comes before the new one's
daily_analyses  submissions and second tries, by UTC day             DAILY_ANALYSES
daily_tokens    tokens in and out of all model calls, by UTC day     DAILY_TOKENS
paused          nothing: the AI service has just refused our access

Hours and days are those of the clock: a limit may be used up at the end of one, and again at the
beginning of the next. A round that was stored is never counted again, and always runs to its end;
one that was admitted and could not be stored keeps its place until its deadline. The script needs
one server (with replicas, as at Upstash), not a cluster.
"""

import hmac
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from common.events import Event, Settled
from common.failures import Failure, Limit
from common.logs import get_logger
from common.ports import LimitReached
from common.record import AnalysisRecord
from common.settings import Settings
from common.states import Status
from common.store import Store, milliseconds, nobodys_id, record_key, utc_now
from common.times import TimeLadder
from operations.limit_settings import LimitSettings
from operations.statistics import (
    COUNTS_TTL,
    UNFINISHED,
    UNFINISHED_TTL,
    Statistics,
    count_key,
    day_of,
    member,
    timestamp,
)

PAUSED = "paused"  # a key that is there while nothing is admitted
PAUSE = timedelta(minutes=5)
PAUSING = (Failure.KEY_REFUSED, Failure.QUOTA_EXCEEDED)
HOUR = timedelta(hours=1)

# Admits one more round, counts it, and notes its deadline. Safe to repeat: neither a round whose
# record is stored nor one that was admitted and has time left is checked or counted again. A second
# try's round is admitted before the record has it. More keys than there are quotas are left alone.
ADMIT = """
local record, unfinished, paused = KEYS[1], KEYS[2], KEYS[3]
local member, round, deadline, unfinished_ms, now, due, forgotten = unpack(ARGV, 1, 7)
local most_waiting, most_ahead = tonumber(ARGV[8]), tonumber(ARGV[9])
local quotas = (#ARGV - 9) / 3
local function quota(i, arg) return ARGV[9 + 3 * (i - 1) + arg] end
local function is_stored()
  if redis.call('EXISTS', record) == 0 then return false end
  return round == '1' or cjson.decode(redis.call('GET', record)).round >= tonumber(round)
end
local function count()
  if redis.call('EXISTS', paused) == 1 then return {'paused', redis.call('PTTL', paused)} end
  local waiting = redis.call('ZCOUNT', unfinished, '(' .. now, '+inf')
  local ahead = redis.call('ZCOUNT', unfinished, '(' .. due, '+inf')
  if most_waiting > 0 and waiting >= most_waiting then return {'waiting'} end
  if most_ahead > 0 and ahead >= most_ahead then return {'waiting'} end
  for i = 1, quotas do
    local used = tonumber(redis.call('GET', KEYS[3 + i]) or '0')
    if used >= tonumber(quota(i, 1)) then return {'used up', i - 1} end
  end
  for i = 1, quotas do
    if quota(i, 2) ~= '0' then
      redis.call('INCRBY', KEYS[3 + i], quota(i, 2))
      redis.call('PEXPIRE', KEYS[3 + i], quota(i, 3))
    end
  end
end
if is_stored() then return {'admitted'} end
local admitted_until = redis.call('ZSCORE', unfinished, member) or '0'
if tonumber(admitted_until) <= tonumber(now) then
  local refusal = count()
  if refusal then return refusal end
end
redis.call('ZADD', unfinished, deadline, member)
redis.call('PEXPIRE', unfinished, unfinished_ms)
-- Last: after a write that frees memory, a full Redis would let the others pass.
redis.call('ZREMRANGEBYSCORE', unfinished, '-inf', forgotten)
return {'admitted'}
"""

log = get_logger(__name__)


class Quota(NamedTuple):
    """How far one count may go."""

    limit: Limit
    most: int
    period: str  # 2026-11-24, or 2026-11-24T01, or that with `:<whose>`
    ends_in: timedelta
    kept: timedelta
    adds: int = 1  # when a round is admitted


class RedisLimits:
    """The limits that the settings name, counted in Redis: the port `Limits`."""

    def __init__(
        self,
        settings: Settings,
        limits: LimitSettings,
        store: Store,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._store = store
        self._clock = clock
        self._errors, self._client = store.connection.errors, store.connection.client
        self._script = store.connection.script(ADMIT)
        parallelism, self._slot = settings.qstash_parallelism, settings.times.delivery_timeout
        self._most_ahead = capacity(parallelism, settings.times) if parallelism else 0

    def admit(self, record: AnalysisRecord, *, visitor: str | None = None) -> None:
        """Check and count one more round, in one Redis command.

        `visitor` is None for a program, which has a rate limit. Raises: LimitReached.
        """
        now = record.published_at
        quotas = list(_quotas(self._settings, self._limits, now, visitor))
        outcome = self._script(
            [
                record_key(record.request_id),
                UNFINISHED,
                PAUSED,
                *(count_key(quota.limit, quota.period) for quota in quotas),
            ],
            [
                member(record),
                record.round,
                timestamp(record.deadline_at),
                milliseconds(UNFINISHED_TTL),
                timestamp(now),
                timestamp(record.due_at),
                timestamp(now - self._store.ttl),
                self._limits.most_waiting,
                self._most_ahead,
                *(arg for q in quotas for arg in (q.most, q.adds, milliseconds(q.kept))),
            ],
        )
        match outcome:
            case ["paused", rest]:
                raise LimitReached(Limit.PAUSED, timedelta(milliseconds=rest))
            case ["waiting"]:
                raise LimitReached(Limit.WAITING, self._slot)
            case ["used up", number]:
                raise LimitReached(quotas[number].limit, quotas[number].ends_in)

    def ahead(self, record: AnalysisRecord) -> int | None:
        """Count the unfinished analyses that were due before one that waits: one Redis command.

        An estimate of its place. What runs is counted, what waits for another attempt and may come
        later, and what a killed process has left behind, until its deadline; and QStash may start
        what is due in another order. None, and no command, without QSTASH_PARALLELISM, or once it
        doesn't wait.
        """
        if not self._settings.qstash_parallelism or record.status is not Status.PENDING:
            return None
        # All have as long from due to deadline, and a retry's stays. This machine's clock will do.
        not_over, before = f"({timestamp(self._clock())}", f"({timestamp(record.deadline_at)}"
        with self._errors():
            return int(self._client.zcount(UNFINISHED, not_over, before))

    def watch(self, event: Event) -> None:
        """Admit nothing for a while when new ones could only fail: a subscriber."""
        if isinstance(event, Settled) and event.record.failure in PAUSING:
            log.error("submissions paused", seconds=PAUSE.total_seconds())
            with self._errors():
                self._client.set(PAUSED, "1", px=PAUSE)

    def check(self) -> None:
        """Raise StoreUnavailable unless Redis admits, under all names of keys; counts nothing.

        What is added to the unfinished is forgotten in the same step. The pause, which may be
        there, is only named: Redis checks the right to it.
        """
        nobodys = nobodys_id()
        record, count = record_key(nobodys), count_key(Limit.EVERYONE, nobodys)
        never, now, ttl_ms = "-inf", timestamp(self._store.now()), milliseconds(UNFINISHED_TTL)
        quota = 10**12, 1, 1000
        self._script(
            [record, UNFINISHED, record, count, PAUSED],
            [nobodys, 1, never, ttl_ms, now, now, never, 0, 0, *quota],
        )
        with self._errors():
            self._client.delete(count)


def connect_limits(
    settings: Settings, limits: LimitSettings, store: Store, statistics: Statistics
) -> RedisLimits:
    """Make the limits, and watch for what pauses them."""
    statistics.adds_submissions = False
    connected = RedisLimits(settings, limits, store)
    store.events.subscribe(connected.watch)
    return connected


def _quotas(
    settings: Settings, limits: LimitSettings, now: datetime, visitor: str | None
) -> Iterator[Quota]:
    hour = f"{now:%Y-%m-%dT%H}"
    hour_ends_in = now.replace(minute=0, second=0, microsecond=0) + HOUR - now
    this_hour = hour, hour_ends_in, HOUR
    this_day = day_of(now), hour_ends_in + HOUR * (23 - now.hour), COUNTS_TTL
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


def capacity(parallelism: int, times: TimeLadder) -> int:
    """How many analyses that are due at once all get their turn before the last moment for it.

    Each is taken to hold its place for as long as a delivery can last at all. What has its
    deadline before another is due is over by then, so this many may be ahead of any one.
    """
    last_start = times.deadline - times.call
    return parallelism * (1 + last_start // times.delivery_timeout)
