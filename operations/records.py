"""All records in Redis, and whether Redis may lose them: for the operator's commands alone."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from common.connection import NotOurs
from common.events import RecordNotRead
from common.record import AnalysisRecord
from common.store import NotFound, Store, parse_record, record_key
from common.versions import Unreadable

READ_AT_ONCE = 250  # records, which may be large
# One command for many, and a short answer: the values may be large.
WHICH_EXIST = """
local found = {}
for i, key in ipairs(KEYS) do found[i] = redis.call('EXISTS', key) end
return found
"""


class Condition(NamedTuple):
    """Whether Redis may lose records by itself; None where the host doesn't tell."""

    evicts: bool | None
    persists: bool | None


def condition(store: Store) -> Condition:
    """Ask whether Redis evicts records, and whether it would know them after a restart."""
    with store.connection.errors():
        info = store.connection.client.info()
    saves = store.connection.setting("save")
    policy, appends = info.get("maxmemory_policy"), info.get("aof_enabled")
    return Condition(
        evicts=None if policy is None else policy != "noeviction",
        persists=True if appends or saves else (None if saves is None else False),
    )


def every_record(store: Store, unreadable: list[str]) -> Iterator[AnalysisRecord]:
    """All there are, as they are when their turn comes. Walks all keys.

    Two commands for some 250 keys. Redis may tell one twice while it resizes its table.
    One that can't be read is logged, its id is added to `unreadable`, and the others go on.
    """
    cursor = None
    while cursor != 0:
        with store.connection.errors():
            cursor, found = store.connection.client.scan(
                cursor or 0, match="analysis:{*}", count=READ_AT_ONCE
            )
            keys = [str(key).removeprefix(store.connection.prefix) for key in found]
        for key, raw in zip(keys, _values(store, keys), strict=True):
            request_id = key.removeprefix("analysis:{").removesuffix("}")
            try:
                record = store.read(request_id) if raw is None else parse_record(raw, request_id)
                yield store.settle_overdue(record)
            except NotFound:  # its time has ended meanwhile
                continue
            except Unreadable as error:
                store.events.emit(RecordNotRead(error))
                unreadable.append(request_id)


def in_redis(store: Store, request_ids: Sequence[str]) -> set[str]:
    """Those of these ids that Redis knows: one command."""
    answers = store.connection.script(WHICH_EXIST)([record_key(each) for each in request_ids], [])
    return {each for each, exists in zip(request_ids, answers, strict=True) if exists}


def _values(store: Store, keys: list[str]) -> list[Any]:
    """Read many at once; all None where one of them is no text, so that each is read alone."""
    try:
        with store.connection.errors():
            return list(store.connection.client.mget(keys)) if keys else []
    except NotOurs:
        return [None] * len(keys)
