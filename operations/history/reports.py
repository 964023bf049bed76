"""What the operator asks of the history: its failures, its numbers, and that the oldest rows go.

For a table of millions of rows there are plans that are a thousand times too slow, and the server's
statistics may be from when it was small. So each statement walks an index from where the one before
ended, and is told not to weigh up anything else. Who asks may wait: for longer than a delivery.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar

import sqlalchemy as sql

from common.states import Status
from common.store import utc_now
from operations.history import indexes
from operations.history.connections import Connections
from operations.history.schema import analyses, is_kept

PAGE = 5000  # rows that are read at a time
SWEPT = 1000  # rows removed by one who writes, so that no write waits for long
PURGED = 5000  # and at a time by the operator's purge
STATEMENT_SECONDS = 60  # on a cold and busy server, counting millions of rows takes some
USE_SECONDS = STATEMENT_SECONDS + 10.0
BUILD_SECONDS = 6 * 3600.0  # of indexes
MAX_LAG = timedelta(days=1)  # purged every hour, nothing is kept for so much longer
LONGER = f"SET LOCAL statement_timeout = {STATEMENT_SECONDS * 1000}"
ALONG_AN_INDEX = "; ".join(
    f"SET LOCAL enable_{step} = off" for step in ("seqscan", "bitmapscan", "sort")
)
T = TypeVar("T")


class FailedRow(NamedTuple):
    """What the operator is told of a failed analysis."""

    request_id: str
    round: int
    code: str | None
    finished_at: datetime


class Count(NamedTuple):
    """How many analyses ended so; `code` says why they failed."""

    status: str
    code: str | None
    number: int


class Reports:
    """Every method raises HistoryUnavailable when the database is away."""

    def __init__(self, connections: Connections, days: timedelta) -> None:
        self._connections = connections
        self._days = days

    def since(self) -> datetime:
        """What ended before is not read any more, and to be removed."""
        return utc_now() - self._days

    def failed(self, code: str | None, after: datetime, before: datetime) -> Iterator[FailedRow]:
        """Those kept that failed with this code, or any, in this time: the oldest first.

        Reads a page at a time, as they are taken.
        """
        page, last = self._first_page(code, max(after, self.since()), before), None
        position = sql.tuple_(analyses.c.finished_at, analyses.c.request_id)
        while True:
            following = page if last is None else page.where(position > (last[3], last[0]))
            found = self._run(_rows(following), ALONG_AN_INDEX)
            for each in found:
                yield FailedRow(*each)._replace(finished_at=_in_utc(each[3]))
            if len(found) < PAGE:
                return
            last = found[-1]

    def _first_page(
        self, code: str | None, after: datetime, before: datetime
    ) -> sql.Select[tuple[str, int, str | None, datetime]]:
        row = analyses.c
        # Only what has failed has a code: asked for both, the server might take the other index.
        has_ended_so = row.code == code if code else row.status == Status.FAILED.value
        return (
            sql.select(row.request_id, row.round, row.code, row.finished_at)
            .where(has_ended_so, row.finished_at >= after, row.finished_at <= before)
            .order_by(row.finished_at, row.request_id)
            .limit(PAGE)
        )

    def counts(self) -> list[Count]:
        """How many are kept, by status and code."""
        ends = analyses.c.status, analyses.c.code
        query = sql.select(*ends, sql.func.count()).where(is_kept(self.since()))
        return [Count(*each) for each in self._run(_rows(query.group_by(*ends).order_by(*ends)))]

    def purge(self) -> int:
        """Remove the oldest 1,000 that are too old; return how many were. For those who write."""
        return self._connections.run(lambda each: _remove(each, self.since(), SWEPT)).number

    def purge_all(self) -> Iterator[int]:
        """Remove all that are too old, the oldest first; tell of each batch how many they were."""
        since, batch = self.since(), _Batch(PURGED, None)
        while batch.number:
            batch = self._run(partial(_remove, until=since, number=PURGED, since=batch.last))
            yield batch.number

    def lag(self) -> timedelta:
        """By how much the oldest row has outlived its time."""
        oldest = self._run(_rows(sql.select(sql.func.min(analyses.c.finished_at))))[0][0]
        return max(self.since() - _in_utc(oldest), timedelta(0)) if oldest else timedelta(0)

    def remarks(self) -> list[str]:
        """What the operator should do about the history; nothing, usually."""
        found, lag = [], self.lag()
        if lag > MAX_LAG:
            found.append(
                f"its oldest rows should have gone {lag.days} days ago: have "
                "`python -m operations purge` run every hour"
            )
        if self._connections.run(indexes.missing):
            found.append("an index is missing: run `python -m operations upgrade`")
        return found

    def build_indexes(self, tell: Callable[[str], None]) -> None:
        """Build those that are missing, beside whoever writes."""
        self._connections.run(
            partial(indexes.build_beside_writers, tell=tell), seconds=BUILD_SECONDS
        )

    def _run(self, work: Callable[[sql.Connection], T], *settings: str) -> T:
        def patiently(connection: sql.Connection) -> T:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("; ".join((LONGER, *settings)))
            return work(connection)

        return self._connections.run(patiently, seconds=USE_SECONDS)


class _Batch(NamedTuple):
    number: int
    last: datetime | None  # when the youngest of them had ended


def _remove(
    connection: sql.Connection, until: datetime, number: int, since: datetime | None = None
) -> _Batch:
    """Remove the oldest of those that ended from `since` to `until`, in two steps.

    In one step, the server chooses how to find the rows by an estimate of how many there are, and
    may read the whole table. Others who remove, or write, are not waited for.
    """
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(ALONG_AN_INDEX)
    row = analyses.c
    oldest = sql.select(row.request_id, row.finished_at).where(row.finished_at <= until)
    if since:  # the server need not go over what has just been removed
        oldest = oldest.where(row.finished_at >= since)
    oldest = oldest.order_by(row.finished_at).limit(number).with_for_update(skip_locked=True)
    found = connection.execute(oldest).all()
    if not found:
        return _Batch(0, None)
    ids, first, last = [each.request_id for each in found], found[0][1], found[-1][1]
    connection.execute(
        analyses.delete().where(row.request_id.in_(ids), row.finished_at.between(first, last))
    )
    return _Batch(len(found), last)


def _rows(query: sql.Select[*tuple[Any, ...]]) -> Callable[[sql.Connection], list[tuple[Any, ...]]]:
    return lambda connection: list(map(tuple, connection.execute(query)))


def _in_utc(time: datetime) -> datetime:
    """SQLite tells times without a zone, PostgreSQL in that of the session."""
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
