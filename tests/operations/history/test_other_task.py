"""What the history keeps of a task that has changed since."""

from hashlib import sha256

import pytest
import redis

from common.failures import Failure
from common.record import AnalysisRecord
from common.states import Status
from common.store import Store, parse_record, record_key
from common.submission import NotOwner, OfOtherTask
from operations.history.archive import DatabaseHistory
from operations.history.database import Database
from tests.fakes import ADA, ID, pending
from tests.operations.history.histories import (
    CORE,
    NOW,
    OWNER,
    completed,
    deliver,
    failed,
    make_people,
    make_worker,
    settings_for,
)
from tests.states import of_other_task
from webhook_service.worker import OutcomeKind


def archived(database: Database, record: AnalysisRecord) -> AnalysisRecord:
    """Keep it as a version with another task has."""
    owner_hash = sha256(OWNER.encode()).hexdigest()
    other = parse_record(of_other_task(record.model_copy(update={"owner_hash": owner_hash})))
    database.write(other)
    return other


def test_it_is_kept_as_it_is(any_url: str) -> None:
    database = Database(settings_for(any_url, keep_input=True))

    for record in (completed(), failed(round=2)):
        assert archived(database, record) == database.find(ID)
        assert database.find(ID).is_of_other_task


def test_a_result_can_not_be_shown_and_its_owner_can_delete_it(store: Store, any_url: str) -> None:
    settings = settings_for(any_url)
    archived(Database(settings), completed())
    people = make_people(store, settings)

    with pytest.raises(OfOtherTask):
        people.look_up(ID)
    with pytest.raises(NotOwner):
        people.delete(ID, "another")
    people.delete(ID, OWNER)
    assert Database(settings).reports.counts() == []


@pytest.mark.parametrize("keep_input", [True, False], ids=["input kept", "input not kept"])
def test_why_one_failed_can_be_shown_without_its_input(
    store: Store, any_url: str, keep_input: bool
) -> None:
    settings = settings_for(any_url, keep_input=keep_input)
    archived(Database(settings), failed(failure=Failure.TASK_CHANGED))

    found = make_people(store, settings).look_up(ID)

    assert (found.failure, found.input) == (Failure.TASK_CHANGED, None)


def test_one_that_a_delivery_ends_is_written_before_it_is_answered(
    store: Store, fake_redis: redis.Redis, any_url: str
) -> None:
    settings = settings_for(any_url, keep_input=True)
    text = of_other_task(pending(store.now(), CORE.qstash_delay))
    fake_redis.set(record_key(ID), text, ex=3600)

    outcome = deliver(make_worker(store, settings))

    written = Database(settings).find(ID)
    assert outcome.kind is OutcomeKind.SETTLED
    assert (written.status, written.failure) == (Status.FAILED, Failure.TASK_CHANGED)
    assert written == store.read(ID)
    assert written.input == parse_record(text).input


def test_what_timed_out_is_written_by_who_reads_it(
    store: Store, fake_redis: redis.Redis, any_url: str
) -> None:
    settings = settings_for(any_url)
    long_ago = pending(NOW.replace(year=2020))
    fake_redis.set(record_key(ID), of_other_task(long_ago), ex=3600)
    DatabaseHistory(settings, store)

    store.read(ID)

    assert Database(settings).find(ID).failure is Failure.TIMED_OUT


def test_a_newer_analysis_under_the_same_id_replaces_it(any_url: str) -> None:
    database = Database(settings_for(any_url, keep_input=True))
    archived(database, failed())

    database.write(failed(round=2))

    assert database.find(ID).input == ADA
