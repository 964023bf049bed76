"""Every fault of Redis, over what the options count there, on the real server."""

from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path

import pytest
import redis
from werkzeug.test import TestResponse

from common import connection
from common.connection import StoreUnavailable
from common.events import Deleted, Discarded, Reopened
from common.failures import Limit
from common.states import Status
from common.store import SWAP, NotFound
from operations.limits import ADMIT, RedisLimits, _quotas
from operations.records import condition, every_record
from operations.statistics import ADD, COUNT, LOOK, Statistics, count_key, member
from tests.conftest import make_options, make_settings, make_store
from tests.fakes import ADA, CALL, LEASE, TOKENS
from tests.redis_faults import (
    FAILED,
    FAULTS,
    PENDING,
    Moment,
    Operation,
    Route,
    Server,
    World,
    deliver,
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

METRICS_TOKEN = "a-metrics-token-"
CHOSEN = make_options(
    metrics_token=METRICS_TOKEN,
    submissions_per_hour=10**6,
    visitor_submissions_per_hour=10**6,
    daily_analyses=10**6,
)


@pytest.fixture
def server(real_redis: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr("operations.metrics_route._directory", tmp_path)
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 8)  # each is a place in a queue
    settings = make_settings()
    return Server(
        settings,
        real_redis,
        make_store(real_redis),
        CHOSEN,
        (SWAP, ADMIT, LOOK, ADD, COUNT),
        lambda store: RedisLimits(settings, CHOSEN, store),
    )


def limits(world: World) -> RedisLimits:
    settings = world.server.settings.model_copy(update={"qstash_parallelism": 10_000})
    return RedisLimits(settings, CHOSEN, world.store)


def statistics(world: World) -> Statistics:
    return Statistics(world.store)


def count_tokens(world: World) -> None:
    claimed = world.record.claim("a", of_round=1, now=world.record.due_at, call=CALL, lease=LEASE)
    statistics(world).watch(Discarded(claimed, 1.0, TOKENS))


OPERATIONS = {
    "check": Operation(lambda world: limits(world).check(), None, None),
    "admit": Operation(lambda world: limits(world).admit(world.record), None, None),
    "begin": Operation(lambda world: statistics(world).watch(Reopened(world.record)), None, None),
    "end": Operation(
        lambda world: statistics(world).watch(Deleted(world.id, world.record, 1)), None, None
    ),
    "count tokens": Operation(count_tokens, None, None),
    "ahead": Operation(lambda world: limits(world).ahead(world.record), None, None),
    "spent": Operation(lambda world: statistics(world).spent("2026-11-24"), None, None),
    "unfinished": Operation(
        lambda world: statistics(world).unfinished(world.record.created_at), None, None
    ),
    "condition": Operation(lambda world: condition(world.store), None, None),
    "person retries": Operation(
        lambda world: world.submissions.retry(world.id, ""), FAILED, PENDING
    ),
}
WALK = {
    # Meets those of the other trials, too.
    "every record": Operation(lambda world: list(every_record(world.store, [])), PENDING, PENDING)
}


@pytest.mark.parametrize("operations", [OPERATIONS, WALK], ids=["each", "every record"])
def test_whatever_is_counted_ends_well_or_says_so_and_can_be_repeated(
    server: Server, operations: dict[str, Operation]
) -> None:
    assert run_all(trials_of(server, operations)) == {}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_counted_can_be_counted_after_redis_was_wiped(server: Server, name: str) -> None:
    operation = OPERATIONS[name]
    loses = suppress(NotFound) if operation.before else nullcontext()
    for moment in moments(server, operation.act, operation.before):
        with world_behind_proxy(server, status_of(operation.before)) as world:
            world.proxy.break_with(wiped, moment.first, only=True)
            with loses:
                operation.act(world)


# ── Exactly once ──


def submit(world: World) -> object:
    """What one visitor does, each world's a visitor of its own."""
    return world.submissions.submit(ADA, request_id=world.id, visitor=world.id)


def counted(server: Server, world: World) -> int:
    """How many submissions this visitor has made, also if the hour has just ended."""
    times = world.record.created_at, server.store.now()
    names = {
        count_key(quota.limit, quota.period)
        for now in times
        for quota in _quotas(server.settings, CHOSEN, now, world.id)
        if quota.limit is Limit.VISITOR
    }
    return sum(int(str(server.client.get(name) or 0)) for name in names)


def try_to_submit(server: Server, fault: Fault, moment: Moment) -> None:
    """A person clicks again, whatever came of the first click."""
    with world_behind_proxy(server, None) as world:
        world.proxy.break_with(fault, moment.first, only=moment.only)
        with suppress(StoreUnavailable):
            submit(world)
        assert world.proxy.has_fired
        world.proxy.repair()
        world.let_late_ones_arrive()

        submit(world)

        assert world.state == PENDING
        assert counted(server, world) == 1
        assert server.client.zscore("unfinished", member(world.record))


def test_a_submission_counts_once_whatever_happened_to_it(server: Server) -> None:
    trials = {
        f"{name}, {moment}": partial(try_to_submit, server, fault, moment)
        for moment in moments(server, submit, None)
        for name, fault in FAULTS.items()
    }

    assert run_all(trials) == {}


# ── The service, with all that is plugged in ──


def metrics(world: World) -> TestResponse:
    return world.client.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})


ROUTES = {
    "webhook": Route(deliver, PENDING, (Status.COMPLETED, 1, None), 200, 200),
    "submit": Route(post, None, None, 202, 404),
    "metrics": Route(metrics, None, None, 200, 200),
}


def test_metrics_ask_redis(server: Server) -> None:
    """The proof that the next test meets it there."""
    assert moments(server, ROUTES["metrics"].request, None)


def test_every_route_answers_as_designed_and_goes_on_afterwards(server: Server) -> None:
    assert run_all(trials_of_routes(server, ROUTES)) == {}
