"""Changes of the schema: forward, once, and never past what a program knows."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
import sqlalchemy as sql
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from common.ports import HistoryUnavailable
from common.record import AnalysisRecord
from operations.history import connections, indexes, migrations, schema
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.fakes import (
    ID,
    OTHER_ID,
)
from tests.operations.history.histories import (
    completed,
    settings_for,
)
from tests.postgres import Postgres
from tests.processes import wait_for


@pytest.mark.parametrize("version", ["0000", "9999"])
def test_a_schema_of_another_version_is_told_and_left_alone(
    with_history: OperationsSettings, rows: psycopg.Connection, version: int
) -> None:
    Database(with_history).write(completed())
    rows.execute("UPDATE history_version SET version_num = %s", [version])

    with pytest.raises(HistoryUnavailable, match=f"has version {version} of the schema"):
        Database(with_history).write(completed(2))

    assert rows.execute("SELECT round FROM analyses").fetchall() == [(1,)]


OLD_SCHEMA = [
    "CREATE TABLE schema_version (version INTEGER NOT NULL, PRIMARY KEY (version))",
    "INSERT INTO schema_version VALUES (1)",
    """CREATE TABLE analyses (
        request_id VARCHAR(32) NOT NULL,
        round INTEGER NOT NULL,
        status VARCHAR(16) NOT NULL,
        code VARCHAR(40),
        created_at {time} NOT NULL,
        finished_at {time} NOT NULL,
        record TEXT,
        PRIMARY KEY (request_id)
    )""",
    "CREATE INDEX ix_analyses_code ON analyses (code)",
    "CREATE INDEX ix_analyses_finished_at ON analyses (finished_at)",
]


def make_old(url: str, *kept: AnalysisRecord) -> None:
    """Make a database as it was before there were migrations, with these analyses."""
    time = "DATETIME" if url.startswith("sqlite") else "TIMESTAMP WITH TIME ZONE"
    engine = sql.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        for statement in OLD_SCHEMA:
            connection.execute(sql.text(statement.format(time=time)))
        connection.execute(
            sql.insert(schema.analyses),
            [
                {
                    "request_id": record.request_id,
                    "round": record.round,
                    "status": record.status.value,
                    "created_at": record.created_at,
                    "finished_at": record.finished_at,
                    "record": record.model_dump_json(by_alias=True),
                }
                for record in kept
            ],
        )
    engine.dispose()


def test_a_database_of_the_version_before_is_taken_forward_without_loss(any_url: str) -> None:
    make_old(any_url, completed(), completed(2, request_id=OTHER_ID))

    database = Database(settings_for(any_url))

    assert (database.find(ID), database.find(OTHER_ID).round) == (completed(), 2)
    database.write(completed(3))
    assert database.find(ID) == completed(3)


@pytest.mark.parametrize("is_old", [True, False], ids=["old", "empty"])
def test_the_migrations_make_the_tables_that_the_program_uses(any_url: str, is_old: bool) -> None:
    if is_old:
        make_old(any_url, completed())
    database = Database(settings_for(any_url))

    def differences(connection: sql.Connection) -> list[object]:
        options = {"version_table": migrations.VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, schema.metadata))

    assert database.connections.run(differences) == []


def test_a_migration_that_fails_leaves_all_as_it_was(
    with_history: OperationsSettings, postgres: Postgres, rows: psycopg.Connection
) -> None:
    """The next use tries again."""
    make_old(postgres.url, completed())
    rows.execute("CREATE VIEW in_the_way AS SELECT version FROM schema_version")
    with pytest.raises(HistoryUnavailable):
        Database(with_history).find(ID)
    tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'history_version'"
    assert rows.execute(tables).fetchone() == (0,)

    rows.execute("DROP VIEW in_the_way")

    assert Database(with_history).find(ID) == completed()


def test_a_change_of_the_schema_is_logged(
    with_history: OperationsSettings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    for _ in range(2):
        Database(with_history).ping()

    assert caplog.text.count('"event": "schema changed"') == 2  # of each version, once


def test_only_one_process_at_a_time_changes_the_schema(
    with_history: OperationsSettings, postgres: Postgres, rows: psycopg.Connection
) -> None:
    with psycopg.connect(postgres.url) as other, pytest.MonkeyPatch.context() as patch:
        other.execute("SELECT pg_advisory_xact_lock(7318)")
        patch.setattr(connections, "UPGRADE_SECONDS", 0.5)
        with pytest.raises(HistoryUnavailable, match="it does not answer in time"):
            Database(with_history).ping()
        assert rows.execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchone() == (0,)

    Database(with_history).ping()


def indexes_of(rows: psycopg.Connection) -> dict[str, bool]:
    """The names of the table's indexes, and whether they are valid."""
    query = (
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index "
        "WHERE indrelid = 'analyses'::regclass AND NOT indisprimary"
    )
    return dict(rows.execute(query).fetchall())


