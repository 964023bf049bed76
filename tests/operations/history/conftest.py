"""Databases for the tests of the history."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from operations.settings import OperationsSettings
from tests.operations.history.histories import (
    settings_for,
)
from tests.postgres import Postgres


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
