"""Connections to the database: bounded in time, and left when they are no good."""

import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sql
from sqlalchemy import event

from common.deadline import run_within
from common.ports import HistoryBusy, HistoryUnavailable
from common.store import Store
from operations.history import connections
from operations.history.archive import DatabaseHistory
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.fakes import (
    ADA,
    ID,
    FakeAnalyst,
    FakeQueue,
)
from tests.operations.history.histories import (
    CORE,
    LATER,
    completed,
    deliver,
    make_people,
    make_worker,
    settings_for,
)
from tests.postgres import Postgres, slow_way
from tests.processes import ROOT, bare_environment, wait_for
from tests.zygote import Zygote
from webhook_service import create_app
from webhook_service.worker import Outcome, OutcomeKind, Worker

SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"


@pytest.fixture
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit that is met: nobody in these tests is to be answered within it."""
    assert connections.USE_SECONDS < 10, "QStash waits no longer"
    monkeypatch.setattr(connections, "USE_SECONDS", 1.0)


def test_a_database_that_takes_ten_seconds_is_not_waited_for(
    store: Store, postgres: Postgres
) -> None:
    with slow_way(postgres.port) as way:
        with_history = settings_for(f"postgresql://tester@127.0.0.1:{way.port}/postgres")
        make_people(store, with_history).submit(ADA, request_id=ID)
        worker = make_worker(store, with_history)

        way.seconds = 10
        began = time.monotonic()
        while_slow = deliver(worker)
        took = time.monotonic() - began
        way.seconds = 0
        when_back = deliver(worker)

    assert while_slow == Outcome(OutcomeKind.RETRY, LATER)
    assert took < 10
    assert when_back.kind is OutcomeKind.IGNORED
    assert Database(settings_for(postgres.url)).find(ID) == store.read(ID)


@pytest.mark.usefixtures("in_haste")
def test_a_database_that_falls_silent_in_mid_statement_is_cut_off(postgres: Postgres) -> None:
    with slow_way(postgres.port) as way:
        database = Database(settings_for(f"postgresql://tester@127.0.0.1:{way.port}/postgres"))
        database.write(completed())
        way.silent_after = b"INSERT INTO analyses"
        began = time.monotonic()
        with pytest.raises(HistoryUnavailable):
            database.write(completed(2))

    assert time.monotonic() - began < 10


def test_a_database_that_falls_silent_before_the_first_statement_is_cut_off(
    postgres: Postgres,
) -> None:
    """What SQLAlchemy asks a server that it doesn't know yet has a time limit, too."""
    with slow_way(postgres.port) as way:
        database = Database(settings_for(f"postgresql://tester@127.0.0.1:{way.port}/postgres"))
        way.silent_after = b"pg_catalog.version()"
        began = time.monotonic()

        def write(_: int) -> bool:
            with pytest.raises(HistoryUnavailable):
                database.write(completed())
            return True

        with ThreadPoolExecutor(4) as threads:
            answered = list(threads.map(write, range(4)))
        took = time.monotonic() - began
        way.silent_after = None
        database.write(completed())

    assert len(answered) == 4
    assert took < 12, "it is silent for ever"
    assert Database(settings_for(postgres.url)).find(ID) == completed()


def test_after_a_first_write_that_failed_the_tables_are_made_by_the_second(any_url: str) -> None:
    database = Database(settings_for(any_url))

    def fail(_: object) -> None:
        raise OSError("as planned")

    event.listen(sql.Engine, "commit", fail)
    try:
        with pytest.raises(HistoryUnavailable):
            database.write(completed())
    finally:
        event.remove(sql.Engine, "commit", fail)
    database.write(completed())

    assert database.find(ID) == completed()