NEWEST = {
    "ix_analyses_finished_at": True,
    "ix_analyses_status_finished_at": True,
    "ix_analyses_code_finished_at": True,
}


@pytest.fixture
def large(postgres: Postgres, rows: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database of the version before, with a table that takes long to be indexed."""
    monkeypatch.setattr(indexes, "MANY", 1)
    make_old(postgres.url, completed(), completed(request_id=OTHER_ID))


@pytest.mark.usefixtures("large")
def test_nobody_who_writes_waits_until_a_large_table_is_indexed(
    with_history: OperationsSettings, rows: psycopg.Connection, postgres: Postgres
) -> None:
    """Neither who uses the new version first, nor anybody while the operator has it done."""
    database = Database(with_history)
    database.write(completed(2))
    assert indexes_of(rows) == {"ix_analyses_code": True, "ix_analyses_finished_at": True}

    with psycopg.connect(postgres.url) as slow, ThreadPoolExecutor(1) as operator:
        slow.execute("UPDATE analyses SET round = 3 WHERE request_id = %s", [OTHER_ID])
        done = operator.submit(database.reports.build_indexes, lambda _: None)
        wait_for(lambda: rows.execute("SELECT 1 FROM pg_stat_progress_create_index").fetchone())
        database.write(completed(4))
        slow.commit()
        done.result(timeout=30)

    assert database.find(ID).round == 4
    assert indexes_of(rows) == NEWEST


def test_a_table_that_is_quickly_indexed_is_by_whoever_comes_first(
    with_history: OperationsSettings, postgres: Postgres, rows: psycopg.Connection
) -> None:
    """Though its version is the newest: a program of the version before can still start."""
    make_old(postgres.url, completed())
    Database(with_history).ping()
    rows.execute("DROP INDEX ix_analyses_code_finished_at, ix_analyses_status_finished_at")

    Database(with_history).ping()

    assert indexes_of(rows) == NEWEST
    assert rows.execute("SELECT version_num FROM history_version").fetchall() == [("0002",)]


def test_the_operator_has_a_large_table_indexed(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "MANY", 1)
    make_old(any_url, completed(), completed(request_id=OTHER_ID))
    database, told = Database(settings_for(any_url)), list[str]()
    assert len(database.connections.run(indexes.missing)) == 2

    for _ in range(2):
        database.reports.build_indexes(told.append)

    assert len(told) == 2
    assert database.reports.remarks() == []


@pytest.mark.usefixtures("large")
def test_an_index_whose_building_was_stopped_is_built_anew(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    reports = Database(with_history).reports
    reports.counts()
    rows.execute("CREATE INDEX ix_analyses_code_finished_at ON analyses (code, finished_at)")
    rows.execute(
        "UPDATE pg_index SET indisvalid = false "
        "WHERE indexrelid = 'ix_analyses_code_finished_at'::regclass"
    )

    reports.build_indexes(lambda _: None)

    assert indexes_of(rows) == NEWEST
