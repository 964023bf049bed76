"""What may veto: the two ports that options fill, and the null objects that stand there otherwise.

What only watches subscribes to events instead (`events.py`).
"""

from datetime import timedelta
from typing import ClassVar, Protocol

from common.connection import StoreUnavailable
from common.events import StoreName
from common.failures import Limit
from common.record import AnalysisRecord
from common.store import NotFound


class LimitReached(Exception):
    """No new analysis is admitted just now; `retry_after` says when one may be."""

    def __init__(self, limit: Limit, retry_after: timedelta) -> None:
        super().__init__(limit.sentence)
        self.limit = limit
        self.retry_after = max(retry_after, timedelta(seconds=1))


class HistoryUnavailable(StoreUnavailable):
    """The history can't be used just now. The change may have happened; repeating it is safe."""

    store: ClassVar[StoreName] = "database"

    def __init__(self, cause: str, retry_after: timedelta = StoreUnavailable.retry_after) -> None:
        super().__init__(cause)
        self.retry_after = retry_after


class HistoryBusy(HistoryUnavailable):
    """The history's database works, and this process asks more of it than it can take just now."""

    store = "busy_database"

    def __init__(self, cause: str) -> None:
        super().__init__(cause, retry_after=timedelta(seconds=30))


class Limits(Protocol):
    """How much is admitted."""

    def admit(self, record: AnalysisRecord, *, visitor: str | None = None) -> None:
        """Check and count one more round, before it is stored; the same one is counted once.

        `visitor` is None for a program. Raises: LimitReached, StoreUnavailable.
        """

    def ahead(self, record: AnalysisRecord) -> int | None:
        """How many unfinished analyses come before one that waits; None where nobody counts them.

        Raises: StoreUnavailable.
        """


class History(Protocol):
    """What is kept of analyses for longer than Redis keeps them."""

    @property
    def keeps(self) -> timedelta:
        """For how long, from the moment that an analysis is terminal."""

    def ended(self, request_id: str) -> None:
        """Keep what Redis says of an analysis, if it is terminal. Safe to repeat.

        Raises: NotFound, Unreadable; StoreUnavailable, or its HistoryUnavailable: QStash must not
        hear 200 yet.
        """

    def find(self, request_id: str) -> AnalysisRecord:
        """Read what is kept. Raises: NotFound, Unreadable, HistoryUnavailable."""

    def forget(self, request_id: str) -> None:
        """Erase what is kept, and what would still come. Raises: HistoryUnavailable."""


class NoLimits:
    """Everything is admitted, and nothing counted."""

    def admit(self, record: AnalysisRecord, *, visitor: str | None = None) -> None:
        pass

    def ahead(self, record: AnalysisRecord) -> int | None:
        return None


class NoHistory:
    """Nothing is kept for longer."""

    keeps = timedelta(0)

    def ended(self, request_id: str) -> None:
        pass

    def find(self, request_id: str) -> AnalysisRecord:
        raise NotFound("there is no history")

    def forget(self, request_id: str) -> None:
        pass
