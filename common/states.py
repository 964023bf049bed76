"""Where an analysis can be, and why it can't get elsewhere."""

from datetime import timedelta
from enum import StrEnum


class Status(StrEnum):
    """Where an analysis is; the last three are terminal."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


NEEDED = {  # the fields that a status calls for
    Status.PENDING: ("input",),
    Status.PROCESSING: ("input", "claim_token", "claimed_at"),
    Status.COMPLETED: ("result", "finished_at"),
    Status.FAILED: ("failure", "finished_at"),
    Status.CANCELLED: ("finished_at",),
}


class Reason(StrEnum):
    """Why a transition is not possible."""

    TERMINAL = "already terminal"
    OTHER_ROUND = "of another round"
    NOT_DUE = "not due yet"
    CLAIMED = "claimed by another attempt"
    BEGUN = "its attempt has begun"
    TOO_LATE = "too little time left before the deadline"
    NOT_THE_CLAIM = "not the attempt that holds the claim"
    NOT_FAILED = "not failed"
    INPUT_GONE = "its text is no longer kept"
    OTHER_TASK = "made for another task than this version's"
    ROUNDS_USED_UP = "no more rounds"


class TransitionError(Exception):
    """A transition is not possible; `retry_after` says when it may be, if ever."""

    def __init__(self, reason: Reason, retry_after: timedelta | None = None) -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.retry_after = retry_after
