"""Many who write at once, through one connection: each is told the truth about its own row."""

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from common.ports import HistoryUnavailable
from common.record import AnalysisRecord
from common.submission import new_request_id
from operations.history.connections import MAX_CONNECTIONS
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.fakes import ID, OTHER_ID
from tests.operations.history.histories import completed, settings_for
from tests.postgres import Postgres
from tests.processes import ROOT, bare_environment
from tests.zygote import Zygote

OF_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL"
WRITTEN = "SELECT request_id FROM analyses"


def at_once(write: Callable[[AnalysisRecord], None], ids: Iterable[str]) -> dict[str, float | None]:
    """Write a record of each id, all in one moment; after how many seconds each was refused."""
    records = [completed(request_id=each) for each in ids]
    start = threading.Barrier(len(records))

    def try_it(record: AnalysisRecord) -> float | None:
        start.wait()
        began = time.monotonic()
        try:
            write(record)
        except HistoryUnavailable:
            return time.monotonic() - began
        return None

    with ThreadPoolExecutor(len(records)) as threads:
        refused = list(threads.map(try_it, records))
    return {record.request_id: each for record, each in zip(records, refused, strict=True)}


def ids(number: int) -> list[str]:
    return [new_request_id() for _ in range(number)]


def test_two_hundred_at_once_are_all_written_through_few_connections(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    """From the first moment on: before the tables are there."""
    database = Database(with_history)
    before = rows.execute(OF_OTHERS).fetchone()
    assert before

    refused = at_once(database.write, ids(200))

    opened = rows.execute(OF_OTHERS).fetchone()
    assert opened
    assert set(refused.values()) == {None}
    assert {each for (each,) in rows.execute(WRITTEN)} == refused.keys()
    assert opened[0] - before[0] <= MAX_CONNECTIONS


def test_a_row_that_the_database_refuses_fails_nobody_else(
    with_history: OperationsSettings, rows: psycopg.Connection
) -> None:
    database = Database(with_history)
    database.ping()
    rows.execute(f"ALTER TABLE analyses ADD CHECK (request_id <> '{ID}')")

    refused = at_once(database.write, [*ids(30), ID, *ids(30)])

    assert [each for each, after in refused.items() if after is not None] == [ID]
    assert {each for (each,) in rows.execute(WRITTEN)} == refused.keys() - {ID}


def test_a_database_that_goes_away_amid_writes_refuses_all_that_it_does_not_have(
    with_history: OperationsSettings, postgres: Postgres
) -> None:
    database = Database(with_history)
    database.ping()
    halfway = threading.Semaphore(0)

    def write(record: AnalysisRecord) -> None:
        for number in range(1, 1000):
            database.write(
                record.model_copy(update={"request_id": f"{number:03x}{record.request_id[3:]}"})
            )
            told.add(f"{number:03x}{record.request_id[3:]}")
            halfway.release()

    told: set[str] = set()
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(at_once, write, ids(20))
        for _ in range(100):
            halfway.acquire()
        postgres.stop()
        refused = writing.result()
    postgres.start()

    with psycopg.connect(postgres.url) as connection:
        there = {each for (each,) in connection.execute(WRITTEN)}
    assert all(after is not None and after < 7 for after in refused.values())
    assert len(told) >= 100
    assert told <= there


def test_the_same_one_twice_at_once_is_there_as_it_was_last(any_url: str) -> None:
    database = Database(settings_for(any_url))

    database.write_many([completed(2), completed(request_id=OTHER_ID), completed(1), completed(3)])

    assert database.find(ID) == completed(3)
    assert database.find(OTHER_ID) == completed(request_id=OTHER_ID)


def test_a_process_that_was_forked_writes_by_itself(
    any_url: str, tmp_path: Path, zygote: Zygote
) -> None:
    program = """
import os, sys
from common.record import AnalysisRecord
from operations.history.database import Database
from operations.settings import OperationsSettings

database = Database(OperationsSettings(database_url=sys.argv[1]))
record = AnalysisRecord.model_validate_json(sys.argv[2])
database.write(record)
child = os.fork()
database.write(record.model_copy(update={"request_id": ("1" if child else "2") * 32}))
sys.exit(os.waitpid(child, 0)[1] if child else 0)
"""
    record = completed().model_dump_json(by_alias=True)

    command = ["-c", program, any_url, record]
    ended = zygote.run(command, ROOT, bare_environment(tmp_path))

    assert ended.returncode == 0, ended.stderr
    database = Database(settings_for(any_url))
    assert [database.find(each).round for each in (ID, "1" * 32, "2" * 32)] == [1, 1, 1]
