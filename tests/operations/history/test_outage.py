"""A database that is away for longer than Redis usually keeps an analysis; on real servers."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import redis

from common.connection import StoreUnavailable
from common.failures import Failure
from common.ports import HistoryUnavailable
from common.record import AnalysisRecord
from common.states import Status
from common.store import NotFound, Store, milliseconds, record_key
from operations.history.unarchived import UNARCHIVED
from operations.settings import OperationsSettings
from tests.chaos.test_crash_points import Died, Life, MortalRedis
from tests.fakes import FakeAnalyst
from tests.monitor import monitored
from tests.operations.history.histories import (
    CORE,
    HOUR,
    QUOTA,
    TTL,
    Site,
    made,
    settings_for,
)
from tests.processes import wait_for
from webhook_service.worker import Delivery, OutcomeKind, Worker

RUN: list[str] = []  # the analyses of all deaths, each with an id of its own
MANY = 15  # of each kind: more than the sweeper tries first


def test_what_ends_in_an_outage_longer_than_the_time_to_live_is_in_the_history_after_it(
    real_redis: redis.Redis, with_history: OperationsSettings, away: OperationsSettings
) -> None:
    before = Site(real_redis, away)
    completed = [made(before.store, number) for number in range(MANY)]
    cancelled = [made(before.store, number) for number in range(MANY, 2 * MANY)]
    timed_out = [
        made(before.store, number, deadline_at=before.store.now())
        for number in range(2 * MANY, 3 * MANY)
    ]
    for each in timed_out:
        before.store._client.zadd("unfinished", {f"{each}:1": 0})

    answered = [before.deliver(each) for each in completed]
    for each in cancelled:
        before.people.cancel(each, "")
    before.statistics.settle_overdue(before.statistics.unfinished().overdue)
    real_redis.set("usual", "", px=TTL)
    wait_for(lambda: not real_redis.exists("usual"))

    after = Site(real_redis, with_history)
    in_redis = [after.store.read(each) for each in (*completed, *cancelled, *timed_out)]
    assert after.sweep()

    assert answered == [OutcomeKind.RETRY] * MANY
    assert [record.status for record in in_redis[: 2 * MANY : MANY]] == ["completed", "cancelled"]
    assert in_redis[-1].failure is Failure.TIMED_OUT
    for record in in_redis:
        kept = after.history.database.find(record.request_id)
        assert kept == record.model_copy(update={"input": None})
        assert real_redis.pttl(record_key(record.request_id)) <= milliseconds(TTL)
    assert after.waiting() == set()
    assert after.gauges()["history_lost"] == 0


def test_while_it_waits_its_record_lives_as_long_as_was_said(
    real_redis: redis.Redis, away: OperationsSettings
) -> None:
    site = Site(real_redis, away.model_copy(update={"history_max_outage": 5 * HOUR}), ttl=HOUR)

    site.people.cancel(made(site.store, 1), "")

    left = real_redis.pttl(record_key(f"{1:032x}"))
    assert 6 * 3600 - 10 < left / 1000 <= 6 * 3600
    assert real_redis.pttl(UNARCHIVED) > left


def test_what_is_written_at_once_costs_one_command_and_keeps_its_usual_time(
    real_redis: redis.Redis, with_history: OperationsSettings
) -> None:
    site = Site(real_redis, with_history, ttl=HOUR)
    for number in (1, 2):  # the first loads the scripts
        request_id = made(site.store, number)
        with monitored(real_redis) as sent:
            site.deliver(request_id)
            commands = sent()

    # claim, settle, and leave the set
    assert commands == ["GET", "TIME", "EVALSHA", "EVALSHA", "EVALSHA"]
    assert 3590 < real_redis.pttl(record_key(request_id)) / 1000 <= 3600
    assert not real_redis.exists(UNARCHIVED)


def test_a_process_that_dies_before_the_database_has_it_loses_nothing(
    real_redis: redis.Redis,
    with_history: OperationsSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(real_redis, with_history)
    request_id = made(site.store, 1)

    def die(*_: object) -> None:
        raise Died

    monkeypatch.setattr(site.history.database, "write", die)
    with pytest.raises(Died):
        site.deliver(request_id)
    after = Site(real_redis, with_history)

    assert after.sweep()
    assert after.history.database.find(request_id).status is Status.COMPLETED


def test_a_process_that_dies_when_the_database_has_it_writes_it_again(
    real_redis: redis.Redis,
    with_history: OperationsSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(real_redis, with_history)
    request_id = made(site.store, 1)

    def die(*_: object) -> None:
        raise Died

    monkeypatch.setattr(site.history._unarchived, "leave", die)
    with pytest.raises(Died):
        site.deliver(request_id)
    after = Site(real_redis, with_history)

    assert after.waiting() == {request_id}
    assert after.sweep()
    assert after.waiting() == set()


def deaths(act: Callable[[Site, str], object], settings: OperationsSettings) -> Iterator[Site]:
    """The site after a process died in an act, before and after each thing it does to Redis."""
    for after in (False, True):
        for last in range(100):
            mortal = MortalRedis(server=fakeredis.FakeServer(), decode_responses=True)
            mortal.life = Life()
            site = Site(mortal, settings)
            request_id = made(site.store, len(RUN))
            RUN.append(request_id)
            mortal.life = Life(last, after=after)
            try:
                act(site, request_id)
            except Died:
                mortal.life = Life()
                yield Site(mortal, settings)
            else:
                break


@pytest.mark.parametrize(
    "act",
    [
        pytest.param(lambda site, each: site.deliver(each), id="delivery"),
        pytest.param(lambda site, each: site.people.cancel(each, ""), id="cancel"),
        pytest.param(lambda site, each: site.people.delete(each, ""), id="delete"),
    ],
)
def test_whenever_a_process_dies_what_has_ended_reaches_the_history(
    act: Callable[[Site, str], object], tmp_path: Path
) -> None:
    count = 0
    for after in deaths(act, settings_for(f"sqlite:///{tmp_path}/history.db")):
        count += 1

        after.sweep()

        with suppress(NotFound):
            record = after.store.read(RUN[-1])
            if record.status.is_terminal:
                assert after.history.database.find(RUN[-1]) == record
        assert after.waiting() == set()
    assert count >= 4


def test_one_that_is_begun_again_waits_for_its_new_end(
    real_redis: redis.Redis, with_history: OperationsSettings, away: OperationsSettings
) -> None:
    site = Site(real_redis, away)
    request_id = made(site.store, 1)
    site.deliver(request_id, QUOTA)

    site.people.retry(request_id, "")
    waiting = site.waiting()
    site.deliver(request_id, number=2)
    after = Site(real_redis, with_history)
    after.sweep()

    assert waiting == set()
    assert after.history.database.find(request_id).round == 2


@pytest.mark.parametrize("writer", ["write", "write_many"])
def test_one_that_ends_again_while_its_first_end_is_written_stays(
    real_redis: redis.Redis,
    with_history: OperationsSettings,
    away: OperationsSettings,
    monkeypatch: pytest.MonkeyPatch,
    writer: str,
) -> None:
    other, site = Site(real_redis, away), Site(real_redis, with_history)
    request_id = made(site.store, 1)
    other.deliver(request_id, QUOTA)
    write = getattr(site.history.database, writer)

    def end_again(records: Any) -> None:
        write(records)
        other.people.retry(request_id, "")
        other.deliver(request_id, number=2)

    with monkeypatch.context() as patch:
        patch.setattr(site.history.database, writer, end_again)
        site.deliver(request_id) if writer == "write" else site.sweep()

    assert site.history.database.find(request_id).round == 1
    assert site.waiting() == {request_id}
    assert real_redis.pttl(record_key(request_id)) > milliseconds(HOUR)
    site.sweep()
    assert site.history.database.find(request_id).round == 2


def test_one_that_is_deleted_stays_so_and_is_not_missed(
    real_redis: redis.Redis,
    with_history: OperationsSettings,
    away: OperationsSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other, site = Site(real_redis, away), Site(real_redis, with_history)
    first, second = made(site.store, 1), made(site.store, 2)
    other.deliver(first)
    other.deliver(second)
    with pytest.raises(StoreUnavailable):
        other.people.delete(first, "")
    site.people.delete(first, "")
    write_many = site.history.database.write_many

    def delete_meanwhile(records: list[AnalysisRecord]) -> None:
        site.people.delete(second, "")
        write_many(records)

    monkeypatch.setattr(site.history.database, "write_many", delete_meanwhile)
    waiting = site.waiting()
    assert site.sweep()

    assert waiting == {second}
    for each in (first, second):
        with pytest.raises(NotFound):
            site.people.look_up(each)
    assert site.waiting() == set()
    assert site.gauges()["history_lost"] == 0


def test_what_is_lost_is_counted_and_told_once_and_holds_up_nothing(
    real_redis: redis.Redis,
    with_history: OperationsSettings,
    away: OperationsSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    short = away.model_copy(update={"history_max_outage": TTL})
    site = Site(real_redis, short)
    lost = [made(site.store, number) for number in range(MANY)]
    for each in lost:
        site.people.cancel(each, "")
    before = site.gauges()
    wait_for(lambda: not real_redis.exists(record_key(lost[-1])))
    late = site.gauges()
    site.people.cancel(made(site.store, MANY), "")

    with suppress(HistoryUnavailable):
        site.sweep()
    after = Site(real_redis, with_history)

    assert before["unarchived"] == MANY
    assert before["oldest_unarchived_seconds"] < TTL.total_seconds()
    assert late["oldest_unarchived_seconds"] >= before["history_max_outage_seconds"]
    assert after.sweep()
    assert after.gauges() == {
        "unarchived": 0,
        "oldest_unarchived_seconds": 0,
        "history_max_outage_seconds": 86_400,
        "history_lost": MANY,
    }
    assert caplog.text.count('"history lost an analysis"') == MANY
    assert all(caplog.text.count(f'"request_id": "{each}", "ended_at"') == 1 for each in lost)
    assert after.history.database.find(f"{MANY:032x}")


def test_one_that_an_earlier_version_has_ended_is_written_by_its_redelivery(
    real_redis: redis.Redis, with_history: OperationsSettings
) -> None:
    earlier, site = Store(real_redis, ttl=HOUR), Site(real_redis, with_history, ttl=HOUR)
    request_id = made(earlier, 1)
    Worker(earlier, FakeAnalyst(), CORE.times).process(Delivery(request_id=request_id, round=1))

    assert site.deliver(request_id) is OutcomeKind.IGNORED
    assert site.history.database.find(request_id).status is Status.COMPLETED


def test_one_that_an_earlier_version_has_begun_again_leaves_with_its_time_to_live(
    real_redis: redis.Redis, with_history: OperationsSettings, away: OperationsSettings
) -> None:
    earlier, site = Store(real_redis, ttl=TTL), Site(real_redis, with_history)
    request_id = made(site.store, 1)
    Site(real_redis, away).deliver(request_id, QUOTA)
    earlier.update(request_id, site.people.reopened)

    assert site.sweep()

    assert site.waiting() == set()
    assert real_redis.pttl(record_key(request_id)) > milliseconds(TTL)
