"""Rows of the history that another version has written."""

import json

import pytest
import sqlalchemy as sql

from common.events import Event, RecordNotRead, StoreFailed
from common.states import Status
from common.store import NotFound, Store, record_key
from common.submission import NotOwner, Submissions
from common.versions import Unreadable, Why
from operations.history.archive import DatabaseHistory
from operations.history.database import Database
from operations.history.schema import analyses
from tests.fakes import ID, OTHER_ID, FakeQueue, with_fields
from tests.operations.history.histories import (
    CORE,
    OWNER,
    completed,
    failed,
    make_people,
    settings_for,
)
from tests.versions import MORE, OWNER_HASH, of_newer, of_older, released, with_more

READY = released("1")[3]


def keep(url: str, raw: str, request_id: str = ID) -> Database:
    """Keep it to the letter."""
    database = Database(settings_for(url))
    database.write(with_fields(completed(request_id=request_id), owner_hash=OWNER_HASH))
    change = analyses.update().where(analyses.c.request_id == request_id).values(record=raw)
    database.connections.run(lambda connection: connection.execute(change))
    return database


def test_a_row_of_a_released_version_is_read(any_url: str) -> None:
    found = keep(any_url, READY).find(ID)

    assert found.status is Status.COMPLETED
    assert found.result


def test_what_a_newer_version_has_written_is_kept_in_the_history_too(
    store: Store, any_url: str
) -> None:
    record = with_fields(failed(at=store.now()), owner_hash=OWNER_HASH)
    store.connection.client.set(record_key(ID), with_more(record), ex=3600)
    database = Database(settings_for(any_url))

    DatabaseHistory(settings_for(any_url), store).ended(ID)

    row = sql.select(analyses.c.record)
    kept = json.loads(str(database.connections.run(lambda connection: connection.scalar(row))))
    assert kept == kept | MORE | {"input": None}


@pytest.mark.parametrize(
    ("write", "why"), [(of_older, Why.OLDER), (of_newer, Why.NEWER)], ids=["older", "newer"]
)
def test_one_that_can_not_be_read_is_not_a_database_that_is_away_and_can_be_deleted(
    store: Store, any_url: str, write: object, why: Why
) -> None:
    assert callable(write)
    told: list[Event] = []
    store.events.subscribe(told.append)
    database = keep(any_url, write(with_fields(completed(), owner_hash=OWNER_HASH)))
    people = make_people(store, settings_for(any_url))

    with pytest.raises(Unreadable) as caught:
        people.look_up(ID)
    with pytest.raises(NotOwner):
        people.delete(ID, "another")
    people.delete(ID, OWNER)

    assert (caught.value.why, caught.value.request_id) == (why, ID)
    assert not [event for event in told if isinstance(event, StoreFailed | RecordNotRead)]
    with pytest.raises(NotFound):
        database.find(ID)


def test_one_that_tells_no_owner_is_the_operators_to_delete(store: Store, any_url: str) -> None:
    database = keep(any_url, "{}")
    keep(any_url, READY, OTHER_ID)
    history = DatabaseHistory(settings_for(any_url), store)

    with pytest.raises(NotOwner):
        make_people(store, settings_for(any_url)).delete(ID, OWNER)
    Submissions(store, FakeQueue(), CORE, history=history, is_operator=True).delete(ID, "")

    assert [count.number for count in database.counts()] == [1]


def test_whoever_notices_an_end_is_not_stopped_by_a_newer_version(
    store: Store, any_url: str
) -> None:
    record = with_fields(completed(), status=Status.CANCELLED, result=None)
    store.connection.client.set(record_key(ID), of_newer(record), ex=3600)

    DatabaseHistory(settings_for(any_url), store).noticed(record)

    assert Database(settings_for(any_url)).counts() == []
