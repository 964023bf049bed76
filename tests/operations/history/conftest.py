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


@pytest.fixture
def away(with_history: OperationsSettings) -> OperationsSettings:
    """The history while its database is away: nobody listens there."""
    return with_history.model_copy(
        update={"database_url": settings_for("postgresql://x@127.0.0.1:1/x").database_url}
    )
