"""Redis: where records live, and how they change atomically. The only importer of redis.

key                        value                          lives
analysis:{id}              AnalysisRecord as JSON         until the deadline, and from then (or from
                                                          the moment it is terminal) the TTL
analysis:{id}:lease        token of the running attempt   TimeLadder.lease
idempotency:<scope>:<hash> id and fingerprint             as long as the record
usual-duration             seconds an attempt takes       a week

The braces are literal: they keep a record and its lease in one cluster slot.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import redis
from pydantic import ValidationError
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.models import REQUEST_ID_PATTERN, AnalysisRecord, Status
from common.settings import Settings

SOCKET_TIMEOUT_SECONDS = 1.0  # at worst four of them: connecting and the command, each twice
MOST_CONNECTIONS = 64
MOST_SWAPS = 20  # more rivals than one record ever has
USUAL_DURATION = "usual-duration"
USUAL_DURATION_LIVES = timedelta(days=7)

# Decides nothing: it writes what Python decided, unless somebody was in between.
# Safe to repeat: a repetition finds the new value in place and says so.
SWAP = """
local record, lease = KEYS[1], KEYS[2]
local old, new, ttl, take, take_ms, give = unpack(ARGV)
local stored = redis.call('GET', record)
if stored == new then return 'done' end
if stored ~= old then return 'changed' end
if take ~= '' and not redis.call('SET', lease, take, 'NX', 'PX', take_ms) then
  return redis.call('PTTL', lease)
end
redis.call('SET', record, new, 'PX', ttl)
if give ~= '' and redis.call('GET', lease) == give then redis.call('DEL', lease) end
return 'done'
"""

Transition = Callable[[AnalysisRecord, datetime], AnalysisRecord]


class StoreUnavailable(Exception):
    """Redis can't be used just now. The change may have happened; repeating it is safe."""


class PasswordRefused(StoreUnavailable):
    """Redis answers, and refuses the password."""


class ArchiveUnavailable(StoreUnavailable):
    """The database of the history (`archive.py`) can't be used just now; the same holds."""


class NotFound(Exception):
    """There is no such record: never made, deleted, expired, or lost."""


class Busy(Exception):
    """Somebody else's attempt holds the lease; it ends within `retry_after`."""

    def __init__(self, retry_after: timedelta) -> None:
        super().__init__("the lease is held")
        self.retry_after = retry_after


class Condition(NamedTuple):
    """Whether Redis may lose records by itself; None where the host doesn't tell."""

    evicts: bool | None
    persists: bool | None


class IdempotencyClaim(NamedTuple):
    """Which analysis an Idempotency-Key stands for, and a fingerprint of its input."""

    request_id: str
    fingerprint: str


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, UnicodeDecodeError) as error:
        refused = isinstance(error, redis.AuthenticationError)
        kind = PasswordRefused if refused else StoreUnavailable
        raise kind(f"Redis: {type(error).__name__}") from error


