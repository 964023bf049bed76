"""The durable history for people: never lost, never doubled, never other than Redis."""

from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
import redis

from common.connection import StoreUnavailable
from common.failures import Failure
from common.ports import NoHistory
from common.qstash import QStashRefused
from common.record import AnalysisRecord
from common.states import Status
from common.store import NotFound, Store
from common.submission import NotOwner, Submissions
from operations.history import connect_history
from operations.history.archive import DatabaseHistory
from operations.history.connections import Connections
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.conftest import NEIGHBOURS, make_options, make_store
from tests.fakes import (
    ADA,
    BOB,
    DEADLINE,
    ID,
    FakeQueue,
)
from tests.operations.history.histories import (
    CORE,
    OWNER,
    QUOTA,
    deliver,
    make_people,
    make_worker,
)
from tests.postgres import Postgres
from tests.processes import ROOT, Stack, bare_environment, wait_for
from tests.zygote import Zygote
from webhook_service.answer import AnalysisFailed
from webhook_service.worker import Delivery


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


def test_what_was_written_first_and_changed_is_kept_nowhere(
    store: Store, with_history: OperationsSettings
) -> None:
    keeping = with_history.model_copy(update={"keep_input": True})
    people = make_people(store, keeping)
    people.submit(ADA, request_id=ID, owner_token=OWNER)

    people.edit(ID, OWNER, BOB)
    with pytest.raises(NotFound):
        Database(keeping).find(ID)
    deliver(make_worker(store, keeping, QUOTA))

    kept = Database(keeping).find(ID)
    assert (kept.status, kept.input) == (Status.FAILED, BOB)
    assert ADA.description not in kept.model_dump_json()


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

    assert cancelled.status is Status.CANCELLED
    assert people.look_up(ID) == cancelled


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


def test_the_local_stack_finds_in_its_history_what_redis_has_lost(stack: Stack) -> None:
    sent = httpx.post(f"{stack.service_url}/analyze", json=ADA.model_dump())
    url = stack.service_url + sent.headers["Location"]
    wait_for(lambda: httpx.get(url).json()["status"] == "completed")
    before = httpx.get(url).json()

    with redis.Redis.from_url(stack.process_of("gunicorn").environ()["REDIS_URL"]) as client:
        client.delete(f"analysis:{{{sent.json()['requestId']}}}")

    wait_for(lambda: httpx.get(url).json() == before)
    assert (stack.output_path.parent / "data" / "history.db").exists()


def test_without_a_database_nothing_of_it_is_imported(tmp_path: Path, zygote: Zygote) -> None:
    program = (
        "import sys, webhook_service; webhook_service.create_app();"
        "sys.exit('sqlalchemy' in sys.modules or 'psycopg' in sys.modules)"
    )

    ended = zygote.run(["-c", program], ROOT, bare_environment(tmp_path, **NEIGHBOURS))

    assert ended.returncode == 0, ended.stderr


def test_without_a_database_people_do_as_before(store: Store) -> None:
    history = connect_history(make_options(), store)
    people = Submissions(store, FakeQueue(), CORE, history=history)

    assert isinstance(history, NoHistory)
    assert people.submit(ADA, request_id=ID).status is Status.PENDING


def test_a_key_that_comes_again_makes_an_analysis_that_is_kept(
    store: Store, with_history: OperationsSettings, fake_redis: redis.Redis
) -> None:
    """An Idempotency-Key leads to the same request id: after Redis's time, and after a deletion."""
    people = make_people(store, with_history)
    people.submit(ADA, request_id=ID, owner_token=OWNER)
    deliver(make_worker(store, with_history, QUOTA))
    people.retry(ID, OWNER)
    make_worker(store, with_history).process(Delivery(request_id=ID, round=2))
    fake_redis.flushall()

    again = people.submit(ADA, request_id=ID, owner_token=OWNER)
    deliver(make_worker(store, with_history))
    kept = Database(with_history).find(ID)
    people.delete(ID, OWNER)
    people.submit(ADA, request_id=ID, owner_token=OWNER)
    deliver(make_worker(store, with_history))

    assert (kept.round, kept.created_at) == (1, again.created_at)
    assert Database(with_history).find(ID) == store.read(ID) != kept
