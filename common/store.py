"""Redis: where records live, and how they change atomically. The only importer of redis.

key                        value                          lives
analysis:{id}              AnalysisRecord as JSON         until the deadline, and from then (or from
                                                          the moment it is terminal) the TTL
idempotency:<scope>:<hash> id and fingerprint             at least as long as the record; it
                                                          counts only while the record is there
durations                  list: seconds that the latest  a week
                           attempts took
unfinished                 sorted set: ids by deadline    a little longer than any deadline
paused                     there while nothing is let in  limits.PAUSE
count:<limit>:<period>     how much of it was used        an hour more; a day's, five weeks more
count:input_tokens:<day>,  the two parts of what          the same
count:output_tokens:<day>  `daily_tokens` counts
LIMITS:…                   the API's rate limit's own     a minute

The braces are literal. The scripts write a record and what is counted over all records in the same
step: they need one server (with replicas, as at Upstash), not a cluster. In steps of their own
these counts would cost further commands, and an analysis could be let in by two that came at once.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any, NamedTuple

import redis
from pydantic import ValidationError
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from common import addresses
from common.failures import Failure, Limit
from common.fields import REQUEST_ID_PATTERN
from common.logs import get_logger
from common.record import AnalysisRecord, Tokens
from common.settings import Settings
from operations.limits import DAYS_KEPT, UNLIMITED, Admission, LimitReached, day_of

SOCKET_TIMEOUT_SECONDS = 1.0  # at worst four of them: connecting and the command, each twice
MAX_CONNECTIONS = 512  # as many as gunicorn's threads: nobody waits for one; opened when needed
CONNECTION_TTL_SECONDS = 60.0  # its server may be a replica since, and tell a reader old things
MAX_SWAPS = 20  # more rivals than one record ever has
LOGGED = {"request_id", "round", "attempt", "status", "message_id"}
DURATIONS = "durations"
DURATIONS_KEPT, DURATIONS_TTL = 20, timedelta(days=7)
UNFINISHED, PAUSED = "unfinished", "paused"
UNFINISHED_TTL = timedelta(days=8)  # more than the longest delay and deadline
MAX_OVERDUE = 100
INPUT, OUTPUT = "input_tokens", "output_tokens"

# Decides nothing: it writes what Python decided, unless somebody was in between.
# Safe to repeat: a repetition finds the new value in place and says so.
SWAP = """
local record, unfinished, idempotency_key = unpack(KEYS)
local old, new, ttl, id, deadline, unfinished_ms = unpack(ARGV)
local stored = redis.call('GET', record)
if stored == new then return 'done' end
if stored ~= old then return 'changed' end
redis.call('SET', record, new, 'PX', ttl)
if idempotency_key and redis.call('PTTL', idempotency_key) < tonumber(ttl) then
  redis.call('PEXPIRE', idempotency_key, ttl)
end
if deadline == '' then
  redis.call('ZREM', unfinished, id)
else
  redis.call('ZADD', unfinished, deadline, id)
  redis.call('PEXPIRE', unfinished, unfinished_ms)
end
return 'done'
"""

# Lets one more analysis in and counts it; stores it too, when it is given. Safe to repeat: what
# is stored already is neither checked nor counted. Without a record, a repetition counts again.
# With a `claim`, KEYS[4] is an Idempotency-Key: bound in the same step, unless the record that it
# is bound to is still there. That record's key can't be declared: it is known only here.
ADMIT = """
local record, unfinished, paused = KEYS[1], KEYS[2], KEYS[3]
local new, ttl_ms, id, deadline, unfinished_ms, now, due = unpack(ARGV)
local forgotten, most_waiting, most_ahead, ignore_pause, claim = unpack(ARGV, 8, 12)
local first = claim == '' and 4 or 5
local function quota(i, arg) return ARGV[12 + 3 * (i - first) + arg] end
if new ~= '' and redis.call('EXISTS', record) == 1 then return {'exists'} end
local bound = claim ~= '' and redis.call('GET', KEYS[4])
if bound and redis.call('EXISTS', 'analysis:{' .. cjson.decode(bound)[1] .. '}') == 1 then
  return {'bound', bound}
end
if ignore_pause == '0' and redis.call('EXISTS', paused) == 1 then
  return {'paused', redis.call('PTTL', paused)}
