"""One analysis in each of its states, and what a duration of so many seconds is."""

import json
from datetime import timedelta
from typing import Any

from common.failures import Failure
from common.record import AnalysisRecord
from common.states import Status
from tests.fakes import ANALYSIS, CALL, LEASE, NOW, pending, with_fields

TTL = timedelta(hours=1)
USUAL = timedelta(seconds=8)
WAITING = pending()
WRITING = WAITING.claim("a", of_round=1, now=WAITING.due_at, call=CALL, lease=LEASE)
CLAIMED_AT = WAITING.due_at
RETRYING = with_fields(
    WAITING,
    attempt=1,
    claimed_at=CLAIMED_AT,
    next_attempt_at=CLAIMED_AT + timedelta(seconds=20),
    last_failure=Failure.RATE_LIMITED,
    last_failed_at=CLAIMED_AT + timedelta(seconds=6),
)
READY = WRITING.complete("a", ANALYSIS, model="m", now=CLAIMED_AT + timedelta(seconds=9))
FAILED = with_fields(
    WRITING, status=Status.FAILED, failure=Failure.CONTENT_FILTERED, finished_at=CLAIMED_AT
)
CANCELLED = WAITING.cancel(now=NOW + timedelta(seconds=5))

OTHER_TASK = "0123456789abcdef"  # a fingerprint
OTHER_INPUT: dict[str, Any] = {
    "question": "  Wie groß? 🙂  ",
    "a b": "",
    "name": {"first": None, "snake_case": [1, 2.5, -0.0, 10**15, True]},
    **{name: [] for name in ("json", "copy", "model_config", "model_dump", "self", "_x", "")},
}
OTHER_RESULT: dict[str, Any] = {"score": 3, "themes": [{"model_fields": "secret"}], "tone": ""}
WORDS_OF_OTHER_TASK = ("Wie groß", "secret", "snake_case", "score")  # no log may repeat them


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def of_other_task(record: AnalysisRecord, task: str | None = OTHER_TASK) -> str:
    """The record as a version with another task has stored it; None: before it wrote which."""
    data = json.loads(record.model_dump_json(by_alias=True)) | {"task": task}
    for name, value in (("input", OTHER_INPUT), ("result", OTHER_RESULT)):
        data[name] = value if data[name] else None
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
