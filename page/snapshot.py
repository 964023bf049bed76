"""What is known of an analysis, and when to fetch it again."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from common.record import AnalysisRecord
from common.states import Status

NEAR_SECONDS, FAR_SECONDS, MAX_PAUSE_SECONDS = 2, 5, 30
FAR = timedelta(seconds=10)  # from here on the due time counts as near


@dataclass(frozen=True)
class Snapshot:
    """What was last fetched of an analysis: its record, or that there is none."""

    request_id: str
    record: AnalysisRecord | None = None
    is_gone: bool = False
    is_unreadable: bool = False
    failures: int = 0  # how often in a row the store could not be reached

    @property
    def is_unavailable(self) -> bool:
        """Whether the store is; a single failure does not count, as the next poll may succeed."""
        return self.failures > 1

    @property
    def is_over(self) -> bool:
        return (
            self.is_gone
            or self.is_unreadable
            or (self.record is not None and self.record.status.is_terminal)
        )

    @property
    def says_unavailable(self) -> bool:
        """Whether to say that the store is unavailable: only while something is still to come."""
        return not self.is_over and (self.is_unavailable or self.record is None)


def poll_seconds(snapshot: Snapshot, now: datetime) -> int | None:
    """When to fetch again: never once it is over, and ever more rarely while Redis is down."""
    if snapshot.is_over:
        return None
    if snapshot.is_unavailable:
        return min(NEAR_SECONDS << min(snapshot.failures - 1, 8), MAX_PAUSE_SECONDS)
    record = snapshot.record
    is_far = record and record.status is Status.PENDING and record.next_attempt_at - now > FAR
    return FAR_SECONDS if is_far else NEAR_SECONDS


def has_changed(before: Snapshot, after: Snapshot) -> bool:
    """Whether there is something new to draw."""
    return _drawn(before) != _drawn(after)


def _drawn(snapshot: Snapshot) -> tuple[object, ...]:
    return snapshot.record, snapshot.is_gone, snapshot.is_unreadable, snapshot.is_unavailable