end
local waiting = redis.call('ZCOUNT', unfinished, '(' .. now, '+inf')
local ahead = redis.call('ZCOUNT', unfinished, '(' .. due, '+inf')
if most_waiting ~= '0' and waiting >= tonumber(most_waiting) then return {'waiting'} end
if most_ahead ~= '0' and ahead >= tonumber(most_ahead) then return {'waiting'} end
for i = first, #KEYS do
  local count, most = tonumber(redis.call('GET', KEYS[i]) or '0'), tonumber(quota(i, 1))
  if count >= most then return {'used up', i - first} end
end
for i = first, #KEYS do
  local adds, kept_ms = quota(i, 2), quota(i, 3)
  if adds ~= '0' then
    redis.call('INCRBY', KEYS[i], adds)
    redis.call('PEXPIRE', KEYS[i], kept_ms)
  end
end
if new ~= '' then
  redis.call('SET', record, new, 'PX', ttl_ms)
  redis.call('ZADD', unfinished, deadline, id)
  redis.call('PEXPIRE', unfinished, unfinished_ms)
end
if claim ~= '' then redis.call('SET', KEYS[4], claim, 'PX', ttl_ms) end
-- Last: after a write that frees memory, a full Redis would let the others pass.
redis.call('ZREMRANGEBYSCORE', unfinished, '-inf', forgotten)
return {'admitted'}
"""

# What is known after an attempt. A repetition counts it again: of tokens, rather too many.
NOTE = """
local took, most, ttl_ms, pause_ms, kept_ms = unpack(ARGV)
if took ~= '' then
  redis.call('LPUSH', KEYS[1], took)
  redis.call('LTRIM', KEYS[1], 0, most - 1)
  redis.call('PEXPIRE', KEYS[1], ttl_ms)
end
if pause_ms ~= '0' then redis.call('SET', KEYS[2], '1', 'PX', pause_ms) end
for i = 3, #KEYS do
  redis.call('INCRBY', KEYS[i], ARGV[3 + i])
  redis.call('PEXPIRE', KEYS[i], kept_ms)
end
return 'done'
"""
SCRIPTS = (SWAP, ADMIT, NOTE)

# Another server may have taken this one's place behind the same address. After LOADING or a refused
# password the library connects anew by itself; MASTERDOWN is one of CLUSTERDOWN to it.
ELSEWHERE = redis.exceptions.ReadOnlyError, redis.exceptions.ClusterDownError
REMEDIES = {
    "ReadOnlyError": "it is a read-only replica; REDIS_URL must lead to the primary",
    "MasterDownError": "it is a replica without its primary; REDIS_URL must lead to the primary",
    "NOREPLICAS": "too few replicas are connected (min-replicas-to-write); start them, or lower it",
    "BusyLoadingError": "it is loading its data after a start; wait",
    "OutOfMemoryError": "its memory is full; raise maxmemory, or lower ANALYSIS_TTL_SECONDS",
    "MISCONF": "it can't write to its disk; free some space there",
    "NoPermissionError": "its user may not do this; let it use all keys (~*), and +@read +@write "
    "+@scripting +@connection +info +time +scan",
    "ClusterCrossSlotError": "it is a cluster; use a single server, with replicas if you like",
    "MovedError": "it is a cluster; use a single server, with replicas if you like",
    "ClusterDownError": "it is a cluster; use a single server, with replicas if you like",
}
PROBE, PROBE_TTL_MS = "analysis:probe", 1000
log = get_logger(__name__)

Transition = Callable[[AnalysisRecord, datetime], AnalysisRecord]


class StoreUnavailable(Exception):
    """Redis can't be used just now. The change may have happened; repeating it is safe."""


class PasswordRefused(StoreUnavailable):
    """Redis answers, and refuses the password."""


class Unreadable(StoreUnavailable):
    """A stored record is not one of this version; only its own TTL removes it."""


class HistoryUnavailable(StoreUnavailable):
    """The database of the history (`archive.py`) can't be used just now; the same holds."""


class NotFound(Exception):
    """There is no such record: never made, deleted, expired, or lost."""


class Condition(NamedTuple):
    """Whether Redis may lose records by itself; None where the host doesn't tell."""

    evicts: bool | None
    persists: bool | None


class IdempotencyClaim(NamedTuple):
    """Which analysis an Idempotency-Key stands for, and a fingerprint of its input."""

    request_id: str
    fingerprint: str


