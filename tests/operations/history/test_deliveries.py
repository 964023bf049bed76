"""Deliveries on a real PostgreSQL: answered 200 only when the history has what they settled."""

from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import psycopg
import pytest
import redis

from common.events import StoreFailed
from common.failures import Failure
from common.qstash import Queue
from common.settings import DEVELOPMENT_TOKEN
from common.states import Status
from common.store import NotFound, Store
from common.submission import Submissions
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.conftest import make_settings, make_store
from tests.fakes import (
    ADA,
    ID,
    FakeAnalyst,
    FakeQueue,
    pending,
)
from tests.http_server import serve
from tests.operations.history.histories import (
    CORE,
    HOUR,
    LATER,
    OWNER,
    QUOTA,
    deliver,
    make_people,
    make_worker,
    settings_for,
)
from tests.postgres import Postgres
from tests.processes import bare_environment, wait_for
from tests.product import COMMANDS, GOOD, Server
from tests.tokens import CURRENT, NEXT
from tests.zygote import Zygote
from webhook_service import create_app
from webhook_service.answer import AnalysisFailed
from webhook_service.worker import Delivery, Outcome, OutcomeKind


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


def test_a_process_of_the_service_has_one_archive(
    monkeypatch: pytest.MonkeyPatch, store: Store, with_history: OperationsSettings
) -> None:
    """Its few connections are those of the process: deliveries and people share them."""
    monkeypatch.setattr(Database, "__init__", made := Mock(return_value=None))

    create_app(CORE, with_history, store=store, queue=FakeQueue(), analyst=FakeAnalyst())

    made.assert_called_once()


def test_a_database_that_is_away_for_a_while_costs_a_redelivery(
    real_redis: redis.Redis, valkey: str, postgres: Postgres, tmp_path: Path, zygote: Zygote
) -> None:
    """The real service and QStash's stand-in: 503, the redelivery, the row; one call alone."""
    with serve(GOOD) as openai:
        environment = bare_environment(
            tmp_path,
            REDIS_URL=valkey,
            DATABASE_URL=postgres.url,
            ANALYSIS_TTL_SECONDS="60",
            QSTASH_TOKEN=DEVELOPMENT_TOKEN,
            QSTASH_CURRENT_SIGNING_KEY=CURRENT,
            QSTASH_NEXT_SIGNING_KEY=NEXT,
            OPENAI_BASE_URL=f"{openai.url}/v1",
            OPENAI_API_KEY="test",
        )
        qstash, service = (
            Server(COMMANDS[name], environment, tmp_path / f"{name}.txt", zygote=zygote)
            for name in ("qstash", "service")
        )
        environment["QSTASH_URL"] = qstash.url
        webhook_url = environment["QSTASH_WEBHOOK_URL"] = f"{service.url}/webhook"
        settings = make_settings(
            qstash_url=qstash.url, qstash_webhook_url=webhook_url, qstash_delay="0s"
        )
        qstash.start()
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
        for server in (service, qstash):
            server.stop()

    assert database.find(ID) == make_store(real_redis).read(ID)
    assert len(openai.requests) == service.output.count('"event": "claimed"') == 1


def test_a_failure_of_the_history_is_told_once(
    store: Store, with_history: OperationsSettings, fake_redis: redis.Redis
) -> None:
    """Also where the delivery itself finds that time is up, which others would write at once."""
    away = settings_for("postgresql://tester@127.0.0.1:1/postgres")
    told: list[StoreFailed] = []
    store.events.subscribe(lambda event: told.append(event) if type(event) is StoreFailed else None)
    long_ago = store.now() - HOUR
    record = pending(long_ago, timedelta(0))
    store.create(record)

    outcome = deliver(make_worker(store, away))

    assert outcome == Outcome(OutcomeKind.RETRY, LATER)
    assert [(event.store, event.request_id) for event in told] == [("database", ID)]
    assert store.read(ID).failure is Failure.TIMED_OUT
