"""The durable history, on a real PostgreSQL: never lost, never doubled, never other than Redis."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import httpx
import psycopg
import pytest
import redis
import sqlalchemy as sql
from sqlalchemy import event

from common.connection import StoreUnavailable
from common.failures import Failure
from common.ports import HistoryUnavailable, NoHistory
from common.qstash import QStashRefused, Queue
from common.record import AnalysisRecord, Status
from common.settings import DEVELOPMENT_TOKEN
from common.store import NotFound, Store
from common.submission import NotOwner, Submissions, new_request_id
from operations.history import connect_history
from operations.history.archive import DatabaseHistory
from operations.history.connections import Connections
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.conftest import make_options, make_settings, make_store
from tests.fakes import (
    ADA,
    ANALYSIS,
    CALL,
    DEADLINE,
    ID,
    LEASE,
    OTHER_ID,
    FakeAnalyst,
    FakeQueue,
    pending,
)
from tests.http_server import serve
from tests.postgres import Postgres, slow_way
from tests.processes import ROOT, Stack, bare_environment, start_stand_in, wait_for
from tests.product import COMMANDS, GOOD, Server
from tests.tokens import CURRENT, NEXT
from webhook_service import create_app
from webhook_service.answer import AnalysisFailed
from webhook_service.worker import Delivery, Outcome, OutcomeKind, Worker

NOW = datetime.now(UTC)
QUOTA = AnalysisFailed(Failure.QUOTA_EXCEEDED, "as planned")
LATER = timedelta(seconds=450)  # an eighth of the time that Redis keeps an analysis
OWNER = "owner-token"
CORE = make_settings(qstash_delay="0s")


@pytest.fixture(autouse=True)
def rows(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[psycopg.Connection]:
    """An empty database."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        yield connection


@pytest.fixture(params=["postgresql", "sqlite"])
def any_url(request: pytest.FixtureRequest, postgres: Postgres, tmp_path: Path) -> str:
    return {"postgresql": postgres.url, "sqlite": f"sqlite:///{tmp_path}/history.db"}[request.param]


@pytest.fixture
def with_history(postgres: Postgres) -> OperationsSettings:
    return settings_for(postgres.url)


def settings_for(url: str, **changes: object) -> OperationsSettings:
    options: OperationsSettings = make_options(database_url=url, **changes)
    return options


def make_worker(store: Store, settings: OperationsSettings, *answers: Exception) -> Worker:
    history = DatabaseHistory(settings, store)
    return Worker(store, FakeAnalyst(*answers), CORE.times, history=history)


def make_people(store: Store, settings: OperationsSettings) -> Submissions:
    return Submissions(store, FakeQueue(), CORE, history=DatabaseHistory(settings, store))


def completed(
    number: int = 1,
    at: datetime = NOW,
    request_id: str = ID,
    *,
    created_at: datetime | None = None,
) -> AnalysisRecord:
    """As it is once it was completed, in its round, at that time; created then, if not before."""
    claimed = pending(at, timedelta(0), request_id).claim(
        "token", of_round=1, now=at, call=CALL, lease=LEASE
    )
    done = claimed.complete("token", ANALYSIS, model=f"model-{number}", now=at)
    return done.model_copy(update={"round": number, "created_at": created_at or at})


def failed(at: datetime = NOW, **changes: object) -> AnalysisRecord:
    return completed(at=at).model_copy(
        update={
            "status": Status.FAILED,
            "failure": Failure.QUOTA_EXCEEDED,
            "result": None,
            "input": ADA,
            **changes,
        }
    )


def deliver(worker: Worker) -> Outcome:
    return worker.process(Delivery(request_id=ID, round=1))


# ── One table, and what may be written into it ──────────────────────────────────────────────


def test_what_was_written_is_read_back(any_url: str) -> None:
    database = Database(settings_for(any_url))

    database.write(completed())

    assert database.find(ID) == completed()


def test_what_was_never_written_is_not_found(any_url: str) -> None:
    for unknown in ("f" * 32, "not an id", "'; DROP TABLE analyses; --"):
        with pytest.raises(NotFound):
            Database(settings_for(any_url)).find(unknown)


HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


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
    assert [count.number for count in database.counts()] == [1]
    assert database.purge() == 2
    assert database.purge() == 0


