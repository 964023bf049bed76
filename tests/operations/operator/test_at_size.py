"""The operator's commands where there is much: what they hold, and say of what is missing.

Scaled down: pages and batches are small here, and what would be millions of rows is a few.
"""

import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta

import psycopg
import pytest
import redis

from common.ports import HistoryUnavailable
from common.record import AnalysisRecord
from common.store import Store, record_key, utc_now
from common.submission import new_request_id
from operations.cli_context import CliContext, Wanted
from operations.history import connections
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.fakes import ID, OTHER_ID
from tests.http_server import answer, serve
from tests.operations.operator.conftest import Put, Run
from tests.postgres import Postgres
from tests.product import in_state

HOUR = timedelta(hours=1)
QUOTA = ("redrive", "--dry-run", "--code", "quota_exceeded")


@pytest.fixture
def rows(
    with_history: OperationsSettings, postgres: Postgres
) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The database, with its tables."""
    Database(with_history).ping()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        yield connection


Rows = psycopg.Connection[tuple[object, ...]]


def failed_ago(store: Store, hours: float, request_id: str) -> AnalysisRecord:
    return in_state("failed for us to fix", request_id, None, store.now() - hours * HOUR)


@pytest.fixture
def ids(store: Store, with_history: OperationsSettings) -> list[str]:
    """Seven that failed, from the oldest to the newest: in Redis, the history, or both."""
    ids = [f"{number:032x}" for number in range(7, 0, -1)]
    for number, request_id in enumerate(ids):
        record = failed_ago(store, 8 - number, request_id)
        if number % 3 != 1:
            Database(with_history).write(record)
        if number % 3 != 2:
            store.create(record)
    return ids


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operations.history.reports.PAGE", 2)
    monkeypatch.setattr("operations.cli_context.LOOKED_UP_AT_ONCE", 2)


def listed(text: str) -> list[str]:
    return [line.split()[2 if "Z " in line else 0] for line in text.splitlines()]


@pytest.mark.usefixtures("small_pages")
def test_both_stores_are_told_in_one_order_and_each_analysis_once(run: Run, ids: list[str]) -> None:
    everything, first = run("failed"), run("failed", "--limit", "3")

    assert listed(everything.stdout) == ids
    assert listed(first.stdout) == ids[:3]
    assert (everything.exit_code, first.exit_code) == (0, 0)


@pytest.mark.usefixtures("small_pages")
def test_redis_decides_what_became_of_those_in_the_history(
    run: Run, ids: list[str], store: Store
) -> None:
    store.delete(ids[0])
    store.create(in_state("waiting", ids[0], None, store.now()))  # it runs again

    assert listed(run("failed").stdout) == ids[1:]


def test_a_redrive_means_those_of_a_time_and_no_more_than_so_many(run: Run, ids: list[str]) -> None:
    assert listed(run(*QUOTA).stdout) == ids
    assert listed(run(*QUOTA, "--newer-than", "150m").stdout) == ids[6:]
    assert listed(run(*QUOTA, "--older-than", "390m").stdout) == ids[:2]
    assert listed(run(*QUOTA, "--older-than", "150m", "--limit", "2").stdout) == ids[:2]


@pytest.mark.parametrize("option", [["--newer-than", "1h"], ["--limit", "1"]])
def test_a_redrive_of_ids_takes_no_times(run: Run, option: list[str]) -> None:
    ended = run("redrive", ID, *option)

    assert ended.exit_code == 2
    assert "go with a --code" in ended.stderr


def test_none_in_that_time_is_told_of_that_time_alone(run: Run, ids: list[str]) -> None:
    ended = run(*QUOTA, "--newer-than", "1m")

    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == ("None that is kept has failed with quota_exceeded in that time.\n")


@pytest.fixture
def fail_at(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Have the database fail as soon as it comes to a row."""
    monkeypatch.setattr("operations.history.indexes.MANY", 0)  # a view has none

    def fail_at(request_id: str) -> None:
        rows.execute("ALTER TABLE analyses RENAME TO kept")
        rows.execute(
            "CREATE VIEW analyses AS "
            "SELECT request_id, status, code, created_at, finished_at, record, "
            f"round / CASE request_id WHEN '{request_id}' THEN 0 ELSE 1 END AS round FROM kept"
        )

    return fail_at


@pytest.mark.usefixtures("small_pages")
def test_a_history_that_goes_away_half_way_is_told_and_the_rest_goes_on(
    run: Run, ids: list[str], fail_at: Callable[[str], object]
) -> None:
    fail_at(ids[5])  # in the history alone, on its third page

    ended, again = run("failed"), run(*QUOTA)

    for each in (ended, again):
        assert set(ids) - set(listed(each.stdout)) == {ids[5]}
        assert each.exit_code == 1
        assert "The history does not answer: database: " in each.stderr


def test_nothing_is_called_none_when_the_history_went_away(
    run: Run, put: Put, fail_at: Callable[[str], object]
) -> None:
    put("failed for us to fix", archived=True)
    fail_at(ID)

    ended = run(*QUOTA)

    assert (ended.exit_code, ended.stdout) == (1, "")
    assert "The history does not answer: database: DivisionByZero" in ended.stderr
    assert "None" not in ended.stderr