class AlreadyBound(Exception):
    """The Idempotency-Key stands for a record that is there: `claim` says which."""

    def __init__(self, claim: IdempotencyClaim) -> None:
        super().__init__("the Idempotency-Key is bound")
        self.claim = claim


class Spent(NamedTuple):
    """What one UTC day has come to so far."""

    analyses: int  # counted only while DAILY_ANALYSES is set
    input_tokens: int
    output_tokens: int


class _Pool(redis.BlockingConnectionPool):
    """Connections that can all be left, and are none of them kept for long.

    Each is closed by the thread that takes it next: no other uses it then.
    """

    _left_at = 0.0

    def leave(self) -> None:
        """Connect anew before the next command: this server is not the one it was."""
        self._left_at = time.monotonic()

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        connection = super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]
        now = time.monotonic()
        opened_at = getattr(connection, "opened_at", now)
        if opened_at < max(self._left_at, now - CONNECTION_TTL_SECONDS):
            try:
                connection.disconnect()
                connection.connect()
            except BaseException:
                self.release(connection)  # type: ignore[no-untyped-call]
                raise
            opened_at = now
        connection.opened_at = opened_at
        return connection


class _Client(redis.Redis):
    """Repeats a command once where another server may have taken over; all are safe to repeat."""

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            if not _leave(self.connection_pool, error):
                raise
        return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]


def _leave(pool: redis.ConnectionPool, error: Exception) -> bool:
    """Leave the server if the error may be this one's alone; say whether it was left."""
    is_left = isinstance(error, ELSEWHERE) or _name(error) == "NOREPLICAS"
    if is_left and isinstance(pool, _Pool):
        pool.leave()
        return True
    return False


def unavailable(pool: redis.ConnectionPool, error: Exception) -> StoreUnavailable:
    """Name an error of Redis with what to do, and leave this server if another may be well."""
    _leave(pool, error)
    name = _name(error)
    remedy = f" ({REMEDIES[name]})" if name in REMEDIES else ""
    is_refused = isinstance(error, redis.AuthenticationError)
    return (PasswordRefused if is_refused else StoreUnavailable)(f"Redis: {name}{remedy}")


def _name(error: Exception) -> str:
    """Name an error by its class, or by the server's own code where the library has no class."""
    if type(error) is redis.ResponseError:
        if "ACL failure in script" in str(error):
            return redis.exceptions.NoPermissionError.__name__
        if code := re.match(r"[A-Z]{5,}\b", str(error)):
            return code[0]
    return type(error).__name__


def connect(settings: Settings) -> redis.Redis:
    """Make a client whose every command is answered, or fails, within about 4 s."""
    url, dropped = addresses.redis(settings.redis_url.get_secret_value())
    if dropped:
        log.warning("parameters left out", cause=f"REDIS_URL: {', '.join(dropped)}")
    pool = _Pool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_SECONDS,
        decode_responses=True,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),
        health_check_interval=30,
    )
    return _Client(connection_pool=pool)


def utc_now() -> datetime:
    """This machine's clock; Redis's decides whenever the two could disagree."""
    return datetime.now(UTC)


