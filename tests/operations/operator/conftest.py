"""The operator's commands, on a real Valkey and a real PostgreSQL, with QStash's stand-in."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis
from click.testing import CliRunner, Result

from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.store import Store
from operations.cli import commands
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.conftest import make_options, make_settings, make_store
from tests.fakes import ID
from tests.postgres import Postgres
from tests.processes import start_stand_in
from tests.product import in_state

Run = Callable[..., Result]
Put = Callable[..., AnalysisRecord]


@pytest.fixture(scope="module")
def qstash() -> Iterator[str]:
    with start_stand_in("qstash_server") as url:
        yield url


@pytest.fixture
def store(real_redis: redis.Redis) -> Store:
    return make_store(real_redis)


@pytest.fixture
def with_history(postgres: Postgres) -> OperationsSettings:
    """An empty history, which keeps inputs."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    with_history: OperationsSettings = make_options(database_url=postgres.url, keep_input=True)
    return with_history


@pytest.fixture
def settings(
    monkeypatch: pytest.MonkeyPatch,
    valkey: str,
    qstash: str,
    store: Store,
    with_history: OperationsSettings,
) -> ServiceSettings:
    """The commands find these in the environment."""
    settings = make_settings(
        redis_url=valkey,
        qstash_url=qstash,
        qstash_webhook_url="http://127.0.0.1:1/webhook",
        qstash_delay="1h",
    )
    for part in (settings, with_history):
        for name in part.model_fields_set:
            value = getattr(part, name)
            plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
            monkeypatch.setenv(name.upper(), str(plain))
    monkeypatch.setenv("QSTASH_DELAY", "1h")
    return settings


@pytest.fixture
def run(settings: ServiceSettings) -> Run:
    return lambda *arguments: CliRunner().invoke(commands, arguments)


@pytest.fixture
def put(store: Store, with_history: OperationsSettings) -> Put:
    """Put an analysis in some state into Redis, or into the history."""

    def put(state: str, request_id: str = ID, *, archived: bool = False) -> AnalysisRecord:
        record = in_state(state, request_id, None, store.now())
        if archived:
            Database(with_history).write(record)
        else:
            store.create(record)
        return record

    return put
