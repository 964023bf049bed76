"""What is written into the history, and what may replace it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from common.failures import Failure
from common.record import AnalysisRecord
from common.store import NotFound
from common.submission import new_request_id
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.fakes import (
    ADA,
    ID,
    OTHER_ID,
)
from tests.operations.history.histories import (
    EVER,
    HOUR,
    NOW,
    SECOND,
    completed,
    failed,
    settings_for,
)


def test_what_was_written_is_read_back(any_url: str) -> None:
    database = Database(settings_for(any_url))

    database.write(completed())

    assert database.find(ID) == completed()


def test_what_was_never_written_is_not_found(any_url: str) -> None:
    for unknown in ("f" * 32, "not an id", "'; DROP TABLE analyses; --"):
        with pytest.raises(NotFound):
            Database(settings_for(any_url)).find(unknown)


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        pytest.param(completed(1), completed(2), completed(2), id="newer round"),
        pytest.param(completed(2), completed(1), completed(2), id="older round"),
        pytest.param(
            completed(2),
            completed(1, NOW + HOUR, created_at=NOW),
            completed(2),
            id="older round that ended later",
        ),
        pytest.param(
            completed(1),
            completed(1, NOW + SECOND, created_at=NOW),
            completed(1, NOW + SECOND, created_at=NOW),
            id="Redis has gone back in time and decided anew",
        ),
        pytest.param(
            completed(1),
            failed(NOW + SECOND, created_at=NOW),
            completed(1),
            id="Redis has gone back in time, and its record has timed out",
        ),
        pytest.param(
            completed(1),
            failed(NOW + SECOND, created_at=NOW, round=2),
            failed(NOW + SECOND, created_at=NOW, round=2),
            id="failed in a later round",
        ),
        pytest.param(
            completed(3),
            completed(1, NOW + HOUR),
            completed(1, NOW + HOUR),
            id="created again after Redis had forgotten it",
        ),
        pytest.param(
            completed(1, NOW + HOUR),
            completed(3),
            completed(1, NOW + HOUR),
            id="created again, then the one before",
        ),
        pytest.param(
            failed(round=2, failure=Failure.NOT_QUEUED),
            failed(NOW - HOUR),
            failed(round=2, failure=Failure.NOT_QUEUED),
            id="never queued, then the older round",
        ),
        pytest.param(
            failed(round=2, failure=Failure.NOT_QUEUED),
            completed(1, NOW + SECOND, created_at=NOW),
            completed(1, NOW + SECOND, created_at=NOW),
            id="never queued, then an older round that ended later",
        ),
    ],
)
def test_a_later_decision_replaces_an_earlier_one_and_never_back(
    any_url: str, first: AnalysisRecord, second: AnalysisRecord, kept: AnalysisRecord
) -> None:
    database = Database(settings_for(any_url))

    database.write(first)
    database.write(second)

    assert database.find(ID) == kept.model_copy(update={"input": None})


def test_concurrent_duplicates_make_one_row_of_the_latest_round(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    databases = [Database(with_history) for _ in range(4)]
    writes = [(database, completed(number)) for number in (3, 1, 5, 2, 4) for database in databases]

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda write: write[0].write(write[1]), writes))

    assert rows.execute("SELECT request_id, round FROM analyses").fetchall() == [(ID, 5)]
    assert rows.execute("SELECT count(*) FROM history_version").fetchall() == [(1,)]


def test_a_deleted_one_never_comes_back(any_url: str) -> None:
    database = Database(settings_for(any_url))
    database.write(completed())

    database.delete(ID, NOW)
    database.write(completed())
    database.write(completed(5, NOW + timedelta(hours=1), created_at=NOW))

    with pytest.raises(NotFound):
        database.find(ID)


def test_one_deleted_before_it_was_written_never_comes(any_url: str) -> None:
    database = Database(settings_for(any_url))

    database.delete(ID, NOW)
    database.write(completed())

    with pytest.raises(NotFound):
        database.find(ID)


def test_what_is_created_again_after_it_was_deleted_is_kept(any_url: str) -> None:
    database = Database(settings_for(any_url))
    database.write(completed(2))

    database.delete(ID, NOW + SECOND)
    database.write(completed(1, NOW + HOUR))

    assert database.find(ID) == completed(1, NOW + HOUR)


def test_nothing_of_a_deleted_one_is_left_in_the_database(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    database = Database(with_history)
    database.write(completed())

    database.delete(ID, NOW)

    stored = rows.execute("SELECT status, code, record FROM analyses").fetchall()
    assert stored == [("deleted", None, None)]


@pytest.mark.parametrize("keeps", [True, False])
def test_the_input_is_kept_for_the_operator_alone_and_only_if_asked_for(
    with_history: OperationsSettings, rows: psycopg.Connection, keeps: bool
) -> None:
    database = Database(with_history.model_copy(update={"keep_input": keeps}))

    database.write(failed())

    assert (database.find(ID).input == ADA) is keeps
    stored = rows.execute("SELECT record FROM analyses").fetchone()
    assert stored
    assert ("I sketch machines" in stored[0]) is keeps


def test_what_is_too_old_is_not_read_and_then_removed(any_url: str) -> None:
    database = Database(settings_for(any_url, history_days=7))
    ids = [new_request_id() for _ in range(3)]
    for days, request_id in zip((6.9, 7.1, 30), ids, strict=True):
        database.write(completed(at=NOW - timedelta(days=days), request_id=request_id))

    assert database.find(ids[0])
    with pytest.raises(NotFound):
        database.find(ids[1])
    assert [count.number for count in database.reports.counts()] == [1]
    assert database.reports.purge() == 2
    assert database.reports.purge() == 0


def test_a_row_that_cannot_be_read_is_listed_all_the_same(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    database = Database(with_history)
    for request_id in (ID, OTHER_ID):
        database.write(failed(request_id=request_id))
    rows.execute("UPDATE analyses SET record = 'half a rec' WHERE request_id = %s", [ID])

    assert {row.request_id for row in database.reports.failed(*EVER)} == {ID, OTHER_ID}


def test_the_failed_come_page_by_page_none_twice_and_none_left_out(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.history.reports.PAGE", 3)
    database = Database(settings_for(any_url))
    ids = [f"{number:032x}" for number in range(10)]
    # Several end at the same instant, across the end of a page.
    ends = [NOW - timedelta(minutes=10 - number // 4) for number in range(10)]
    database.write_many(
        failed(end, request_id=request_id) for request_id, end in zip(ids, ends, strict=True)
    )
    database.write(completed(request_id="f" * 32))

    listed = list(database.reports.failed(*EVER))

    assert [row.request_id for row in listed] == ids
    assert listed[0] == (ids[0], 1, "quota_exceeded", ends[0])
    assert [row.request_id for row in database.reports.failed(None, ends[4], ends[4])] == ids[4:8]
    assert list(database.reports.failed("timed_out", *EVER[1:])) == []


def test_many_are_written_as_each_alone_would_be(any_url: str) -> None:
    database = Database(settings_for(any_url))
    database.write(completed(2))
    database.delete(OTHER_ID, NOW)
    third = "3" * 32

    database.write_many(
        [completed(1), completed(request_id=OTHER_ID), failed(request_id=third)] * 2
    )

    assert database.find(ID).round == 2
    with pytest.raises(NotFound):
        database.find(OTHER_ID)
    assert database.find(third).input is None


def test_the_oldest_are_purged_first(
    with_history: OperationsSettings, rows: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.history.reports.SWEPT", 2)
    database = Database(with_history)
    database.ping()
    ids = [f"{number:032x}" for number in range(4)]
    for days, request_id in zip((33, 31, 34, 32), ids, strict=True):
        database.write_many([completed(at=NOW - timedelta(days=days), request_id=request_id)])

    assert database.reports.purge() == 2
    assert {row[0] for row in rows.execute("SELECT request_id FROM analyses")} == {ids[1], ids[3]}


def test_who_writes_removes_what_is_too_old(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    old = completed(at=NOW - timedelta(days=31))
    Database(with_history).write(old)

    Database(with_history).write(completed(request_id="f" * 32))  # the next process

    assert rows.execute("SELECT request_id FROM analyses").fetchall() == [("f" * 32,)]