def connect(settings: Settings) -> redis.Redis:
    """Make a client whose every command is answered, or fails, within about 4 s."""
    pool = redis.BlockingConnectionPool.from_url(
        settings.redis_url.get_secret_value(),
        max_connections=MOST_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_SECONDS,
        decode_responses=True,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),
        health_check_interval=30,
    )
    return redis.Redis(connection_pool=pool)


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
        lease: timedelta,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._client = client
        self._ttl = ttl
        self._lease = lease
        self._clock = clock
        self._swap_script = client.register_script(SWAP)

    def now(self) -> datetime:
        """Read Redis's clock: all times in records come from there."""
        with _redis_errors():
            return _aware(self._client.time())

    def create(self, record: AnalysisRecord) -> bool:
        """Store a new record; False when there is one with this id. A replay may say False."""
        with _redis_errors():
            return bool(
                self._client.set(
                    _key(record.request_id),
                    record.model_dump_json(by_alias=True),
                    nx=True,
                    px=self._ttl_ms(record, record.published_at),
                )
            )

    def read(self, request_id: str) -> AnalysisRecord:
        """Read a record; one past its deadline is settled as timed out, and never unfinished.

        One Redis command, unless the deadline has passed. Raises: NotFound, StoreUnavailable.
        """
        with _redis_errors():
            record = parse_record(self._client.get(_key(request_id)))
        if not record.is_overdue(self._clock()):
            return record
        try:
            return self.update(request_id, lambda record, _: record)
        except StoreUnavailable:
            return record.time_out(now=self._clock())

    def update(
        self,
        request_id: str,
        transition: Transition,
        *,
        lease: str | None = None,
        known: tuple[AnalysisRecord, datetime] | None = None,
    ) -> AnalysisRecord:
        """Apply a transition atomically: read, decide, swap; from the start if that came too late.

        `lease` is the caller's claim token. The lease is taken with it unless the record is the
        caller's already, and given back unless the new record is processing. `known` is a record
        this caller has just written, with the time now by Redis's clock: it saves the first read.

        Raises: NotFound, Busy, StoreUnavailable, and what the transition raises.
        """
        for _ in range(MOST_SWAPS):
            if known:
                (record, now), known = known, None
                raw = record.model_dump_json(by_alias=True)
            else:
                record, raw, now = self._load(request_id)
            new = transition(record.time_out(now=now), now)
            if new is record or self._swap(record, raw, new, now, lease):
                return new
        raise StoreUnavailable("the record changed too often")

    def delete(self, request_id: str) -> None:
        """Remove the record and its lease."""
        with _redis_errors():
            self._client.delete(_key(request_id), _lease_key(request_id))

    def note_usual_duration(self, duration: timedelta) -> None:
        """Remember how long an attempt usually takes, for those who wait. One Redis command."""
        with _redis_errors():
            self._client.set(USUAL_DURATION, duration.total_seconds(), px=_ms(USUAL_DURATION_LIVES))

    def usual_duration(self) -> timedelta | None:
        """Tell how long an attempt usually takes; None when none was completed for a week."""
        with _redis_errors():
            seconds = self._client.get(USUAL_DURATION)
        return timedelta(seconds=float(seconds)) if isinstance(seconds, str) else None

    def claim_idempotency_key(
        self, scope: str, key_hash: str, claim: IdempotencyClaim, lives: timedelta
    ) -> IdempotencyClaim:
        """Bind the key to this analysis, unless it is bound; return what it is bound to."""
        name = f"idempotency:{scope}:{key_hash}"
        with _redis_errors():
            self._client.set(name, json.dumps(claim), nx=True, px=_ms(lives))
            bound = self._client.get(name)
        return IdempotencyClaim(*json.loads(bound)) if isinstance(bound, str) else claim

    def ping(self) -> None:
        """Raise StoreUnavailable unless Redis answers."""
        with _redis_errors():
            self._client.ping()

    def condition(self) -> Condition:
        """Ask whether Redis evicts records, and whether it would know them after a restart."""
        with _redis_errors():
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

    def every_record(self) -> Iterator[AnalysisRecord]:
        """All there are, as they are when their turn comes. Walks all keys: for the operator."""
        with _redis_errors():
            for key in self._client.scan_iter(match="analysis:{*}", count=500):
                with suppress(NotFound):  # its time has ended meanwhile
                    yield self.read(key.removeprefix("analysis:{").removesuffix("}"))

    def _load(self, request_id: str) -> tuple[AnalysisRecord, str, datetime]:
        with _redis_errors():
            both = self._client.pipeline(transaction=False)
            both.get(_key(request_id))
            both.time()
            raw, time = both.execute()
        return parse_record(raw), raw, _aware(time)

    def _swap(
        self,
        record: AnalysisRecord,
        raw: str,
        new: AnalysisRecord,
        now: datetime,
        lease: str | None,
    ) -> bool:
        take = lease if lease != record.claim_token else None
        give = lease if new.status is not Status.PROCESSING else None
        with _redis_errors():
            outcome = self._swap_script(
                keys=[_key(record.request_id), _lease_key(record.request_id)],
                args=[
                    raw,
                    new.model_dump_json(by_alias=True),
                    self._ttl_ms(new, now),
                    take or "",
                    _ms(self._lease),
                    give or "",
                ],
            )
        if isinstance(outcome, int):
            raise Busy(timedelta(milliseconds=max(outcome, 0)))
        return bool(outcome == "done")

    def _ttl_ms(self, record: AnalysisRecord, now: datetime) -> int:
        unfinished = timedelta(0) if record.status.is_terminal else record.deadline_at - now
        return _ms(max(unfinished, timedelta(0)) + self._ttl)


def _key(request_id: str) -> str:
    """Raises: NotFound for what can't be a request id, so that it never reaches Redis."""
    if not re.fullmatch(REQUEST_ID_PATTERN, request_id):
        raise NotFound("not a request id")
    return f"analysis:{{{request_id}}}"


def _lease_key(request_id: str) -> str:
    return f"{_key(request_id)}:lease"


def _ms(duration: timedelta) -> int:
    return max(1, round(duration.total_seconds() * 1000))


def _aware(time: tuple[int, int]) -> datetime:
    seconds, microseconds = time
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def parse_record(raw: object) -> AnalysisRecord:
    """Read a record as it is stored. Raises: NotFound, StoreUnavailable."""
    if not isinstance(raw, str):
        raise NotFound("no such record")
    try:
        # A newer version may have written fields that this one doesn't know.
        return AnalysisRecord.model_validate_json(raw, extra="ignore")
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise StoreUnavailable(f"a stored record can't be read: {fields or 'not JSON'}") from None
