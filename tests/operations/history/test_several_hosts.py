"""Several hosts in DATABASE_URL: one that is down, silent or a replica is passed over."""

import socket
import time

import pytest

from common.ports import HistoryUnavailable
from operations.history.database import Database
from tests.fakes import ID
from tests.operations.history.histories import completed, settings_for
from tests.postgres import Postgres, start_standby


def database_at(*ports: int, parameters: str = "") -> Database:
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return Database(settings_for(f"postgresql://tester@{hosts}/postgres{parameters}"))


def test_a_first_host_that_is_down_is_passed_over(postgres: Postgres) -> None:
    database_at(1, postgres.port).write(completed())

    assert Database(settings_for(postgres.url)).find(ID) == completed()


def test_a_first_host_that_says_nothing_costs_its_part_of_the_time(postgres: Postgres) -> None:
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database_at(silent.getsockname()[1], postgres.port).write(completed())

    assert time.monotonic() - began < 4.5
    assert Database(settings_for(postgres.url)).find(ID) == completed()


def test_a_replica_is_passed_over_and_told_where_there_is_nothing_else(postgres: Postgres) -> None:
    Database(settings_for(postgres.url)).ping()

    with start_standby(postgres) as replica:
        database_at(replica.port, postgres.port).write(completed())
        with pytest.raises(HistoryUnavailable, match="it is read-only"):
            database_at(replica.port, 1).ping()
        with pytest.raises(HistoryUnavailable, match="ReadOnlySqlTransaction: it is read-only"):
            database_at(replica.port).ping()

    assert Database(settings_for(postgres.url)).find(ID) == completed()
