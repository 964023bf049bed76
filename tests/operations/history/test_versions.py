"""Rows of the history that another version has written."""

import json

import pytest
import redis
import sqlalchemy as sql

from common.events import Event, RecordNotRead, StoreFailed
from common.states import Status
from common.store import NotFound, Store, record_key
from common.submission import NotOwner, Submissions
from common.versions import Unreadable, Why
from operations.history.archive import DatabaseHistory
from operations.history.database import Database
from operations.history.schema import analyses
from operations.history.unarchived import UNARCHIVED
from tests.fakes import ID, OTHER_ID, FakeQueue, with_fields
from tests.operations.history.histories import (
    CORE,
    OWNER,
    Site,
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

    assert [count.number for count in database.reports.counts()] == [1]


def test_what_a_newer_version_has_ended_waits_for_that_version(
    fake_redis: redis.Redis, any_url: str
) -> None:
    site = Site(fake_redis, settings_for(any_url))
    record = with_fields(completed(), status=Status.CANCELLED, result=None)
    fake_redis.set(record_key(ID), of_newer(record), ex=3600)
    fake_redis.zadd(UNARCHIVED, {ID: 0})

    assert not site.sweep()
    assert site.waiting() == {ID}
    assert site.gauges()["history_lost"] == 0
    assert site.history.database.reports.counts() == []
