"""Redis: where records live, and how they change atomically.

key             value                                        time to live
analysis:{id}   AnalysisRecord as JSON                       until the deadline, and from then (or
                                                             from when it is terminal) the TTL
durations       list: seconds that the latest attempts took  a week

The braces are literal. The options keep keys of their own (`operations/`).
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median

from pydantic import ValidationError

from common.connection import Client, Connection, StoreUnavailable, Unreadable, connect
from common.events import Events, Settled
from common.fields import REQUEST_ID_PATTERN
from common.record import AnalysisRecord
from common.settings import Settings

MAX_SWAPS = 20  # more rivals than one record ever has
DURATIONS, DURATIONS_KEPT, DURATIONS_TTL = "durations", 20, timedelta(days=7)
PROBE, PROBE_TTL_MS = "analysis:probe", 1000

# Decides nothing: it writes what Python decided, unless somebody was in between.
# Safe to repeat: a repetition finds the new value in place and says so.
SWAP = """
local stored = redis.call('GET', KEYS[1])
local old, new, ttl = unpack(ARGV)
if stored == new then return 'done' end
if stored ~= old then return 'changed' end
redis.call('SET', KEYS[1], new, 'PX', ttl)
return 'done'
"""

# A repetition notes the attempt twice: the median hardly moves.
NOTE = """
local seconds, kept, ttl_ms = unpack(ARGV)
redis.call('LPUSH', KEYS[1], seconds)
redis.call('LTRIM', KEYS[1], 0, kept - 1)
redis.call('PEXPIRE', KEYS[1], ttl_ms)
return 'done'
"""

Transition = Callable[[AnalysisRecord, datetime], AnalysisRecord]


class NotFound(Exception):
    """There is no such record: never made, deleted, expired, or lost."""


def utc_now() -> datetime:
    """This machine's clock; Redis's decides whenever the two could disagree."""
    return datetime.now(UTC)


class Store:
    """The records. Every method raises StoreUnavailable when Redis is away."""

    def __init__(
        self,
        client: Client,
        *,
        ttl: timedelta,
        clock: Callable[[], datetime] = utc_now,
        events: Events | None = None,
    ) -> None:
        self.connection = Connection(client)
        self._client = client
        self._errors = self.connection.errors
        self._swap_script = self.connection.script(SWAP)
        self._note_script = self.connection.script(NOTE)
        self.ttl = ttl
        self._clock = clock
        self.events = events or Events()

    def now(self) -> datetime:
        """Read Redis's clock: all times in records come from there."""
        with self._errors():
            return _aware(self._client.time())

    def create(self, record: AnalysisRecord) -> bool:
        """Store a new record; False when there is one with this id. A replay may say False."""
        key, new = record_key(record.request_id), record.model_dump_json(by_alias=True)
        with self._errors():
            ttl = self._ttl_ms(record, record.published_at)
            return bool(self._client.set(key, new, px=ttl, nx=True))

    def read(self, request_id: str) -> AnalysisRecord:
        """Read a record; one past its deadline is settled as timed out, and never unfinished.

        One Redis command, unless the deadline has passed. Raises: NotFound, StoreUnavailable.
        """
        with self._errors():
            record = parse_record(self._client.get(record_key(request_id)), request_id)
        return self.settle_overdue(record)

    def update(
        self,
        request_id: str,
        transition: Transition,
        *,
        known: tuple[AnalysisRecord, datetime] | None = None,
        cause: str | None = None,
    ) -> AnalysisRecord:
        """Apply a transition atomically: read, decide, swap; from the start if that came too late.

        `known` is a record this caller has just written, with the time now by Redis's clock: it
        saves the first read. `cause` is told by the event, if the record becomes terminal.

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
                if new.status.is_terminal and not record.status.is_terminal:
                    self.events.emit(Settled(new, cause))
                return new
        raise StoreUnavailable("the record changed too often")

    def current(self, request_id: str) -> AnalysisRecord:
        """Read a record by Redis's clock. Raises: NotFound, StoreUnavailable."""
        return self.update(request_id, lambda record, _: record)

    def settle_overdue(self, record: AnalysisRecord) -> AnalysisRecord:
        """Settle a record whose deadline has passed, by Redis's clock."""
        if not record.is_overdue(self._clock()):
            return record
        try:
            return self.current(record.request_id)
        except StoreUnavailable:
            return record.time_out(now=self._clock())

    def delete(self, request_id: str) -> None:
        """Remove the record."""
        with self._errors():
            self._client.delete(record_key(request_id))

    def note_duration(self, took: timedelta) -> None:
        """Remember how long an attempt took. One Redis command."""
        ttl_ms = milliseconds(DURATIONS_TTL)
        self._note_script([DURATIONS], [took.total_seconds(), DURATIONS_KEPT, ttl_ms])

    def usual_duration(self) -> timedelta | None:
        """The median of the latest attempts; None when none was completed for a week."""
        with self._errors():
            seconds = [float(each) for each in self._client.lrange(DURATIONS, 0, -1)]
        return timedelta(seconds=median(seconds)) if seconds else None

    def check(self) -> None:
        """Raise StoreUnavailable unless Redis does what an analysis needs: for `/ready`.

        Two Redis commands: the script of every change, on a key that stays for a second. The
        second key is only named: Redis checks the right to it, and that it is no cluster.
        """
        with self._errors():
            self._client.set(PROBE, "old", px=PROBE_TTL_MS)
        self._swap_script([PROBE, DURATIONS], ["old", "new", PROBE_TTL_MS])

    def _load(self, request_id: str) -> tuple[AnalysisRecord, str, datetime]:
        with self._errors():
            both = self._client.pipeline(transaction=False)
            both.get(record_key(request_id))
            both.time()
            raw, time = both.execute()
        return parse_record(raw, request_id), raw, _aware(time)

    def _swap(self, raw: str, new: AnalysisRecord, now: datetime) -> bool:
        values = [raw, new.model_dump_json(by_alias=True), self._ttl_ms(new, now)]
        return bool(self._swap_script([record_key(new.request_id)], values) == "done")

    def _ttl_ms(self, record: AnalysisRecord, now: datetime) -> int:
        unfinished = timedelta(0) if record.status.is_terminal else record.deadline_at - now
        return milliseconds(max(unfinished, timedelta(0)) + self.ttl)


def open_store(settings: Settings, events: Events | None = None) -> Store:
    """Make the store that the settings name. Connects at first use."""
    return Store(connect(settings), ttl=settings.ttl, events=events)


def record_key(request_id: str) -> str:
    """Raises: NotFound for what can't be a request id, so that it never reaches Redis."""
    if not re.fullmatch(REQUEST_ID_PATTERN, request_id):
        raise NotFound("not a request id")
    return f"analysis:{{{request_id}}}"


def milliseconds(duration: timedelta) -> int:
    """Write a duration as Redis has times to live: at least one."""
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
