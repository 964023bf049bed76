"""Every fault of Redis, over everything the store and the service do, on the real server."""

from datetime import datetime, timedelta
from functools import partial

import pytest
import redis

from common.connection import StoreUnavailable
from common.failures import Failure
from common.record import REPUBLISH_AFTER, AnalysisRecord
from common.states import Status
from common.store import NotFound, Store
from tests.conftest import make_settings, make_store
from tests.fakes import ANALYSIS, BOB
from tests.redis_faults import (
    CANCELLED,
    CLAIMED,
    FAILED,
    FAULTS,
    HOUR,
    NO_DELAY,
    PENDING,
    Operation,
    Route,
    Server,
    World,
    call_back,
    deliver,
    look_up,
    moments,
    post,
    run_all,
    status_of,
    trials_of,
    trials_of_routes,
    wiped,
    world_behind_proxy,
)
from tests.redis_proxy import Fault
from tests.unit.test_worker import Clock
from webhook_service.worker import Delivery, OutcomeKind, Worker


@pytest.fixture
def server(real_redis: redis.Redis) -> Server:
    return Server(make_settings(), real_redis, make_store(real_redis))


def read_clock(world: World) -> None:
    assert abs(world.store.now() - world.record.created_at) < timedelta(minutes=1)


def read(world: World) -> None:
    assert world.store.read(world.id) == world.record


def read_overdue(world: World) -> None:
    """It is said to be over whether or not that can be stored."""
    assert world.store.read(world.id).failure is Failure.TIMED_OUT
    if world.state == PENDING:
        raise StoreUnavailable("told, and not stored")


def current(world: World) -> None:
    assert world.store.current(world.id) == world.record


def settle_overdue(world: World) -> None:
    """It is said to be over whether or not that can be stored."""
    assert world.store.settle_overdue(world.record).failure is Failure.TIMED_OUT
    if world.state == PENDING:
        raise StoreUnavailable("told, and not stored")


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


def edit(world: World) -> None:
    world.submissions.edit(world.id, "", BOB)
    assert world.server.store.read(world.id).input == BOB


OPERATIONS = {
    "check": Operation(lambda world: world.store.check(), None, None),
    "now": Operation(read_clock, None, None),
    "usual duration": Operation(lambda world: world.store.usual_duration(), None, None),
    "create": Operation(lambda world: world.store.create(world.record), None, PENDING),
    "read": Operation(read, PENDING, PENDING),
    "claim": Operation(claim, PENDING, CLAIMED),
    "complete": Operation(complete, CLAIMED, (Status.COMPLETED, 1, None)),
    "release": Operation(release, CLAIMED, (Status.PENDING, 1, None)),
    "delete": Operation(lambda world: world.store.delete(world.id), CLAIMED, None),
    "current": Operation(current, PENDING, PENDING),
    "settle overdue": Operation(
        settle_overdue, PENDING, FAILED, {"deadline_at": timedelta(seconds=1)}
    ),
    "read when overdue": Operation(
        read_overdue, PENDING, FAILED, {"deadline_at": timedelta(seconds=1)}
    ),
    # What a person does
    "person cancels": Operation(
        lambda world: world.submissions.cancel(world.id, ""), PENDING, CANCELLED
    ),
    "person edits": Operation(edit, PENDING, PENDING),
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
# Nothing is lost that was to go; and what was read just before is told as it was.
LOSES_SILENTLY = ("delete", "person deletes", "current")


ROUTES = {
    "webhook": Route(deliver, PENDING, (Status.COMPLETED, 1, None), 200, 200),
    "failure": Route(call_back, PENDING, (Status.FAILED, 0, None), 200, 200),
    "submit": Route(post, None, None, 202, 404),
    "look up": Route(look_up, PENDING, PENDING, 200, 404),
    "ready": Route(lambda world: world.client.get("/ready"), None, None, 200, 200),
    "health": Route(lambda world: world.client.get("/health"), None, None, 200, 200),
}


# ── The store ──


def test_every_operation_ends_well_or_says_so_and_can_be_repeated(server: Server) -> None:
    assert run_all(trials_of(server, OPERATIONS)) == {}


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
    assert public - {"count_with_changes"} <= called  # which sends nothing


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


def test_every_route_answers_as_designed_and_goes_on_afterwards(server: Server) -> None:
    assert run_all(trials_of_routes(server, ROUTES)) == {}


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


def try_to_store_the_answer(server: Server, fault: Fault, *, is_repaired: bool) -> None:
    with world_behind_proxy(server, Status.PENDING) as world:
        clock = Clock()

        def sleep(seconds: float) -> None:
            if is_repaired:
                world.proxy.repair()
            clock.sleep(times.lease.total_seconds() - 3 * seconds)

        times = server.settings.times
        worker = Worker(world.store, world.analyst, times, clock.monotonic, sleep)
        world.analyst.during_call = lambda: world.proxy.break_with(fault)

        outcome = worker.process(Delivery(request_id=world.id, round=1))

        assert world.proxy.has_fired
        assert len(world.analyst.calls) == 1
        state = world.state
        if is_repaired:
            assert outcome.kind is OutcomeKind.SETTLED
            assert status_of(state) is Status.COMPLETED
            return
        assert outcome.kind is OutcomeKind.RETRY
        assert status_of(state) in (Status.PROCESSING, Status.COMPLETED)

        world.analyst.during_call = lambda: None
        world.proxy.repair()
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
        f"{name}, repaired: {is_repaired}": partial(
            try_to_store_the_answer, server, fault, is_repaired=is_repaired
        )
        for name, fault in FAULTS.items()
        for is_repaired in (True, False)
    }

    assert run_all(trials) == {}