def test_what_is_not_known_is_no_number(
    run: Run, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("failed")
    monkeypatch.setenv("DATABASE_URL", "postgresql://tester@127.0.0.1:1/postgres")
    monkeypatch.setenv("QSTASH_URL", "http://127.0.0.1:1")

    ended = run("stats")

    assert "history      unknown\n" in ended.stdout
    assert "dead letters unknown\n" in ended.stdout
    assert ended.exit_code == 1


def test_a_qstash_that_falls_silent_half_way_is_no_number(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = {"messageId": "m", "url": "u", "method": "POST", "maxRetries": 3, "notBefore": 0}
    letter |= {"createdAt": 0, "dlqId": "d", "responseStatus": 489, "label": ID}
    pages = [answer(200, {"messages": [letter], "cursor": "2"}), answer(500, {"error": "no"})]
    with serve(*pages) as server:
        monkeypatch.setenv("QSTASH_URL", server.url)
        ended = run("stats")

    assert "dead letters unknown\n" in ended.stdout
    assert ended.exit_code == 1


def test_an_operator_waits_longer_for_a_busy_database_than_a_delivery(
    rows: Rows, with_history: OperationsSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(with_history)
    database.write(in_state("done", ID, None, utc_now()))
    rows.execute("ALTER TABLE analyses RENAME TO kept")
    rows.execute("CREATE VIEW analyses AS SELECT kept.* FROM kept, pg_sleep(0.3)")
    monkeypatch.setattr(connections, "BEGIN", "BEGIN; SET LOCAL statement_timeout = 100")

    with pytest.raises(HistoryUnavailable, match="it takes too long"):
        database.find(ID)
    assert [count.number for count in database.reports.counts()] == [1]


def put_large(real_redis: redis.Redis, store: Store, number: int) -> int:
    """Put so many into Redis that failed, with much text; return how much there is in all."""
    size = 0
    for _ in range(number):
        record = failed_ago(store, 0.1, new_request_id())
        text = record.model_dump_json(by_alias=True) + " " * 10_000
        real_redis.set(record_key(record.request_id), text)
        size += len(text)
    return size


def test_records_are_read_without_holding_them(
    settings: object, store: Store, real_redis: redis.Redis
) -> None:
    size = put_large(real_redis, store, 1000)
    context, now = CliContext(), store.now()
    next(context.failed(Wanted(None, now - HOUR, now)))  # what is imported and opened once

    tracemalloc.start()
    number = sum(1 for _ in context.failed(Wanted(None, now - HOUR, now)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert number == 1000
    assert peak < size / 1.5


def test_a_save_that_is_cut_off_says_so_and_goes_on_when_it_is_run_again(
    run: Run, put: Put, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.cli_history.SAVED_AT_ONCE", 2)
    for _ in range(5):
        put("done", new_request_id())
    rows.execute(
        "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN "
        "IF (SELECT count(*) FROM analyses) >= 2 THEN RAISE EXCEPTION 'full'; END IF; RETURN NEW; "
        "END $$ LANGUAGE plpgsql"
    )
    rows.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON analyses FOR EACH STATEMENT "
        "EXECUTE FUNCTION refuse()"
    )

    cut_off = run("save")
    rows.execute("DROP TRIGGER refuse ON analyses")
    again = run("save")

    assert cut_off.stdout == "2 were saved, and not the rest: run it again.\n"
    assert cut_off.exit_code == 1
    assert "Error: database: " in cut_off.stderr
    assert (again.exit_code, again.stdout) == (0, "5 are in the history.\n")
    assert rows.execute("SELECT count(*) FROM analyses").fetchone() == (5,)


def test_a_purge_goes_on_until_nothing_is_too_old(
    run: Run, put: Put, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.history.reports.PURGED", 2)
    for _ in range(5):
        put("done", new_request_id(), archived=True)
    put("done", OTHER_ID, archived=True)
    rows.execute(
        "UPDATE analyses SET finished_at = finished_at - interval '31 d' WHERE request_id <> %s",
        [OTHER_ID],
    )
    rows.execute(
        "INSERT INTO analyses VALUES ('old', 0, 'deleted', NULL, now(), now() - interval '99 d', "
        "NULL)"
    )

    assert run("purge").stdout == "6 were removed.\n"
    assert rows.execute("SELECT request_id FROM analyses").fetchall() == [(OTHER_ID,)]


def test_a_purge_that_lags_is_told(run: Run, put: Put, rows: Rows) -> None:
    put("done", archived=True)
    in_time = run("stats")
    rows.execute("UPDATE analyses SET finished_at = finished_at - interval '33 days'")

    lagging = run("stats")

    assert in_time.stderr == ""
    assert "its oldest rows should have gone 3 days ago: have `python -m operations purge`" in (
        lagging.stderr
    )


def test_a_large_table_is_indexed_by_the_operator(
    run: Run, put: Put, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("operations.history.indexes.MANY", 0)
    put("failed", archived=True)
    rows.execute("DROP INDEX ix_analyses_code_finished_at")

    before, indexed, after = run("stats"), run("upgrade"), run("stats")

    assert "an index is missing: run `python -m operations upgrade`" in before.stderr
    assert "building ix_analyses_code_finished_at …" in indexed.stderr
    assert (indexed.exit_code, indexed.stdout) == (0, "The history is up to date.\n")
    assert after.stderr == ""
    assert run("upgrade").stderr == ""


def test_nobody_is_called_unknown_while_qstash_is_silent(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QSTASH_URL", "http://127.0.0.1:1")

    ended = run("show", ID)

    assert (ended.exit_code, ended.stdout) == (1, "history: not in it\n")
    assert "there is no such analysis" not in ended.stderr
