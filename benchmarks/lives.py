"""Analyses as they go on while people wait: a minute in the queue, some seconds of writing."""

import asyncio
import heapq
import itertools
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import redis

from benchmarks.records import CALL, DEADLINE, LEASE
from common.record import AnalysisRecord
from common.store import Store, record_key
from common.task import TASK
from tests.fakes import note_duration

QUEUE = timedelta(seconds=60)
QUICKEST, SLOWEST = 3.0, 10.0  # seconds of writing
DURATIONS = 20  # as many as the median is taken of
TICK = 0.05  # seconds; so late may a record change


class Lives:
    """Starts analyses in Redis, and brings each from waiting to its result in time."""

    def __init__(self, redis_url: str) -> None:
        self._client = redis.Redis.from_url(redis_url)
        self._ahead: list[tuple[datetime, str, str]] = []  # when, key, record
        self._numbers = itertools.count()
        store = Store(self._client, ttl=timedelta(hours=1))
        for _ in range(DURATIONS):
            note_duration(store, _writing().total_seconds())

    def start(self, begun_ago: timedelta = timedelta(0)) -> str:
        """Start one, or one that has begun some time ago; return its id."""
        request_id = f"{next(self._numbers):032x}"
        begun = datetime.now(UTC) - begun_ago
        for at, record in _states(request_id, begun):
            entry = at, record_key(request_id), record.model_dump_json(by_alias=True)
            heapq.heappush(self._ahead, entry)
        self._catch_up()
        return request_id

    def length(self) -> timedelta:
        """How long one takes at most."""
        return QUEUE + timedelta(seconds=SLOWEST)

    async def go_on(self) -> None:
        """Change records in time, until cancelled."""
        while True:
            self._catch_up()
            await asyncio.sleep(TICK)

    def _catch_up(self) -> None:
        while self._ahead and self._ahead[0][0] <= datetime.now(UTC):
            _, key, raw = heapq.heappop(self._ahead)
            self._client.set(key, raw, ex=3600)


def _writing() -> timedelta:
    return timedelta(seconds=random.uniform(QUICKEST, SLOWEST))


def _states(request_id: str, begun: datetime) -> Iterator[tuple[datetime, AnalysisRecord]]:
    """Each state, and from when on."""
    waiting = AnalysisRecord.new(
        request_id, TASK.example, owner_hash=None, now=begun, delay=QUEUE, deadline=DEADLINE
    ).published("msg_benchmark", of_round=1)
    yield begun, waiting
    due = waiting.next_attempt_at
    writing = waiting.claim("t", of_round=1, now=due, call=CALL, lease=LEASE)
    yield due, writing
    ready = due + _writing()
    yield ready, writing.complete("t", TASK.example_result, model="m", now=ready)
