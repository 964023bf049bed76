"""How many Redis commands an analysis costs with the options; hosts charge for each."""

import pytest
import redis

from common.ports import LimitReached
from common.qstash import QStashRefused
from common.states import Status
from common.store import Store
from docs.scale_figures import COMMANDS
from tests.conftest import make_settings, make_store
from tests.fakes import ADA, ANALYSIS, ID, TOKENS, FakeAnalyst, FakeQueue
from tests.monitor import monitored
from tests.operations.plugged import EVERY_LIMIT, OWNER, open_page, plugged
from webhook_service.answer import Answer
from webhook_service.worker import Delivery, Worker

LIMITS = EVERY_LIMIT | {"qstash_delay": "0s"}


@pytest.fixture
def store(real_redis: redis.Redis) -> Store:
    return make_store(real_redis)


def test_an_analysis_costs_eight_commands_with_every_limit(
    store: Store, real_redis: redis.Redis
) -> None:
    queue = FakeQueue()
    page = open_page(store, queue, LIMITS)
    analyst = FakeAnalyst(Answer(ANALYSIS, "m", TOKENS))
    worker = Worker(plugged(store, LIMITS)[0], analyst, make_settings().times)

    def run() -> None:
        page.submit(ADA, request_id=ID, owner_token=OWNER, visitor="visitor")
        submitted.extend(sent())
        worker.process(Delivery(request_id=ID, round=1))
        delivered.extend(sent())

    with monitored(real_redis) as sent:
        submitted: list[str] = []
        delivered: list[str] = []
        run()  # loads the scripts
        store.delete(ID)
        sent()
        submitted.clear()
        delivered.clear()
        run()

    assert store.read(ID).status is Status.COMPLETED
    assert submitted == ["TIME", "EVALSHA", "SET", "EVALSHA"]  # admit, and the message's id
    assert delivered == ["GET", "TIME", "EVALSHA", "EVALSHA"]  # the last one counts, too
    assert len(submitted) + len(delivered) == COMMANDS  # docs/scale.md counts with them


def test_what_is_rejected_costs_two_commands(store: Store, real_redis: redis.Redis) -> None:
    page = open_page(store, FakeQueue(), {"daily_analyses": 1})
    page.submit(ADA, request_id=ID, owner_token=OWNER)

    with monitored(real_redis) as sent:
        with pytest.raises(LimitReached):
            page.submit(ADA, request_id="f" * 32, owner_token=OWNER)

        assert sent() == ["TIME", "EVALSHA"]


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_submission_is_not_added_to_the_unfinished_twice(
    store: Store, real_redis: redis.Redis, is_refused: bool
) -> None:
    queue = FakeQueue()
    queue.trouble = QStashRefused("429") if is_refused else None

    open_page(store, queue, LIMITS).submit(ADA, request_id=ID, owner_token=OWNER)

    assert real_redis.zcard("unfinished") == (0 if is_refused else 1)


@pytest.mark.parametrize(("limits", "cost"), [({"qstash_parallelism": 2}, ["ZCOUNT"]), ({}, [])])
def test_a_place_in_the_queue_costs_one_command_and_nothing_where_there_is_none(
    store: Store, real_redis: redis.Redis, limits: dict[str, int], cost: list[str]
) -> None:
    page = open_page(store, FakeQueue(), limits)
    record = page.submit(ADA, request_id=ID, owner_token=OWNER)

    with monitored(real_redis) as sent:
        page.ahead(record)

        assert sent() == cost