class Store:
    """The records. Every method raises StoreUnavailable when Redis is away."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        ttl: timedelta,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._client = client
        self._ttl = ttl
        self._clock = clock
        self._swap_script = client.register_script(SWAP)
        self._admit_script = client.register_script(ADMIT)
        self._note_script = client.register_script(NOTE)

    @contextmanager
    def _redis_errors(self) -> Iterator[None]:
        try:
            yield
        except UnicodeDecodeError:
            raise Unreadable("a stored value is not UTF-8") from None
        except redis.RedisError as error:
            if _name(error) == "WRONGTYPE":
                raise Unreadable("a stored value is of another type") from error
            raise unavailable(self.pool, error) from error

    def _run(self, script: Script, *, keys: list[str], args: list[Any]) -> Any:
        """Run a script; once more where one server has loaded it and another is to run it."""
        try:
            return script(keys=keys, args=args)
        except redis.exceptions.NoScriptError:
            return script(keys=keys, args=args)

    @property
    def pool(self) -> redis.ConnectionPool:
        """The connections, for a library that brings its own commands."""
        return self._client.connection_pool

    def now(self) -> datetime:
        """Read Redis's clock: all times in records come from there."""
        with self._redis_errors():
            return _aware(self._client.time())

    def create(
        self,
        record: AnalysisRecord,
        admission: Admission = UNLIMITED,
        fingerprint: str | None = None,
    ) -> bool:
        """Store a new record; False when there is one with this id. A replay may say False.

        With a `fingerprint` of the input, the record's Idempotency-Key is bound to it.
        One Redis command: checked, counted, bound and stored in one step.
        Raises: AlreadyBound, LimitReached.
        """
        new = record.model_dump_json(by_alias=True)
        return self._admit(record, record.published_at, admission, new, fingerprint)

    def admit(self, record: AnalysisRecord, now: datetime, admission: Admission) -> None:
        """Check and count one more round of a record. Raises: LimitReached."""
        self._admit(record, now, admission)

    def read(self, request_id: str) -> AnalysisRecord:
        """Read a record; one past its deadline is settled as timed out, and never unfinished.

        One Redis command, unless the deadline has passed. Raises: NotFound, StoreUnavailable.
        """
        with self._redis_errors():
            record = parse_record(self._client.get(_key(request_id)), request_id)
        return self._settle_overdue(record)

    def update(
        self,
        request_id: str,
        transition: Transition,
        *,
        known: tuple[AnalysisRecord, datetime] | None = None,
    ) -> AnalysisRecord:
        """Apply a transition atomically: read, decide, swap; from the start if that came too late.

        `known` is a record this caller has just written, with the time now by Redis's clock: it
        saves the first read.

        Raises: NotFound, StoreUnavailable, and what the transition raises.
        """
        for _ in range(MAX_SWAPS):
            if known:
                (record, now), known = known, None
                raw = record.model_dump_json(by_alias=True)
            else:
                record, raw, now = self._load(request_id)
            new = transition(record.time_out(now=now), now)
            if new is record:
                return new
            if self._swap(raw, new, now):
                if new.failure is Failure.TIMED_OUT:
                    log.error("timed out", **new.model_dump(include=LOGGED), code=new.failure)
                return new
        raise StoreUnavailable("the record changed too often")

    def delete(self, request_id: str) -> None:
        """Remove the record; last, as it leads to the rest."""
        key = _key(request_id)
        with self._redis_errors():
            self._client.zrem(UNFINISHED, request_id)
            self._client.delete(key)

    def unfinished(self, now: datetime) -> tuple[int, datetime | None]:
        """Count the analyses that are not over, and tell when the next to time out is due."""
        after = f"({_timestamp(now)}"
        with self._redis_errors():
            both = self._client.pipeline(transaction=False)
            both.zcount(UNFINISHED, after, "+inf")
            both.zrangebyscore(UNFINISHED, after, "+inf", start=0, num=1)
            number, first = both.execute()
            raw = self._client.get(_key(first[0])) if first else None
        return number, parse_record(raw).due_at if raw else None

    def overdue(self, now: datetime) -> list[str]:
        """Name analyses whose deadline has passed unnoticed: whoever reads one settles it.

        At most MAX_OVERDUE at a time, the first first. Those that Redis has forgotten are none.
        """
        with self._redis_errors():
            both = self._client.pipeline(transaction=False)
            both.zremrangebyscore(UNFINISHED, "-inf", _timestamp(now - self._ttl))
            both.zrangebyscore(UNFINISHED, "-inf", _timestamp(now), start=0, num=MAX_OVERDUE)
            ids: list[str] = both.execute()[1]
        return ids

    def note_attempt(
        self,
        now: datetime,
        *,
        took: timedelta | None = None,
        tokens: Tokens | None = None,
        pause: timedelta | None = None,
    ) -> None:
        """Remember how long an attempt took, add its tokens to the UTC day, and let nothing new
        in for the `pause`.

        One Redis command; a repetition counts the attempt again.
        """
        counts: dict[str, int] = {}
        if tokens:
            input, output = tokens.input_tokens, tokens.output_tokens
            counts = {INPUT: input, OUTPUT: output, Limit.DAILY_TOKENS: input + output}
        seconds = took.total_seconds() if took else ""
        lives = [_ms(DURATIONS_TTL), _ms(pause) if pause else 0, _ms(DAYS_KEPT)]
        with self._redis_errors():
            self._run(
                self._note_script,
                keys=[DURATIONS, PAUSED, *(_count_key(name, day_of(now)) for name in counts)],
                args=[seconds, DURATIONS_KEPT, *lives, *counts.values()],
            )

    def spent(self, day: str) -> Spent:
        """Tell what a UTC day (`2026-11-24`) has come to; all zero after five weeks."""
        names = (Limit.DAILY_ANALYSES, INPUT, OUTPUT)
        with self._redis_errors():
            counts = self._client.mget(_count_key(name, day) for name in names)
        return Spent(*(int(count or 0) for count in counts))

    def usual_duration(self) -> timedelta | None:
        """The median of the latest attempts; None when none was completed for a week."""
        with self._redis_errors():
            seconds = [float(each) for each in self._client.lrange(DURATIONS, 0, -1)]
        return timedelta(seconds=median(seconds)) if seconds else None

    def check(self) -> None:
        """Raise StoreUnavailable unless Redis does what an analysis needs: for `/ready`.

        Two Redis commands: the script of every change, on a key that lives for a second.
        """
        with self._redis_errors():
            self._client.set(PROBE, "old", px=PROBE_TTL_MS)
            self._run(
                self._swap_script,
                keys=[PROBE, UNFINISHED],
                args=["old", "new", PROBE_TTL_MS, PROBE, "", 1],
            )

    def check_all(self) -> None:
        """The same for the other scripts, which count, and for all names of keys: for `doctor`.

        Counts nothing but throwaway keys.
        """
        self.check()
        count, now = _count_key("probe", "probe"), _timestamp(self.now())
        admission: list[str | int] = ["", 1, PROBE, 0, 1, now, now, "-inf", 0, 0, 1, ""]
        quota = [10**12, 1, PROBE_TTL_MS]
        with self._redis_errors():
            self._client.set(idempotency_key("probe", "probe"), "{}", px=PROBE_TTL_MS)
            self._run(
                self._admit_script,
                keys=[PROBE, UNFINISHED, PAUSED, count],
                args=[*admission, *quota],
            )
            self._run(
                self._note_script,
                keys=[DURATIONS, PAUSED, count],
                args=["", DURATIONS_KEPT, 1, 0, PROBE_TTL_MS, 1],
            )

    def condition(self) -> Condition:
        """Ask whether Redis evicts records, and whether it would know them after a restart."""
        with self._redis_errors():
            info = self._client.info()
            try:
                saves = self._client.config_get("save").get("save")
            except redis.ResponseError:  # many hosts keep their configuration to themselves
                saves = None
        policy, appends = info.get("maxmemory_policy"), info.get("aof_enabled")
        return Condition(
            evicts=None if policy is None else policy != "noeviction",
            persists=True if appends or saves else (None if saves is None else False),
        )

    def every_record(self, unreadable: list[str] | None = None) -> Iterator[AnalysisRecord]:
        """All there are, as they are when their turn comes. Walks all keys: for the operator.

        Two commands for some 1,000 keys. Redis may tell one twice while it resizes its table.
        One that can't be read is logged, its id is added to `unreadable`, and the others go on.
        """
        cursor = None
        while cursor != 0:
            with self._redis_errors():
                cursor, found = self._client.scan(cursor or 0, match="analysis:{*}", count=1000)
                keys = [str(key) for key in found]
            for key, raw in zip(keys, self._values(keys), strict=True):
                request_id = key.removeprefix("analysis:{").removesuffix("}")
                try:
                    record = self.read(request_id) if raw is None else parse_record(raw, request_id)
                    yield self._settle_overdue(record)
                except NotFound:  # its time has ended meanwhile
                    continue
                except Unreadable as error:
                    log.error("record not read", request_id=request_id, cause=str(error))
                    if unreadable is not None:
                        unreadable.append(request_id)

    def _settle_overdue(self, record: AnalysisRecord) -> AnalysisRecord:
        """Settle a record whose deadline has passed, by Redis's clock."""
        if not record.is_overdue(self._clock()):
            return record
        try:
            return self.update(record.request_id, lambda record, _: record)
        except StoreUnavailable:
            return record.time_out(now=self._clock())

    def _values(self, keys: list[str]) -> list[Any]:
        """Read many at once; all None where one of them is no text, so that each is read alone."""
        try:
            with self._redis_errors():
                return list(self._client.mget(keys)) if keys else []
        except Unreadable:
            return [None] * len(keys)

    def _load(self, request_id: str) -> tuple[AnalysisRecord, str, datetime]:
        with self._redis_errors():
            both = self._client.pipeline(transaction=False)
            both.get(_key(request_id))
            both.time()
            raw, time = both.execute()
        return parse_record(raw, request_id), raw, _aware(time)

    def _swap(self, raw: str, new: AnalysisRecord, now: datetime) -> bool:
        with self._redis_errors():
            outcome = self._run(
                self._swap_script,
                keys=[
                    _key(new.request_id),
                    UNFINISHED,
                    *filter(None, (new.idempotency_key,)),
                ],
                args=[
                    raw,
                    new.model_dump_json(by_alias=True),
                    self._ttl_ms(new, now),
                    new.request_id,
                    "" if new.status.is_terminal else _timestamp(new.deadline_at),
                    _ms(UNFINISHED_TTL),
                ],
            )
        return bool(outcome == "done")

    def _admit(
        self,
        record: AnalysisRecord,
        now: datetime,
        admission: Admission,
        new: str = "",
        fingerprint: str | None = None,
    ) -> bool:
        quotas = admission.quotas
        counts = [_count_key(quota.limit, quota.period) for quota in quotas]
        claim = ""
        if record.idempotency_key and fingerprint:
            claim = json.dumps(IdempotencyClaim(record.request_id, fingerprint))
            counts = [record.idempotency_key, *counts]
        with self._redis_errors():
            outcome = self._run(
                self._admit_script,
                keys=[_key(record.request_id), UNFINISHED, PAUSED, *counts],
                args=[
                    new,
                    self._ttl_ms(record, now),
                    record.request_id,
                    _timestamp(record.deadline_at),
                    _ms(UNFINISHED_TTL),
                    _timestamp(now),
                    _timestamp(record.due_at),
                    _timestamp(now - self._ttl),
                    admission.most_waiting,
                    admission.most_ahead,
                    int(admission.ignore_pause),
                    claim,
                    *(arg for q in quotas for arg in (q.most, q.adds, _ms(q.kept))),
                ],
            )
        match outcome:
            case ["bound", bound]:
                raise AlreadyBound(IdempotencyClaim(*json.loads(bound)))
            case ["paused", rest]:
                raise LimitReached(Limit.PAUSED, timedelta(milliseconds=rest))
            case ["waiting"]:
                raise LimitReached(Limit.WAITING, admission.slot)
            case ["used up", number]:
                raise LimitReached(quotas[number].limit, quotas[number].ends_in)
        return bool(outcome == ["admitted"])

    def _ttl_ms(self, record: AnalysisRecord, now: datetime) -> int:
        unfinished = timedelta(0) if record.status.is_terminal else record.deadline_at - now
        return _ms(max(unfinished, timedelta(0)) + self._ttl)


