"""Redis: where records live, and how they change atomically.

key             value                                        time to live
analysis:{id}   AnalysisRecord as JSON                       until the deadline, and from then (or
                                                             from when it is terminal) the TTL
durations       list: seconds that the latest attempts took  a week

The braces are literal. The options keep keys of their own (`operations/`). `keys.py` puts
REDIS_KEY_PREFIX before each name.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from statistics import median

from common.connection import Client, Connection, NotOurs, StoreUnavailable, connect
from common.events import Events, Settled
from common.fields import REQUEST_ID_PATTERN, Tokens
from common.logs import get_logger
from common.record import AnalysisRecord
from common.settings import Settings
from common.states import Status
from common.stored import read_record
from common.versions import Unreadable, Why

MAX_SWAPS = 20  # more rivals than one record ever has
DURATIONS, DURATIONS_KEPT, DURATIONS_TTL = "durations", 20, timedelta(days=7)

# Decides nothing: it writes what Python decided, unless somebody was in between, and then runs the
# commands that count it, each naming its key by its place. Safe to repeat: a repetition finds the
# new value in place, says so, and counts nothing. What can't be counted undoes no change: the
# answer says why. The old value of what is not there is empty.
SWAP = """
local stored = redis.call('GET', KEYS[1]) or ''
local old, new, ttl, counts = unpack(ARGV)
if stored == new then return 'done' end
if stored ~= old then return 'changed' end
redis.call('SET', KEYS[1], new, 'PX', ttl)
local outcome = 'done'
for _, command in ipairs(cjson.decode(counts)) do
  command[2] = KEYS[command[2]]
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then outcome = answer.err end
end
return outcome
"""

Transition = Callable[[AnalysisRecord, datetime], AnalysisRecord]
Command = list[str]  # to Redis: its name, its key, and the rest
Count = Callable[[AnalysisRecord, AnalysisRecord], Iterable[Command]]

log = get_logger(__name__)


class NotFound(Exception):
    """There is no such record: never made, deleted, expired, or lost."""


def utc_now() -> datetime:
    """This machine's clock; Redis's decides whenever the two could disagree."""
    return datetime.now(UTC)


class Store:
    """The records. Every method raises StoreUnavailable when Redis is away, and each that reads a
    record Unreadable when that can't be read.
    """

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
        self._counts: list[Count] = [_note_duration]
        self.ttl = ttl
        self._clock = clock
        self.events = events or Events()

    def now(self) -> datetime:
        """Read Redis's clock: all times in records come from there."""
        with self._errors():
            return _aware(self._client.time())

    def count_with_changes(self, count: Count) -> None:
        """Run the commands that this makes of a record, before and after, with each change.

        They run in the change's own step: no crash comes between, and nothing is counted twice.
        """
        self._counts.append(count)

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
        with self._reading(request_id):
            raw = self._client.get(record_key(request_id))
        return self.settle_overdue(parse_record(raw, request_id))

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
            if self._swap(raw, record, new, now):
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

    def usual_duration(self) -> timedelta | None:
        """The median of the latest attempts; None when none was completed for a week."""
        with self._errors():
            seconds = [float(each) for each in self._client.lrange(DURATIONS, 0, -1)]
        return timedelta(seconds=median(seconds)) if seconds else None

    def check(self) -> None:
        """Raise StoreUnavailable unless Redis does what an analysis needs: for `/ready`.

        One Redis command: the script of every change, with all that counts an analysis and its end,
        on the key of a record that is nobody's and is gone when the script ends. The keys that
        count are only named: Redis checks the right to each, and that it is no cluster.
        """
        before, after = _an_end(self._clock())
        commands = [command for count in self._counts for command in count(before, after)]
        probe = record_key(after.request_id)
        keys = list({probe: None} | {key: None for _, key, *_ in commands})
        anew = ["DEL", 1]
        trial = [step for name, _, *rest in commands for step in (anew, [name, 1, *rest])]
        outcome = self._swap_script(keys, ["", "new", 1000, json.dumps([*trial, anew])])
        if outcome != "done":
            raise self.connection.refusal(outcome)

    @contextmanager
    def _reading(self, request_id: str) -> Iterator[None]:
        """Read a record within. Raises: StoreUnavailable, Unreadable."""
        try:
            with self._errors():
                yield
        except NotOurs as error:
            raise Unreadable(request_id, Why.DAMAGED, str(error)) from None

    def _load(self, request_id: str) -> tuple[AnalysisRecord, str, datetime]:
        with self._reading(request_id):
            both = self._client.pipeline(transaction=False)
            both.get(record_key(request_id))
            both.time()
            raw, time = both.execute()
        return parse_record(raw, request_id), raw, _aware(time)

    def _swap(self, raw: str, old: AnalysisRecord, new: AnalysisRecord, now: datetime) -> bool:
        commands = [command for count in self._counts for command in count(old, new)]
        keys = list({record_key(new.request_id): None} | {key: None for _, key, *_ in commands})
        counts = [[name, 1 + keys.index(key), *rest] for name, key, *rest in commands]
        changed, ttl = new.model_dump_json(by_alias=True), self._ttl_ms(new, now)
        outcome = self._swap_script(keys, [raw, changed, ttl, json.dumps(counts)])
        if outcome not in ("done", "changed"):
            log.warning("not counted", request_id=new.request_id, cause=outcome.partition(" ")[0])
        return bool(outcome != "changed")

    def _ttl_ms(self, record: AnalysisRecord, now: datetime) -> int:
        unfinished = timedelta(0) if record.status.is_terminal else record.deadline_at - now
        return milliseconds(max(unfinished, timedelta(0)) + self.ttl)


def open_store(settings: Settings, events: Events | None = None) -> Store:
    """Make the store that the settings name. Connects at first use."""
    return Store(connect(settings), ttl=settings.ttl, events=events)


def nobodys_id() -> str:
    """Make an id that stands for no record, to try out what is done with those that do."""
    return token_hex(16)


def _an_end(now: datetime) -> tuple[AnalysisRecord, AnalysisRecord]:
    """A record before and after its last change: one by which everything is counted."""
    pending = AnalysisRecord(
        request_id=nobodys_id(),
        input=None,
        created_at=now,
        due_at=now,
        deadline_at=now,
        published_at=now,
        next_attempt_at=now,
    )
    before = pending.model_copy(update={"status": Status.PROCESSING, "claimed_at": now})
    tokens = Tokens(input_tokens=1, output_tokens=1)
    ended = {"status": Status.COMPLETED, "finished_at": now, "tokens": tokens}
    return before, before.model_copy(update=ended)


def _note_duration(old: AnalysisRecord, new: AnalysisRecord) -> Iterator[Command]:
    """Remember how long the latest attempts took that gave a result."""
    if old.status is Status.PROCESSING and new.status is Status.COMPLETED:
        assert old.claimed_at, "a claimed record says when"
        assert new.finished_at, "a completed record says when"
        seconds = (new.finished_at - old.claimed_at).total_seconds()
        yield ["LPUSH", DURATIONS, f"{seconds:.3f}"]
        yield ["LTRIM", DURATIONS, "0", str(DURATIONS_KEPT - 1)]
        yield ["PEXPIRE", DURATIONS, str(milliseconds(DURATIONS_TTL))]


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
    return read_record(raw, request_id)
