"""What is known of an analysis, and when to fetch it again."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic

from common.record import AnalysisRecord
from common.states import Status
from common.versions import Why

# Few, as each change of the pause draws the whole page anew, which costs as much as two polls.
PAUSES = (0.5, 1, 2, 5)
SOON_SECONDS, FAR_SECONDS, MAX_PAUSE_SECONDS = 2, 5, 30
FAR = timedelta(seconds=10)  # from here on the due time counts as near
SHARE = 1 / 30  # of the time waited for the result so far: so much longer it may seem
CROWD_SECONDS = 60  # after the last look: who closes a tab does not say so
MOST_POLLS = 160  # a second, by all whose result is near: what they lead to needs the time, too


@dataclass(frozen=True)
class Snapshot:
    """What was last fetched of an analysis: its record, or that there is none."""

    request_id: str
    record: AnalysisRecord | None = None
    is_gone: bool = False
    is_unreadable: bool = False
    why: Why | None = None  # it is unreadable; None where it was made for another task
    owner_hash: str | None = None  # of what is unreadable, as far as that is known
    ahead: int | None = None  # how many come before it, where that is known
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


class Crowd:
    """How many people of this process look often, as their results are near.

    When it is so many that looks come late, nobody may seem to have left, or take up a shorter
    pause: each change costs as much as two looks.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._members: dict[str, tuple[float, float]] = {}  # until when, and the pause

    def join(self, member: str, pause: float) -> float:
        """Count this one; return the pause, which is never shorter than before."""
        _, before = self._members.get(member, (0, 0))
        pause = max(pause, before)
        self._members[member] = self._clock() + CROWD_SECONDS, pause
        return pause

    def leave(self, member: str) -> None:
        """Count this one no longer: its result is there, or not near any more."""
        self._members.pop(member, None)

    def size(self) -> int:
        """Count all but those who have left without a word."""
        now = self._clock()
        for member, (until, _) in list(self._members.items()):
            if until < now:
                self.leave(member)
        return len(self._members)


def poll_seconds(
    snapshot: Snapshot, now: datetime, usual: timedelta | None = None, crowd: int = 0
) -> float | None:
    """When to fetch again: often while the result is near, and never once it is over.

    `usual` is how long an attempt takes, `crowd` how many people look often at the same time.
    More and more rarely while it is late, and while Redis is down.
    """
    if snapshot.is_over:
        return None
    if snapshot.is_unavailable:
        return min(SOON_SECONDS << min(snapshot.failures - 1, 8), MAX_PAUSE_SECONDS)
    record = snapshot.record
    if record is None:
        return SOON_SECONDS
    if record.status is Status.PENDING and record.next_attempt_at - now > FAR:
        return FAR_SECONDS
    if not is_near(record, now, usual):
        return SOON_SECONDS
    waited = (now - _begin(record)).total_seconds()
    wanted = max(waited * SHARE, crowd / MOST_POLLS)
    return next((pause for pause in PAUSES if pause >= wanted), FAR_SECONDS)


def is_near(record: AnalysisRecord, now: datetime, usual: timedelta | None) -> bool:
    """Whether the result may come at any moment: attempts seldom take half of the usual time."""
    earliest = _begin(record) + (usual or timedelta(0)) / 2
    return earliest - now < timedelta(seconds=SOON_SECONDS)


def _begin(record: AnalysisRecord) -> datetime:
    is_writing = record.status is Status.PROCESSING and record.claimed_at
    return record.claimed_at if is_writing and record.claimed_at else record.next_attempt_at


def has_changed(before: Snapshot, after: Snapshot) -> bool:
    """Whether there is something new to draw."""
    return _drawn(before) != _drawn(after)


def _drawn(snapshot: Snapshot) -> tuple[object, ...]:
    unreadable = snapshot.is_unreadable, snapshot.why
    return snapshot.record, snapshot.is_gone, unreadable, snapshot.is_unavailable, snapshot.ahead


def has_become_ready(before: Snapshot, after: Snapshot) -> bool:
    """Whether the analysis was completed while the person waited here."""
    return (
        before.record is not None
        and not before.is_over
        and after.record is not None
        and after.record.status is Status.COMPLETED
    )
