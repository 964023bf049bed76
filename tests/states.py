"""One analysis in each of its states, and what a duration of so many seconds is."""

from datetime import timedelta

from common.failures import Failure
from common.states import Status
from tests.fakes import ANALYSIS, CALL, LEASE, NOW, pending

TTL = timedelta(hours=1)
USUAL = timedelta(seconds=8)
WAITING = pending()
WRITING = WAITING.claim("a", of_round=1, now=WAITING.due_at, call=CALL, lease=LEASE)
CLAIMED_AT = WAITING.due_at
RETRYING = WAITING._evolve(
    attempt=1,
    claimed_at=CLAIMED_AT,
    next_attempt_at=CLAIMED_AT + timedelta(seconds=20),
    last_failure=Failure.RATE_LIMITED,
    last_failed_at=CLAIMED_AT + timedelta(seconds=6),
)
READY = WRITING.complete("a", ANALYSIS, model="m", now=CLAIMED_AT + timedelta(seconds=9))
FAILED = WRITING._evolve(
    status=Status.FAILED, failure=Failure.CONTENT_FILTERED, finished_at=CLAIMED_AT
)
CANCELLED = WAITING.cancel(now=NOW + timedelta(seconds=5))


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)