@pytest.mark.usefixtures("in_haste")
def test_a_locked_table_is_not_waited_for(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    database = Database(with_history)
    database.ping()
    began = time.monotonic()

    with rows.transaction():
        rows.execute("LOCK TABLE analyses")
        with pytest.raises(HistoryUnavailable, match="it does not answer in time"):
            database.write(completed())

    assert time.monotonic() - began < 10


@pytest.mark.usefixtures("in_haste")
def test_many_at_once_while_the_database_is_slow_are_all_answered_in_time(
    postgres: Postgres,
) -> None:
    with slow_way(postgres.port) as way:
        database = Database(settings_for(f"postgresql://tester@127.0.0.1:{way.port}/postgres"))
        database.ping()
        way.seconds = 10
        began = time.monotonic()

        def write(_: int) -> bool:
            with pytest.raises(HistoryUnavailable):
                database.write(completed())
            return True

        with ThreadPoolExecutor(16) as threads:
            answered = list(threads.map(write, range(16)))

    assert len(answered) == 16
    assert time.monotonic() - began < 10


def test_a_user_who_may_not_create_tables_can_use_those_there_are(
    with_history: OperationsSettings, rows: psycopg.Connection, postgres: Postgres
) -> None:
    Database(with_history).ping()
    rows.execute("DROP ROLE IF EXISTS clerk")
    rows.execute("CREATE ROLE clerk LOGIN")
    rows.execute("GRANT USAGE ON SCHEMA public TO clerk")
    rows.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO clerk")
    database = Database(settings_for(postgres.url.replace("tester@", "clerk@")))

    database.write(completed())

    assert database.find(ID) == completed()
    rows.execute("DROP OWNED BY clerk")


def test_errors_show_neither_the_address_nor_what_was_to_be_written(
    postgres: Postgres, caplog: pytest.LogCaptureFixture, store: Store
) -> None:
    secret = settings_for(postgres.url.replace("tester@", "tester:hunter2@").replace("127", "126"))
    make_people(store, secret).submit(ADA, request_id=ID)
    caplog.set_level("DEBUG")

    deliver(make_worker(store, secret))

    assert '"store": "database"' in caplog.text
    assert "hunter2" not in caplog.text + repr(secret)
    assert "machines" not in caplog.text


def test_a_database_that_is_half_a_second_away_there_and_back_has_the_time_it_takes(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is asked, making the tables included, by the first process that comes."""
    taken: list[tuple[float, float]] = []
    leave_after = connections._leave_after

    async def noted(seconds: float, call: Coroutine[Any, Any, object]) -> object:
        before = way.round_trips
        result = await leave_after(seconds, call)
        taken.append((0.5 * (way.round_trips - before), seconds))
        return result

    def all_noted(seconds: float, call: Coroutine[Any, Any, object]) -> object:
        before = way.round_trips
        result = run_within(seconds, call)
        taken.append((0.5 * (way.round_trips - before), seconds))
        return result

    monkeypatch.setattr(connections, "_leave_after", noted)
    monkeypatch.setattr(connections, run_within.__name__, all_noted)
    with slow_way(postgres.port) as way:
        address = settings_for(f"postgresql://tester@127.0.0.1:{way.port}/postgres")
        for database in (Database(address), Database(address)):
            database.write(completed())
            assert database.find(ID) == completed()

    limits = connections.CHECK_SECONDS, connections.UPGRADE_SECONDS, connections.USE_SECONDS
    assert {seconds for _, seconds in taken} == {*limits, sum(limits[:2])}
    assert all(0 < took < seconds for took, seconds in taken)


def test_a_restart_of_the_database_costs_nothing(
    with_history: OperationsSettings, postgres: Postgres
) -> None:
    database = Database(with_history)
    database.write(completed())

    postgres.stop()
    postgres.start()
    database.write(completed(2))

    assert database.find(ID) == completed(2)


def test_a_server_that_may_only_be_read_is_left_for_the_primary(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    """Behind the same address: those who were connected stay with a primary of before."""
    Database(with_history).ping()
    database = Database(with_history)
    rows.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    try:
        with pytest.raises(HistoryUnavailable, match="point DATABASE_URL at the primary"):
            database.write(completed())
    finally:
        rows.execute("ALTER DATABASE postgres RESET default_transaction_read_only")
    database.write(completed())

    assert database.find(ID) == completed()


def test_what_was_cut_off_is_stopped_at_the_server_and_its_connection_is_not_used_again(
    with_history: OperationsSettings, rows: psycopg.Connection, postgres: Postgres
) -> None:
    database = Database(with_history)
    database.write(completed())
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    of_ours = "SELECT pid FROM pg_stat_activity WHERE client_port IS NOT NULL AND state = 'idle'"
    before = rows.execute(of_ours).fetchall()

    with psycopg.connect(postgres.url) as other, pytest.MonkeyPatch.context() as patch:
        other.execute("LOCK TABLE analyses")
        patch.setattr(connections, "USE_SECONDS", 0.5)
        with pytest.raises(HistoryUnavailable, match="it does not answer in time"):
            database.write(completed(2))
        wait_for(lambda: rows.execute(waiting).fetchone() == (0,))

    assert database.find(ID) == completed()
    assert not set(before) & set(rows.execute(of_ours).fetchall())


def sleep(seconds: float) -> Callable[[sql.Connection], object]:
    return lambda connection: connection.exec_driver_sql(f"SELECT pg_sleep({seconds})")


def test_a_reader_beyond_the_connections_is_told_that_all_are_busy_and_writing_goes_on(
    with_history: OperationsSettings, rows: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(with_history)
    database.ping()
    monkeypatch.setattr(connections, "MAX_WAIT_SECONDS", 0.5)

    with ThreadPoolExecutor(3) as threads:
        reading = [threads.submit(database.connections.run, sleep(1.5)) for _ in range(3)]
        wait_for(lambda: rows.execute(SLEEPING).fetchone() == (3,))
        with ThreadPoolExecutor(1) as one_more:
            asked = one_more.submit(database.find, ID)
            database.write(completed())
            error = asked.exception()
        [each.result() for each in reading]

    assert isinstance(error, HistoryBusy)
    assert (error.store, error.retry_after) == ("busy_database", timedelta(seconds=30))
    assert database.find(ID) == completed()


def test_a_reader_beyond_the_connections_of_a_silent_database_is_not_told_that_it_is_busy(
    with_history: OperationsSettings, rows: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(with_history)
    database.ping()
    monkeypatch.setattr(connections, "MAX_WAIT_SECONDS", 0.2)

    with ThreadPoolExecutor(3) as threads:
        reading = [threads.submit(database.connections.run, sleep(1)) for _ in range(3)]
        wait_for(lambda: rows.execute(SLEEPING).fetchone() == (3,))
        with pytest.raises(HistoryUnavailable, match="it does not answer in time") as error:
            database.find(ID)
        [each.result() for each in reading]

    assert error.value.store == "database"


def test_a_delivery_that_a_busy_database_could_not_take_in_time_comes_again_soon(
    store: Store,
    with_history: OperationsSettings,
    postgres: Postgres,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    history = DatabaseHistory(with_history, store)
    history.check()
    make_people(store, with_history).submit(ADA, request_id=ID)
    worker = Worker(store, FakeAnalyst(), CORE.times, history=history)
    monkeypatch.setattr(connections, "USE_SECONDS", 1.0)

    with psycopg.connect(postgres.url) as other, ThreadPoolExecutor(1) as thread:
        other.execute("LOCK TABLE analyses")
        delivery = thread.submit(deliver, worker)
        while not delivery.done():
            history.database.connections.run(sleep(0.1))
        while_busy = delivery.result()
    afterwards = deliver(worker)

    assert while_busy == Outcome(OutcomeKind.RETRY, timedelta(seconds=30))
    assert afterwards.kind is OutcomeKind.IGNORED
    assert history.find(ID) == store.read(ID)


def test_several_processes_write_at_the_same_time_from_the_first_moment_on(
    any_url: str, tmp_path: Path, zygote: Zygote
) -> None:
    program = """
import os, sys
from common.record import AnalysisRecord
from common.submission import new_request_id
from operations.history.database import Database
from operations.settings import OperationsSettings

others = []
while len(others) < 2 and (child := os.fork()):
    others.append(child)
database = Database(OperationsSettings(database_url=sys.argv[1]))
record = AnalysisRecord.model_validate_json(sys.argv[2])
for _ in range(10):
    database.write(record.model_copy(update={"request_id": new_request_id()}))
if len(others) == 2:
    sys.exit(any(os.waitpid(child, 0)[1] for child in others))
"""
    record = completed().model_dump_json(by_alias=True)

    ended = zygote.run(["-c", program, any_url, record], ROOT, bare_environment(tmp_path))

    assert ended.returncode == 0, ended.stderr
    assert [count.number for count in Database(settings_for(any_url)).reports.counts()] == [30]


def test_nothing_is_opened_before_the_first_use(
    store: Store, with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    """A thread, and a connection, would not be there after the fork, or be shared."""
    used = "SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL"
    before = rows.execute(used).fetchone(), threading.active_count()

    create_app(CORE, with_history, store=store, queue=FakeQueue(), analyst=FakeAnalyst())

    assert (rows.execute(used).fetchone(), threading.active_count()) == before
