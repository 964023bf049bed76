"""Every fault of Redis, over everything the store and the service do, on the real server."""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from common.connection import StoreUnavailable, connect
from common.failures import Failure
from common.record import REPUBLISH_AFTER, AnalysisRecord, Status, TransitionError
from common.settings import ServiceSettings
from common.store import SCRIPTS, NotFound, Store
from common.submission import Submissions, new_request_id
from local_stack import qstash_courier
from operations.limits import admission
from tests.conftest import WEBHOOK_URL, make_settings, make_store
from tests.fakes import (
    ADA,
    ANALYSIS,
    CALL,
    LEASE,
    TOKENS,
    FakeAnalyst,
    FakeQueue,
    end_lease,
    pending,
)
from tests.http_server import hang, reset
from tests.processes import wait_for
from tests.redis_proxy import CONNECTING, Exchange, Fault, RedisProxy, pass_on, redis_proxy
from tests.unit.test_worker import Clock
from webhook_service import create_app
from webhook_service.worker import Delivery, OutcomeKind, Worker

NO_DELAY = timedelta(0)
HOUR = timedelta(hours=1)
METRICS_TOKEN = "a-metrics-token-"
NO_AGES: Mapping[str, timedelta] = {}
MAX_SECONDS = 10  # a person, or QStash, waits no longer

# ── The faults ──


def refused(exchange: Exchange) -> None:
    exchange.proxy.refuse_connections()
    hang(exchange.client)


def ten_seconds_late(exchange: Exchange) -> None:
    """The command arrives, perhaps long after the client has gone and tried again."""
    exchange.proxy.held_back += 1
    exchange.proxy.time_has_passed.wait(10)
    try:
        pass_on(exchange)
    finally:
        exchange.proxy.held_back -= 1


