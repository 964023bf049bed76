"""Every fault of Redis, at every moment of what is done to a store on the real server."""

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property, partial
from typing import NamedTuple

import redis
from flask.testing import FlaskClient
from pydantic import SecretStr
from werkzeug.test import TestResponse

from common.connection import StoreUnavailable, connect
from common.environment import Part
from common.ports import Limits, NoLimits
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.states import Status, TransitionError
from common.store import SWAP, NotFound, Store
from common.submission import Submissions, new_request_id
from local_stack import qstash_queue
from tests.conftest import WEBHOOK_URL
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
from webhook_service import create_app
from webhook_service.answer import Answer

NO_DELAY = timedelta(0)
HOUR = timedelta(hours=1)
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
        b"READONLY You can't write against a read only replica.",
        *(b"SET", b"DEL", b"ZREM", b"EVALSHA"),
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


# ── What is done, and what it comes to ──

State = tuple[Status, int, str | None] | None  # status, attempt, who has claimed it


class Server(NamedTuple):
    """The real server, reached without a proxy, and what is plugged in."""

    settings: ServiceSettings
    client: redis.Redis
    store: Store
    chosen: Part | None = None  # the options' settings
    scripts: tuple[str, ...] = (SWAP,)
    limits_of: Callable[[Store], Limits] = lambda _: NoLimits()


def load_scripts(server: Server) -> None:
    for script in server.scripts:
        server.client.script_load(script)


Ages = Mapping[str, timedelta]  # which of a record's times lie how far back


class World:
    """One record, seen through a proxy of its own."""

    def __init__(self, proxy: RedisProxy, store: Store, server: Server, ages: Ages) -> None:
        self.proxy, self.store, self.server = proxy, store, server
        self.id, now = new_request_id(), server.store.now()
        times = {name: now - age for name, age in ages.items()}
        self.record = pending(now, NO_DELAY, self.id).model_copy(update=times)
        self.queue = FakeQueue()
        self.analyst = FakeAnalyst(Answer(ANALYSIS, "fake", TOKENS))

    @cached_property
    def client(self) -> FlaskClient:
        """The service, on this store."""
        return create_app(
            self.server.settings,
            self.server.chosen,
            store=self.store,
            queue=self.queue,
            analyst=self.analyst,
            open_api=True,
        ).test_client()

    @cached_property
    def submissions(self) -> Submissions:
        """What a person can do; whose it is plays no part here."""
        settings, limits = self.server.settings, self.server.limits_of(self.store)
        return Submissions(self.store, self.queue, settings, limits=limits, is_operator=True)

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


class Route(NamedTuple):
    """A request to the service, and the status with which it is done when all is well."""

    request: Callable[[World], TestResponse]
    before: State
    after: State
    done: int
    lost: int  # when Redis has been wiped


def signed(world: World, url: str, content: dict[str, object]) -> TestResponse:
    body = json.dumps(content).encode()
    token = qstash_queue.sign(url, body, qstash_queue.CURRENT_SIGNING_KEY)
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

        world.proxy.repair()
        with suppress(TransitionError, NotFound):  # a second time: it is done already
            operation.act(world)
        world.let_late_ones_arrive()
        assert world.state == operation.after
        assert len(set(world.queue.published)) <= 1


def trials_of(server: Server, operations: Mapping[str, Operation]) -> dict[str, Callable[[], None]]:
    """Every operation, with every fault at every moment; who is refused once is until the end."""
    return {
        f"{fault_name}, {name}, {moment}": partial(try_operation, server, operation, fault, moment)
        for name, operation in operations.items()
        for moment in moments(server, operation.act, operation.before, operation.ages)
        for fault_name, fault in FAULTS.items()
        if not (moment.only and fault is refused)
    }


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

        world.proxy.repair()
        world.let_late_ones_arrive()
        world.end_lease()
        assert route.request(world).status_code == route.done
        state = world.state
        assert status_of(state) == status_of(route.after)
        assert len(world.analyst.calls) <= (state[1] if state else 0)
        assert len(set(world.analyst.call_ids)) == len(world.analyst.call_ids)
        assert len(set(world.queue.published)) == (route.request is post)


def trials_of_routes(server: Server, routes: Mapping[str, Route]) -> dict[str, Callable[[], None]]:
    """Every route, with every fault; what lasts when the answer is to be stored is left out."""
    return {
        f"{fault_name}, {name}, {moment}": partial(try_route, server, route, fault, moment)
        for name, route in routes.items()
        for moment in moments(server, route.request, route.before)
        for fault_name, fault in FAULTS.items()
        if moment == AT_ONCE or (moment.only and fault is not refused)
    }
