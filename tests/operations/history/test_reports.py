"""What the operator asks of the history, whatever the server believes about its tables."""

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from common.record import AnalysisRecord
from operations.doctor import Fault, examine, history_is_well, make_clients
from operations.history.database import MORE_IS_TOO_OLD, Database
from operations.history.reports import Reports
from operations.settings import OperationsSettings
from tests.conftest import make_options, make_settings
from tests.operations.history.histories import EVER, HOUR, NOW, completed, failed, settings_for
from tests.processes import wait_for


def old(number: int) -> AnalysisRecord:
    """One that ended so many hours before 40 days ago."""
    return completed(at=NOW - timedelta(days=40) - number * HOUR, request_id=f"{number:032x}")


def test_everything_too_old_goes_the_oldest_first(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.history.reports.PURGED", 2)
    database = Database(settings_for(any_url))
    database.write_many([old(number) for number in range(5)])
    database.write_many([completed()])
    steps = database.reports.purge_all()

    assert next(steps) == 2
    assert database.reports.lag() < timedelta(days=10) + 2.5 * HOUR  # the two oldest are gone
    assert sum(steps) == 3
    assert [count.number for count in database.reports.counts()] == [1]
    assert database.reports.lag() == timedelta(0)


def test_a_purge_that_lags_is_told_by_doctor_and_by_whoever_writes(
    any_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("operations.history.reports.SWEPT", 2)
    monkeypatch.setattr("operations.history.database.SWEPT", 2)
    at = make_clients(make_settings(), make_options(database_url=any_url))
    database = Database(settings_for(any_url))
    database.write(completed())
    (before,) = examine(at, [history_is_well])
    database.write_many([old(number) for number in range(5)])

    (found,) = examine(at, [history_is_well])
    Database(settings_for(any_url)).write(completed())

    assert not isinstance(before, Fault)
    assert isinstance(found, Fault)
    assert "should have gone 10 days ago: have `python -m operations purge` run" in str(found)
    assert MORE_IS_TOO_OLD in caplog.text


def test_who_purges_waits_for_nobody_who_does_so_too(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    database = Database(with_history)
    database.write_many([old(number) for number in range(3)])

    with rows.transaction():
        rows.execute("DELETE FROM analyses WHERE request_id = %s", [f"{2:032x}"])
        assert database.reports.purge() == 2


def whole_reads(rows: psycopg.Connection) -> int:
    """How often the whole table was read, as counted when a connection ends."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    rows.execute(f"SELECT pg_terminate_backend(pid) {others}")
    wait_for(lambda: rows.execute(f"SELECT count(*) {others}").fetchone() == (0,))
    counted = rows.execute(
        "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'analyses'"
    ).fetchone()
    assert counted
    return int(counted[0])


def ask_for_failed(reports: Reports) -> None:
    assert sum(1 for _ in reports.failed(*EVER)) == 400
    assert sum(1 for _ in reports.failed("quota_exceeded", *EVER[1:])) == 400


def remove_the_old(reports: Reports) -> None:
    assert reports.purge() == 300
    assert sum(reports.purge_all()) == 100


@pytest.mark.parametrize("ask", [ask_for_failed, remove_the_old])
@pytest.mark.parametrize("believed", ["nothing", "a row", "all"])
def test_no_question_reads_the_whole_table_whatever_the_server_believes(
    with_history: OperationsSettings,
    rows: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    believed: str,
    ask: Callable[[Reports], None],
) -> None:
    """Its statistics are from never, from when there was a row, or of a table quickly read."""
    monkeypatch.setattr("operations.history.reports.SWEPT", 300)
    is_old = ask is remove_the_old
    database = Database(with_history)
    database.write(completed(request_id="f" * 32))
    rows.execute("ALTER TABLE analyses SET (autovacuum_enabled = off)")
    if believed == "a row":
        rows.execute("ANALYZE analyses")
    at = NOW - timedelta(days=40 if is_old else 1)
    database.write_many(
        failed(at + timedelta(seconds=number), request_id=f"{number:032x}") for number in range(400)
    )
    if believed == "all":
        rows.execute("ANALYZE analyses")
    before = whole_reads(rows)

    ask(database.reports)

    assert whole_reads(rows) == before