def open_store(settings: Settings) -> Store:
    """Make the store that the settings name. Connects at first use."""
    return Store(connect(settings), ttl=settings.ttl)


def _key(request_id: str) -> str:
    """Raises: NotFound for what can't be a request id, so that it never reaches Redis."""
    if not re.fullmatch(REQUEST_ID_PATTERN, request_id):
        raise NotFound("not a request id")
    return f"analysis:{{{request_id}}}"


def idempotency_key(scope: str, key_hash: str) -> str:
    """Name the Redis key of an Idempotency-Key, which each caller has for itself."""
    return f"idempotency:{scope}:{key_hash}"


def _count_key(name: str, period: str) -> str:
    return f"count:{name}:{period}"


def _timestamp(time: datetime) -> str:
    return f"{time.timestamp():.6f}"


def _ms(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))


def _aware(time: tuple[int, int]) -> datetime:
    seconds, microseconds = time
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def parse_record(raw: object, request_id: str | None = None) -> AnalysisRecord:
    """Read a record as it is stored, under this id. Raises: NotFound, Unreadable."""
    if not isinstance(raw, str):
        raise NotFound("no such record")
    try:
        # A newer version may have written fields that this one doesn't know.
        record = AnalysisRecord.model_validate_json(raw, extra="ignore")
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise Unreadable(f"a stored record can't be read: {fields or 'not JSON'}") from None
    if not record.is_consistent:
        raise Unreadable(f"a stored record can't be read: incomplete for {record.status}")
    if request_id not in (None, record.request_id):
        raise Unreadable("a stored record can't be read: it has another id")
    return record