def test_a_row_that_cannot_be_read_is_listed_all_the_same(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    database = Database(with_history)
    for request_id in (ID, OTHER_ID):
        database.write(failed(request_id=request_id))
    rows.execute("UPDATE analyses SET record = 'half a rec' WHERE request_id = %s", [ID])

    assert {row.request_id for row in database.failed()} == {ID, OTHER_ID}


def test_the_failed_come_page_by_page_none_twice_and_none_left_out(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.history.database.PAGE", 3)
    database = Database(settings_for(any_url))
    ids = [f"{number:032x}" for number in range(10)]
    # Several end at the same instant, across the end of a page.
    ends = [NOW - timedelta(minutes=10 - number // 4) for number in range(10)]
    database.write_many(
        failed(end, request_id=request_id) for request_id, end in zip(ids, ends, strict=True)
    )
    database.write(completed(request_id="f" * 32))

    listed = list(database.failed())

    assert [row.request_id for row in listed] == ids
    assert listed[0] == (ids[0], 1, "quota_exceeded", ends[0])
    assert [row.request_id for row in database.failed(after=ends[4], before=ends[4])] == ids[4:8]
    assert list(database.failed(code="timed_out")) == []


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
    monkeypatch.setattr("operations.history.database.MAX_PURGED", 2)
    database = Database(with_history)
    database.ping()
    ids = [f"{number:032x}" for number in range(4)]
    for days, request_id in zip((33, 31, 34, 32), ids, strict=True):
        database.write_many([completed(at=NOW - timedelta(days=days), request_id=request_id)])

    assert database.purge() == 2
    assert {row[0] for row in rows.execute("SELECT request_id FROM analyses")} == {ids[1], ids[3]}


def test_who_writes_removes_what_is_too_old(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    old = completed(at=NOW - timedelta(days=31))
    Database(with_history).write(old)

    Database(with_history).write(completed(request_id="f" * 32))  # the next process

    assert rows.execute("SELECT request_id FROM analyses").fetchall() == [("f" * 32,)]


# ── Deliveries ──────────────────────────────────────────────────────────────────────────────


def test_a_settled_delivery_is_in_the_archive_as_redis_has_it(
    store: Store, with_history: OperationsSettings
) -> None:
    make_people(store, with_history).submit(ADA, request_id=ID)

    outcome = deliver(make_worker(store, with_history))

    assert outcome.kind is OutcomeKind.SETTLED
    assert Database(with_history).find(ID) == store.read(ID)


def test_while_the_database_is_away_the_redelivery_writes_it(
    store: Store, with_history: OperationsSettings, postgres: Postgres
) -> None:
    make_people(store, with_history).submit(ADA, request_id=ID)
    worker = make_worker(store, with_history)

    postgres.stop()
    try:
        outcomes = [deliver(worker), deliver(worker)]
    finally:
        postgres.start()
    outcomes += [deliver(worker), deliver(worker)]

    away, back = Outcome(OutcomeKind.RETRY, LATER), Outcome(OutcomeKind.IGNORED)
    assert outcomes == [away, away, back, back]
    assert Database(with_history).find(ID) == store.read(ID)
    assert store.read(ID).attempt == 1


def test_the_report_that_a_message_was_given_up_writes_it_too(
    store: Store, with_history: OperationsSettings, postgres: Postgres
) -> None:
    make_people(store, with_history).submit(ADA, request_id=ID)
    worker = make_worker(store, with_history)
    postgres.stop()
    try:
        deliver(worker)
    finally:
        postgres.start()

    worker.give_up(Delivery(request_id=ID, round=1))

    assert Database(with_history).find(ID).status is Status.COMPLETED


def test_a_failure_is_told_as_before_and_written_without_its_text(
    store: Store, with_history: OperationsSettings
) -> None:
    make_people(store, with_history).submit(ADA, request_id=ID)

    outcome = deliver(make_worker(store, with_history, QUOTA))

    assert outcome.kind is OutcomeKind.OPERATOR_MUST_ACT
    assert Database(with_history).find(ID).failure is Failure.QUOTA_EXCEEDED
    assert Database(with_history).find(ID).input is None
    assert store.read(ID).input == ADA


def test_a_delivery_that_is_to_be_retried_writes_nothing(
    store: Store, with_history: OperationsSettings, postgres: Postgres
) -> None:
    make_people(store, with_history).submit(ADA, request_id=ID)
    busy = AnalysisFailed(Failure.RATE_LIMITED, "as planned")

    outcome = deliver(make_worker(store, with_history, busy))

    assert outcome == Outcome(OutcomeKind.RETRY, outcome.retry_after)
    with pytest.raises(NotFound):
        Database(with_history).find(ID)


def test_a_delivery_that_settles_while_a_person_deletes_does_not_bring_it_back(
    store: Store, with_history: OperationsSettings
) -> None:
    people = make_people(store, with_history)
    people.submit(ADA, request_id=ID, owner_token=OWNER)
    worker = make_worker(store, with_history)
    deliver(worker)
    settled = store.read(ID)

    people.delete(ID, OWNER)
    Database(with_history).write(settled)  # the delivery had read it before
    deliver(worker)

    with pytest.raises(NotFound):
        people.look_up(ID)


def test_when_the_database_is_full_nothing_is_lost(
    store: Store, with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    Database(with_history).ping()
    rows.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$"
    )
    rows.execute(
        "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON analyses"
        " FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    make_people(store, with_history).submit(ADA, request_id=ID)
    worker = make_worker(store, with_history)

    while_full = deliver(worker)
    rows.execute("DROP TRIGGER full_disk ON analyses")
    deliver(worker)

    assert while_full == Outcome(OutcomeKind.RETRY, LATER)
    assert Database(with_history).find(ID) == store.read(ID)


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


def test_a_locked_table_is_not_waited_for(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    database = Database(with_history)
    database.ping()
    began = time.monotonic()

    with rows.transaction():
        rows.execute("LOCK TABLE analyses")
        with pytest.raises(HistoryUnavailable, match=r"QueryCanceled|OperationalError"):
            database.write(completed())

    assert time.monotonic() - began < 10


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


def test_a_process_of_the_service_has_one_archive(
    monkeypatch: pytest.MonkeyPatch, store: Store, with_history: OperationsSettings
) -> None:
    """Its few connections are those of the process: deliveries and people share them."""
    monkeypatch.setattr(Database, "__init__", made := Mock(return_value=None))

    create_app(CORE, with_history, store=store, queue=FakeQueue(), analyst=FakeAnalyst())

    made.assert_called_once()


@pytest.mark.parametrize("version", ["0000", "9999"])
def test_a_schema_of_another_version_is_told_and_left_alone(
    with_history: OperationsSettings, rows: psycopg.Connection, version: int
) -> None:
    Database(with_history).write(completed())
    rows.execute("UPDATE history_version SET version_num = %s", [version])

    with pytest.raises(HistoryUnavailable, match=f"has version {version} of the schema"):
        Database(with_history).write(completed(2))

    assert rows.execute("SELECT round FROM analyses").fetchall() == [(1,)]


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


# ── People ──────────────────────────────────────────────────────────────────────────────────


def test_what_redis_has_forgotten_is_found_in_the_archive(
    store: Store, with_history: OperationsSettings, fake_redis: redis.Redis
) -> None:
    people = make_people(store, with_history)
    people.submit(ADA, request_id=ID)
    deliver(make_worker(store, with_history))
    settled = store.read(ID)

    fake_redis.flushall()

    assert people.look_up(ID) == settled


def test_an_unknown_id_is_not_found_and_with_the_database_away_nobody_knows(
    store: Store, with_history: OperationsSettings, postgres: Postgres
) -> None:
    people = make_people(store, with_history)
    with pytest.raises(NotFound):
        people.look_up(ID)

    postgres.stop()
    try:
        with pytest.raises(StoreUnavailable):
            people.look_up(ID)
    finally:
        postgres.start()


def test_an_archived_one_is_its_owners_to_delete_and_nobodys_to_run(
    store: Store, with_history: OperationsSettings, fake_redis: redis.Redis
) -> None:
    people = make_people(store, with_history)
    people.submit(ADA, request_id=ID, owner_token=OWNER)
    deliver(make_worker(store, with_history, QUOTA))
    fake_redis.flushall()

    with pytest.raises(NotFound):
        people.retry(ID, OWNER)
    with pytest.raises(NotFound):
        people.cancel(ID, OWNER)
    with pytest.raises(NotOwner):
        people.delete(ID, "somebody else")
    people.delete(ID, OWNER)
    with pytest.raises(NotFound):
        people.look_up(ID)


def test_nothing_is_deleted_while_the_archive_could_not_forget_it(
    store: Store, with_history: OperationsSettings, postgres: Postgres
) -> None:
    people = make_people(store, with_history)
    people.submit(ADA, request_id=ID, owner_token=OWNER)

    postgres.stop()
    try:
        with pytest.raises(StoreUnavailable):
            people.delete(ID, OWNER)
    finally:
        postgres.start()

    assert people.look_up(ID).status is Status.PENDING
    people.delete(ID, OWNER)
    with pytest.raises(NotFound):
        people.look_up(ID)


def test_a_new_round_replaces_the_failure_in_the_archive(
    store: Store, with_history: OperationsSettings
) -> None:
    people = make_people(store, with_history)
    people.submit(ADA, request_id=ID, owner_token=OWNER)
    deliver(make_worker(store, with_history, AnalysisFailed(Failure.MODEL_NOT_FOUND, "as planned")))

    people.retry(ID, OWNER)
    make_worker(store, with_history).process(Delivery(request_id=ID, round=2))

    assert Database(with_history).find(ID) == store.read(ID)
    assert Database(with_history).find(ID).round == 2


def test_a_form_sent_again_when_redis_has_forgotten_that_it_was_never_queued_is_kept(
    fake_redis: redis.Redis, with_history: OperationsSettings
) -> None:
    """It begins at round 1 again, below the rounds in which QStash refused it."""
    store, queue = make_store(fake_redis), FakeQueue()
    people = Submissions(store, queue, CORE, history=DatabaseHistory(with_history, store))
    queue.trouble = QStashRefused("as planned")
    refused = [people.submit(ADA, request_id=ID, owner_token=OWNER) for _ in range(2)]
    fake_redis.flushall()
    queue.trouble = None

    people.submit(ADA, request_id=ID, owner_token=OWNER)
    deliver(make_worker(store, with_history))

    assert refused[-1].round == 2
    assert store.read(ID).status is Status.COMPLETED
    assert Database(with_history).find(ID) == store.read(ID)


def test_what_ends_without_a_delivery_is_written_by_who_ends_it(
    store: Store, with_history: OperationsSettings
) -> None:
    people = make_people(store, with_history)
    people.submit(ADA, request_id=ID, owner_token=OWNER)

    people.cancel(ID, OWNER)

    assert Database(with_history).find(ID) == store.read(ID)


def test_what_has_timed_out_is_written_by_who_reads_it(
    fake_redis: redis.Redis, with_history: OperationsSettings
) -> None:
    store = make_store(fake_redis)
    long_ago = store.now() - timedelta(hours=1)
    store.create(
        AnalysisRecord.new(
            ID, ADA, owner_hash=None, now=long_ago, delay=timedelta(0), deadline=DEADLINE
        )
    )

    record = make_people(store, with_history).look_up(ID)

    assert record.failure is Failure.TIMED_OUT
    assert Database(with_history).find(ID) == record.model_copy(update={"input": None})


def test_a_database_that_is_away_stops_nobody_from_cancelling(
    store: Store, with_history: OperationsSettings, postgres: Postgres
) -> None:
    people = make_people(store, with_history)
    people.submit(ADA, request_id=ID, owner_token=OWNER)

    postgres.stop()
    try:
        cancelled = people.cancel(ID, OWNER)
    finally:
        postgres.start()
    make_people(store, with_history).look_up(ID)  # whoever reads it next writes it

    assert cancelled.status is Status.CANCELLED
    assert Database(with_history).find(ID) == cancelled


def test_a_database_that_was_away_is_not_tried_again_by_each_who_reads(
    store: Store, with_history: OperationsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = DatabaseHistory(with_history, store)
    people = Submissions(store, FakeQueue(), CORE, history=history)
    people.submit(ADA, request_id=ID, owner_token=OWNER)
    tries: list[AnalysisRecord] = []

    def fail(record: AnalysisRecord) -> None:
        tries.append(record)
        raise HistoryUnavailable("as planned")

    monkeypatch.setattr(history.database, "write", fail)
    people.cancel(ID, OWNER)
    for _ in range(3):
        people.look_up(ID)
    tries_at_once = len(tries)
    history._resume_at = 0  # half a minute later
    people.look_up(ID)

    assert (tries_at_once, len(tries)) == (1, 2)


def test_what_ended_without_a_delivery_is_written_once_however_often_it_is_read(
    store: Store, with_history: OperationsSettings
) -> None:
    history = DatabaseHistory(with_history, store)
    people = Submissions(store, FakeQueue(), CORE, history=history)
    people.submit(ADA, request_id=ID, owner_token=OWNER)
    people.cancel(ID, OWNER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connections, "run", used := Mock())
        for _ in range(3):
            people.look_up(ID)

    used.assert_not_called()
    make_people(store, with_history).look_up(ID)
    assert Database(with_history).find(ID).status is Status.CANCELLED


def test_a_database_that_is_away_for_a_while_costs_a_redelivery(
    real_redis: redis.Redis, valkey: str, postgres: Postgres, tmp_path: Path
) -> None:
    """The real service and QStash's stand-in: 503, the redelivery, the row; one call alone."""
    with start_stand_in("qstash_server") as qstash, serve(GOOD) as openai:
        environment = bare_environment(
            tmp_path,
            REDIS_URL=valkey,
            DATABASE_URL=postgres.url,
            ANALYSIS_TTL_SECONDS="60",
            QSTASH_URL=qstash,
            QSTASH_TOKEN=DEVELOPMENT_TOKEN,
            QSTASH_CURRENT_SIGNING_KEY=CURRENT,
            QSTASH_NEXT_SIGNING_KEY=NEXT,
            OPENAI_BASE_URL=f"{openai.url}/v1",
            OPENAI_API_KEY="test",
        )
        service = Server(COMMANDS["service"], environment, tmp_path / "service.txt")
        webhook_url = environment["QSTASH_WEBHOOK_URL"] = f"{service.url}/webhook"
        settings = make_settings(
            qstash_url=qstash, qstash_webhook_url=webhook_url, qstash_delay="0s"
        )
        service.start()
        postgres.stop()
        try:
            Submissions(make_store(real_redis), Queue(settings), settings).submit(
                ADA, request_id=ID
            )
            wait_for(lambda: '"store": "database"' in service.output)
        finally:
            postgres.start()
        database = Database(settings_for(postgres.url))

        def is_written() -> bool:
            with suppress(NotFound):
                return database.find(ID).status is Status.COMPLETED
            return False

        wait_for(is_written)  # an eighth of the 60 s later
        service.stop()

    assert database.find(ID) == make_store(real_redis).read(ID)
    assert len(openai.requests) == service.output.count('"event": "claimed"') == 1


def test_the_local_stack_finds_in_its_history_what_redis_has_lost(stack: Stack) -> None:
    sent = httpx.post(f"{stack.service_url}/analyze", json=ADA.model_dump())
    url = stack.service_url + sent.headers["Location"]
    wait_for(lambda: httpx.get(url).json()["status"] == "completed")
    before = httpx.get(url).json()

    with redis.Redis.from_url(stack.process_of("gunicorn").environ()["REDIS_URL"]) as client:
        client.delete(f"analysis:{{{sent.json()['requestId']}}}")

    wait_for(lambda: httpx.get(url).json() == before)
    assert (stack.output_path.parent / "data" / "history.db").exists()


# ── Off ─────────────────────────────────────────────────────────────────────────────────────


def test_without_a_database_nothing_of_it_is_imported(tmp_path: Path) -> None:
    values = {
        "REDIS_URL": "redis://127.0.0.1:1",
        "QSTASH_TOKEN": "token",
        "QSTASH_WEBHOOK_URL": "https://service.example/webhook",
        "QSTASH_CURRENT_SIGNING_KEY": "sig_current_of_this_test",
        "QSTASH_NEXT_SIGNING_KEY": "sig_next_of_this_test",
        "OPENAI_API_KEY": "key",
    }
    program = (
        "import sys, webhook_service; webhook_service.create_app();"
        "sys.exit('sqlalchemy' in sys.modules or 'psycopg' in sys.modules)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=bare_environment(tmp_path, **values),
        check=False,
    )

    assert ended.returncode == 0


def test_without_a_database_people_do_as_before(store: Store) -> None:
    history = connect_history(make_options(), store)
    people = Submissions(store, FakeQueue(), CORE, history=history)

    assert isinstance(history, NoHistory)
    assert people.submit(ADA, request_id=ID).status is Status.PENDING
