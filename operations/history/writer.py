"""How rows get into the history: all that wait, in one transaction, while the next ones gather.

Whoever hands rows over waits until they are there, or until it is known why they are not.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import sqlalchemy as sql
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from common.failures import Failure
from common.states import Status
from operations.history.schema import DELETED, analyses

MAX_ROWS = 1000  # in one transaction; more than a process has threads
COMPLETED = Status.COMPLETED.value
INSERTS: dict[str, Any] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}

Row = dict[str, Any]


class _Waiting(NamedTuple):
    """Some rows, all of them or none; `told` becomes None, or why they are not there."""

    rows: Sequence[Row]
    told: asyncio.Future[Exception | None]


class Writer:
    """Writes for all who wait; belongs to one event loop, and uses one connection at a time."""

    def __init__(self, write_rows: Callable[[list[Row]], Awaitable[None]]) -> None:
        self._write_rows = write_rows
        self._waiting: deque[_Waiting] = deque()
        self._at_work: asyncio.Task[None] | None = None

    async def write(self, rows: Sequence[Row]) -> Exception | None:
        """Return once they are there, or why they are not. Who is cancelled can't know."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(rows, loop.create_future())
        self._waiting.append(waiting)
        if self._at_work is None or self._at_work.done():
            self._at_work = loop.create_task(self._write_groups())
        return await waiting.told

    async def _write_groups(self) -> None:
        while self._waiting:
            await self._write(self._next_group())

    def _next_group(self) -> list[_Waiting]:
        group, number = [self._waiting.popleft()], 0
        while self._waiting and number + len(self._waiting[0].rows) <= MAX_ROWS:
            number += len(self._waiting[0].rows)
            group.append(self._waiting.popleft())
        return group

    async def _write(self, group: list[_Waiting]) -> None:
        group = [each for each in group if not each.told.done()]  # the others have given up
        if not group:
            return
        # By their keys, as every process does: no two can wait for each other's rows.
        rows = sorted((row for each in group for row in each.rows), key=_key)
        error = await self._try(rows)
        if error and len(group) > 1 and _may_be_one_row(error):
            for each in group:
                await self._write([each])
            return
        for each in group:
            if not each.told.done():
                each.told.set_result(error)

    async def _try(self, rows: list[Row]) -> Exception | None:
        try:
            await self._write_rows(rows)
        except Exception as error:  # whoever waits for these rows raises it
            return error
        return None


def write_rows(connection: sql.Connection, rows: list[Row]) -> None:
    """Write rows, unless later ones are there; the same one may come twice."""
    connection.execute(_upsert(connection.dialect.name), rows)


@cache  # making it anew takes as long as running it
def _upsert(dialect: str) -> sql.Executable:
    insert = INSERTS[dialect](analyses)
    new = insert.excluded
    statement: sql.Executable = insert.on_conflict_do_update(
        index_elements=["request_id"],
        set_={column.name: new[column.name] for column in analyses.c},
        where=_is_later(new),
    )
    return statement


def _is_later(new: Any) -> sql.ColumnElement[bool]:
    """Whether what is to be written has happened after what is there."""
    row = analyses.c

    def is_greater(*names: str) -> sql.ColumnElement[bool]:
        return sql.tuple_(*(new[name] for name in names)) > sql.tuple_(*(row[n] for n in names))

    return sql.case(
        (row.status == DELETED, new.created_at > row.finished_at),
        # Of rounds that were never queued none counts for more than what ended after it.
        (row.code == Failure.NOT_QUEUED.value, is_greater("created_at", "finished_at")),
        # A Redis that was restored may time out what it had completed: the result stays.
        (
            sql.and_(row.status == COMPLETED, new.status != COMPLETED),
            is_greater("created_at", "round"),
        ),
        else_=is_greater("created_at", "round", "finished_at"),
    )


def _key(row: Row) -> Any:
    return row["request_id"]


def _may_be_one_row(error: Exception) -> bool:
    """Whether the others may be written without the one that the database refuses."""
    if not isinstance(error, DBAPIError):
        return not isinstance(error, SQLAlchemyError | OSError)
    was_too_slow = type(error.orig).__name__ == "QueryCanceled"
    return bool(error.statement) and not error.connection_invalidated and not was_too_slow