def half_a_reply(exchange: Exchange) -> None:
    reply = exchange.ask()
    exchange.client.sendall(reply[: len(reply) // 2])
    hang(exchange.client)


def reset_in_mid_reply(exchange: Exchange) -> None:
    reply = exchange.ask()
    exchange.client.sendall(reply[: len(reply) // 2])
    reset(exchange.client)
    raise EOFError


def executed_without_reply(exchange: Exchange) -> None:
    exchange.ask()
    hang(exchange.client)


def accepted_and_never_answered(exchange: Exchange) -> None:
    if exchange.command not in CONNECTING:
        raise EOFError  # what there was is gone; what is made now stays silent
    hang(exchange.client)


def errors(message: bytes, *commands: bytes) -> Fault:
    """Answer these commands, or all that are not part of connecting, with an error."""

    def fault(exchange: Exchange) -> None:
        is_hit = exchange.command in commands if commands else exchange.command not in CONNECTING
        if is_hit:
            exchange.client.sendall(b"-%s\r\n" % message)
        else:
            pass_on(exchange)

    return fault


FAULTS = {
    "refused": refused,
    "10 s late": ten_seconds_late,
    "half a reply": half_a_reply,
    "reset in mid-reply": reset_in_mid_reply,
    "executed without reply": executed_without_reply,
    "accepted and never answered": accepted_and_never_answered,
    "loading": errors(b"LOADING Redis is loading the dataset in memory"),
    "read only": errors(
        b"READONLY You can't write against a read only replica.", b"SET", b"DEL", b"EVALSHA"
    ),
    "out of memory": errors(
        b"OOM command not allowed when used memory > 'maxmemory'.", b"SET", b"EVALSHA"
    ),
}


def wiped(exchange: Exchange) -> None:
    """The server has lost everything, its scripts included."""
    exchange.ask(b"*1\r\n$8\r\nFLUSHALL\r\n")
    exchange.ask(b"*2\r\n$6\r\nSCRIPT\r\n$5\r\nFLUSH\r\n")
    pass_on(exchange)


# ── What is done to the store, and what it comes to ──

State = tuple[Status, int, str | None] | None  # status, attempt, who has claimed it


class Server(NamedTuple):
    """The real server, reached without a proxy."""

    settings: ServiceSettings
    client: redis.Redis
    store: Store


@pytest.fixture
def server(real_redis: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # and so it is put back
    monkeypatch.setattr("operations.metrics_route._directory", "")
    settings = make_settings(metrics_token=METRICS_TOKEN, metrics_dir=tmp_path)
    return Server(settings, real_redis, make_store(real_redis))


def load_scripts(server: Server) -> None:
    for script in SCRIPTS:
        server.client.script_load(script)


Ages = Mapping[str, timedelta]  # which of a record's times lie how far back


class World:
    """One record, seen through a proxy of its own."""

    def __init__(self, proxy: RedisProxy, store: Store, server: Server, ages: Ages) -> None:
        self.proxy, self.store, self.server = proxy, store, server
        self.id, now = new_request_id(), server.store.now()
        times = {name: now - age for name, age in ages.items()}
        self.record = pending(now, NO_DELAY, self.id).model_copy(update=times)
        self.queue, self.analyst = FakeQueue(), FakeAnalyst()

    @cached_property
    def client(self) -> FlaskClient:
        """The service, on this store."""
        return create_app(
            self.server.settings,
            store=self.store,
            queue=self.queue,
            analyst=self.analyst,
            open_api=True,
        ).test_client()

    @cached_property
    def submissions(self) -> Submissions:
        """What a person can do; whose it is plays no part here."""
        return Submissions(self.store, self.queue, self.server.settings, is_operator=True)

    def prepare(self, status: Status | None) -> None:
        """Make the record, and claim it, around the proxy; then connect through it."""
        load_scripts(self.server)  # as in any server in use; a wipe has taken them
        if status:
            self.server.store.create(self.record)
        if status is Status.PROCESSING:
            self.server.store.update(self.id, lambda r, _: self.claimed(r))
        if status is Status.FAILED:
            self.server.store.update(
                self.id, lambda r, now: r.give_up(of_round=1, now=now, lease=LEASE)
            )
        self.store.now()

    def claimed(self, record: AnalysisRecord) -> AnalysisRecord:
        return record.claim("a", of_round=1, now=self.record.created_at, call=CALL, lease=LEASE)

    @property
    def state(self) -> State:
        """What Redis really holds: nothing, or a whole record that will end by itself."""
        key = f"analysis:{{{self.id}}}"
        raw = self.server.client.get(key)
        assert self.server.client.pttl(key) != -1
        if raw is None:
            return None
        record = AnalysisRecord.model_validate_json(str(raw))
        is_claimed = record.status is Status.PROCESSING
        return record.status, record.attempt, record.claim_token if is_claimed else None

    def let_late_ones_arrive(self) -> None:
        self.proxy.time_has_passed.set()
        wait_for(lambda: not self.proxy.held_back)

    def end_lease(self) -> None:
        end_lease(self.server.client, self.id)


def read_clock(world: World) -> None:
    assert abs(world.store.now() - world.record.created_at) < timedelta(minutes=1)


def read(world: World) -> None:
    assert world.store.read(world.id) == world.record


def read_overdue(world: World) -> None:
    """It is said to be over whether or not that can be stored."""
    assert world.store.read(world.id).failure is Failure.TIMED_OUT
    if world.state == PENDING:
        raise StoreUnavailable("told, and not stored")


def bind_key(world: World) -> None:
    key = f"idempotency:scope:{world.id}"
    record = world.record.model_copy(update={"idempotency_key": key})
    world.store.create(record, fingerprint="fingerprint")
    assert world.server.client.pttl(key) > 0


def claim(world: World) -> None:
    assert world.store.update(world.id, lambda r, _: world.claimed(r)).attempt == 1


def complete(world: World) -> None:
    world.store.update(world.id, lambda r, now: r.complete("a", ANALYSIS, model="m", now=now))


def release(world: World) -> None:
    def fail(record: AnalysisRecord, now: datetime) -> AnalysisRecord:
        return record.fail(
            "a", Failure.RATE_LIMITED, now=now, retry_after=NO_DELAY, longest_wait=HOUR
        )

    world.store.update(world.id, fail)


def note_attempt(world: World) -> None:
    world.store.note_attempt(world.record.created_at, took=CALL, tokens=TOKENS)


def admit(world: World) -> None:
    now = world.record.created_at
    world.store.admit(world.record, now, admission(make_settings(), now))


def give_up(world: World) -> None:
    world.store.update(world.id, lambda r, now: r.give_up(of_round=1, now=now, lease=LEASE))


PENDING: State = (Status.PENDING, 0, None)
CLAIMED: State = (Status.PROCESSING, 1, "a")
FAILED: State = (Status.FAILED, 0, None)
CANCELLED: State = (Status.CANCELLED, 0, None)


class Operation(NamedTuple):
    """Something done to the store: the record's state before and after it."""

    act: Callable[[World], object]
    before: State
    after: State
    ages: Ages = NO_AGES


OPERATIONS = {
    "check": Operation(lambda world: world.store.check(), None, None),
    "check all": Operation(lambda world: world.store.check_all(), None, None),
    "now": Operation(read_clock, None, None),
    "bind key": Operation(bind_key, None, PENDING),
    "note attempt": Operation(note_attempt, None, None),
    "spent": Operation(lambda world: world.store.spent("2026-11-24"), None, None),
    "unfinished": Operation(
        lambda world: world.store.unfinished(world.record.created_at), None, None
    ),
    "admit": Operation(admit, None, None),
    "usual duration": Operation(lambda world: world.store.usual_duration(), None, None),
    "overdue": Operation(lambda world: world.store.overdue(world.record.created_at), None, None),
    "create": Operation(lambda world: world.store.create(world.record), None, PENDING),
    "read": Operation(read, PENDING, PENDING),
    "claim": Operation(claim, PENDING, CLAIMED),
    "complete": Operation(complete, CLAIMED, (Status.COMPLETED, 1, None)),
    "release": Operation(release, CLAIMED, (Status.PENDING, 1, None)),
    "cancel": Operation(
        lambda world: world.store.update(world.id, lambda r, now: r.cancel(now=now)),
        PENDING,
        CANCELLED,
    ),
    "give up": Operation(give_up, PENDING, FAILED),
    "delete": Operation(lambda world: world.store.delete(world.id), CLAIMED, None),
    "read when overdue": Operation(
        read_overdue, PENDING, FAILED, {"deadline_at": timedelta(seconds=1)}
    ),
    "condition": Operation(lambda world: world.store.condition(), None, None),
    "every record": Operation(lambda world: list(world.store.every_record()), PENDING, PENDING),
    # What a person does
    "person cancels": Operation(
        lambda world: world.submissions.cancel(world.id, ""), PENDING, CANCELLED
    ),
    "person retries": Operation(
        lambda world: world.submissions.retry(world.id, ""), FAILED, PENDING
    ),
    "person deletes": Operation(
        lambda world: world.submissions.delete(world.id, ""), PENDING, None
    ),
    "person looks, unpublished": Operation(
        lambda world: world.submissions.look_up(world.id),
        PENDING,
        PENDING,
        {"published_at": REPUBLISH_AFTER},
    ),
}
WALK = "every record"  # meets those of the other trials, too
# Nothing is lost that was to go; and a walk has no particular one in mind.
LOSES_SILENTLY = ("delete", "person deletes", WALK)


class Route(NamedTuple):
    """A request to the service, and the status with which it is done when all is well."""

    request: Callable[[World], TestResponse]
    before: State
    after: State
    done: int
    lost: int  # when Redis has been wiped


def signed(world: World, url: str, content: dict[str, object]) -> TestResponse:
    body = json.dumps(content).encode()
    token = qstash_courier.sign(url, body, qstash_courier.CURRENT_SIGNING_KEY)
    path = url.removeprefix(WEBHOOK_URL.removesuffix("/webhook"))
    return world.client.post(path, data=body, headers={"Upstash-Signature": token})


def deliver(world: World) -> TestResponse:
    return signed(world, WEBHOOK_URL, {"requestId": world.id, "round": 1})


def call_back(world: World) -> TestResponse:
    message = json.dumps({"requestId": world.id, "round": 1}).encode()
    source_body = base64.b64encode(message).decode()
    return signed(world, f"{WEBHOOK_URL}/failure", {"sourceBody": source_body})


def post(world: World) -> TestResponse:
    return world.client.post(
        "/analyze", json=ADA.model_dump(), headers={"Idempotency-Key": world.id}
    )


def look_up(world: World) -> TestResponse:
    return world.client.get(f"/analyze/{world.id}")


def metrics(world: World) -> TestResponse:
    return world.client.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})


ROUTES = {
    "webhook": Route(deliver, PENDING, (Status.COMPLETED, 1, None), 200, 200),
    "failure": Route(call_back, PENDING, (Status.FAILED, 0, None), 200, 200),
    "submit": Route(post, None, None, 202, 404),
    "look up": Route(look_up, PENDING, PENDING, 200, 404),
    "ready": Route(lambda world: world.client.get("/ready"), None, None, 200, 200),
    "health": Route(lambda world: world.client.get("/health"), None, None, 200, 200),
    "metrics": Route(metrics, None, None, 200, 200),
}


class Moment(NamedTuple):
    """Which commands a fault meets: those from the first on, or only that."""

    first: int
    only: bool


AT_ONCE = Moment(0, only=False)


@contextmanager
def world_behind_proxy(
    server: Server, status: Status | None, ages: Ages = NO_AGES
) -> Iterator[World]:
    with redis_proxy(server.client.connection_pool.connection_kwargs["port"]) as proxy:
        url = SecretStr(f"redis://127.0.0.1:{proxy.port}/0")
        client = connect(server.settings.model_copy(update={"redis_url": url}))
        store = Store(client, ttl=HOUR)
        world = World(proxy, store, server, ages)
        world.prepare(status)
        yield world
        client.connection_pool.disconnect()


def moments(
    server: Server, act: Callable[[World], object], before: State, ages: Ages = NO_AGES
) -> list[Moment]:
    """Every moment of something that goes well."""
    load_scripts(server)
    met: list[Exchange] = []

    def count(exchange: Exchange) -> None:
        met.append(exchange)
        pass_on(exchange)

    with world_behind_proxy(server, status_of(before), ages) as world:
        world.proxy.break_with(count)
        act(world)
    return [Moment(first, only) for first in range(len(met)) for only in (False, True)]


def status_of(state: State) -> Status | None:
    return state and state[0]


def run_all(trials: Mapping[str, Callable[[], None]]) -> dict[str, BaseException]:
    """Run all of them at once, as most of them wait; return what went wrong."""
    with ThreadPoolExecutor(50) as pool:
        running = {name: pool.submit(trial) for name, trial in trials.items()}
    errors = {name: future.exception() for name, future in running.items()}
    return {name: error for name, error in errors.items() if error}


# ── The store ──


def try_operation(server: Server, operation: Operation, fault: Fault, moment: Moment) -> None:
    with world_behind_proxy(server, status_of(operation.before), operation.ages) as world:
        world.proxy.break_with(fault, moment.first, only=moment.only)
        began = time.monotonic()
        legal = [operation.after]

        try:
            operation.act(world)
        except StoreUnavailable:
            legal.append(operation.before)

        assert time.monotonic() - began < MAX_SECONDS
        assert world.proxy.has_fired
        assert world.state in legal

        world.proxy.mend()
        with suppress(TransitionError, NotFound):  # a second time: it is done already
            operation.act(world)
        world.let_late_ones_arrive()
        assert world.state == operation.after
        assert len(set(world.queue.published)) <= 1


@pytest.mark.parametrize("names", [set(OPERATIONS) - {WALK}, {WALK}], ids=["each", WALK])
def test_every_operation_ends_well_or_says_so_and_can_be_repeated(
    server: Server, names: set[str]
) -> None:
    trials = {
        f"{fault_name}, {name}, {moment}": partial(try_operation, server, operation, fault, moment)
        for name, operation in OPERATIONS.items()
        if name in names
        for moment in moments(server, operation.act, operation.before, operation.ages)
        for fault_name, fault in FAULTS.items()
    }

    assert run_all(trials) == {}


class Watched:
    """A store that notes which of its methods are called."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.called: set[str] = set()

    def __getattr__(self, name: str) -> object:
        self.called.add(name)
        return getattr(self._store, name)


def test_no_method_of_the_store_is_left_out(server: Server) -> None:
    called: set[str] = set()
    for operation in OPERATIONS.values():
        with world_behind_proxy(server, status_of(operation.before), operation.ages) as world:
            watched = Watched(world.store)
            world.store = watched  # type: ignore[assignment]
            operation.act(world)
            called |= watched.called

    public = {name for name, value in vars(Store).items() if callable(value) and name[0] != "_"}
    assert public <= called


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_wiped_redis_has_no_such_record_and_nothing_half(server: Server, name: str) -> None:
    operation = OPERATIONS[name]
    for moment in moments(server, operation.act, operation.before, operation.ages):
        with world_behind_proxy(server, status_of(operation.before), operation.ages) as world:
            world.proxy.break_with(wiped, moment.first, only=True)

            is_said = False
            try:
                operation.act(world)
            except NotFound:
                is_said = True

            if operation.before:
                assert world.state is None
                assert is_said or name in LOSES_SILENTLY
            else:
                assert world.state == operation.after
                assert not is_said


# ── The service ──


def try_route(server: Server, route: Route, fault: Fault, moment: Moment) -> None:
    with world_behind_proxy(server, status_of(route.before)) as world:
        world.proxy.break_with(fault, moment.first, only=moment.only)
        began = time.monotonic()

        response = route.request(world)

        assert time.monotonic() - began < MAX_SECONDS
        assert world.proxy.has_fired
        assert response.status_code in (route.done, 503)
        if response.status_code == 503:
            assert int(response.headers["Retry-After"]) >= 1
        assert "Error" not in response.text

        world.proxy.mend()
        world.let_late_ones_arrive()
        world.end_lease()
        assert route.request(world).status_code == route.done
        state = world.state
        assert status_of(state) == status_of(route.after)
        assert len(world.analyst.calls) <= (state[1] if state else 0)
        assert len(set(world.analyst.call_ids)) == len(world.analyst.call_ids)
        assert len(set(world.queue.published)) == (route.request is post)


def test_every_route_answers_as_designed_and_goes_on_afterwards(server: Server) -> None:
    trials = {
        f"{fault_name}, {name}, {moment}": partial(try_route, server, route, fault, moment)
        for name, route in ROUTES.items()
        for moment in moments(server, route.request, route.before)
        for fault_name, fault in FAULTS.items()
        # What lasts when the answer is to be stored is tried below, with a clock of its own.
        if moment == AT_ONCE or (moment.only and fault is not refused)
    }

    assert run_all(trials) == {}


@pytest.mark.parametrize("name", ROUTES)
def test_what_a_wiped_redis_has_lost_is_said_to_be_lost(server: Server, name: str) -> None:
    route = ROUTES[name]
    for moment in moments(server, route.request, route.before):
        with world_behind_proxy(server, status_of(route.before)) as world:
            world.proxy.break_with(wiped, moment.first, only=True)

            response = route.request(world)

            assert response.status_code in (route.done, route.lost)
            if response.status_code == 404:
                assert "no longer kept" in response.get_json()["detail"]
            if route.before:
                assert world.state is None
                assert look_up(world).status_code == 404
            assert len(world.analyst.calls) <= 1


def test_health_asks_redis_nothing(server: Server) -> None:
    assert moments(server, ROUTES["health"].request, None) == []


# ── The paid answer ──


def try_to_store_the_answer(server: Server, fault: Fault, *, is_mended: bool) -> None:
    with world_behind_proxy(server, Status.PENDING) as world:
        clock = Clock()

        def sleep(seconds: float) -> None:
            if is_mended:
                world.proxy.mend()
            clock.sleep(times.lease.total_seconds() - 3 * seconds)

        times = server.settings.times
        worker = Worker(world.store, world.analyst, times, clock.monotonic, sleep)
        world.analyst.during_call = lambda: world.proxy.break_with(fault)

        outcome = worker.process(Delivery(request_id=world.id, round=1))

        assert world.proxy.has_fired
        assert len(world.analyst.calls) == 1
        state = world.state
        if is_mended:
            assert outcome.kind is OutcomeKind.SETTLED
            assert status_of(state) is Status.COMPLETED
            return
        assert outcome.kind is OutcomeKind.RETRY
        assert status_of(state) in (Status.PROCESSING, Status.COMPLETED)

        world.analyst.during_call = lambda: None
        world.proxy.mend()
        world.end_lease()
        assert deliver(world).status_code == 200
        world.let_late_ones_arrive()
        calls = 1 if status_of(state) is Status.COMPLETED else 2
        assert world.state == (Status.COMPLETED, calls, None)
        assert len(world.analyst.calls) == calls


def test_a_paid_answer_is_stored_when_redis_comes_back_or_costs_one_more_call(
    server: Server,
) -> None:
    trials = {
        f"{name}, mended: {is_mended}": partial(
            try_to_store_the_answer, server, fault, is_mended=is_mended
        )
        for name, fault in FAULTS.items()
        for is_mended in (True, False)
    }

    assert run_all(trials) == {}
