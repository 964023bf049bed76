"""Hand-written stand-ins for the neighbours of what is tested."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import redis

from common.fields import Tokens
from common.form import Form
from common.qstash import Queue
from common.record import AnalysisRecord
from common.store import Store
from tests.toy.task import Analysis, AnalysisInput

if TYPE_CHECKING:  # many processes need the samples alone, and the service imports OpenAI's SDK
    from webhook_service.answer import Answer

ADA = AnalysisInput(name="Ada", age=36, description="I sketch machines and like long walks.")
BOB = AnalysisInput(name="Bob", age=41, description="I bake bread and read about glaciers.")
ANALYSIS = Analysis(
    summary="You like machines.", tone="curious", themes=["machines"], suggestions=["Build one."]
)
ID = "0123456789abcdef0123456789abcdef"
OTHER_ID = "f" * 32
TOKENS = Tokens(input_tokens=300, output_tokens=200)
NOW = datetime.fromisoformat("2026-11-23T12:00:00+00:00")
CALL = timedelta(seconds=25)
LEASE = timedelta(seconds=40)
DELAY = timedelta(seconds=60)
DEADLINE = timedelta(minutes=10)


def pending(now: datetime = NOW, delay: timedelta = DELAY, request_id: str = ID) -> AnalysisRecord:
    """A record as `submit` makes it, but always the same."""
    record = AnalysisRecord.new(
        request_id, ADA, owner_hash=None, now=now, delay=delay, deadline=DEADLINE
    )
    return record.model_copy(update={"nonce": "0" * 16})


def with_fields(record: AnalysisRecord, **fields: object) -> AnalysisRecord:
    """The same record with other values, for a state whose history plays no part in a test."""
    return record.model_copy(update=fields)


END_LEASE = """
local raw = redis.call('GET', KEYS[1])
if raw and cjson.decode(raw).status == 'processing' then
  raw = string.gsub(raw, '"claimedAt":"%d+', '"claimedAt":"2000', 1)
  redis.call('SET', KEYS[1], raw, 'KEEPTTL')
end
"""


def end_lease(client: redis.Redis, request_id: str = ID) -> None:
    """Let a running attempt look as old as if its worker had died long ago."""
    client.eval(END_LEASE, 1, f"analysis:{{{request_id}}}")


class FakeQueue(Queue):
    """Remembers what was published; raises `trouble` instead while there is some."""

    def __init__(self) -> None:
        self.published: list[tuple[str, int]] = []
        self.cancelled: list[str] = []
        self.trouble: Exception | None = None
        self.before_answer: Callable[[], object] = lambda: None

    def publish(self, record: AnalysisRecord, *, now: datetime, is_first: bool = False) -> str:
        if self.trouble:
            raise self.trouble
        self.published.append((record.request_id, record.round))
        self.before_answer()
        return f"msg-{record.request_id}-{record.round}"

    def cancel(self, message_id: str) -> None:
        self.cancelled.append(message_id)


class FakeAnalyst:
    """Gives the planned answers in turn, the last one for ever; counts the calls."""

    def __init__(self, *answers: "Answer | Exception") -> None:
        from webhook_service.answer import Answer

        self.answers = list(answers) or [Answer(ANALYSIS, model="fake")]
        self.calls: list[Form] = []
        self.call_ids: list[str] = []
        self.during_call: Callable[[], object] = lambda: None

    def analyse(self, form: Form, call_id: str) -> "Answer":
        self.calls.append(form)
        self.call_ids.append(call_id)
        self.during_call()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def note_duration(store: Store, seconds: float) -> None:
    """Let an attempt have taken so long, without making one."""
    client = store.connection.client
    client.lpush("durations", seconds)
    client.expire("durations", 3600)
