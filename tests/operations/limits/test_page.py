"""What the page says when a limit is reached, through AppTest on the real server."""

import re
from datetime import timedelta

import pytest
import redis

from common.failures import Limit
from common.states import Status
from common.store import Store
from operations.limit_settings import SPEND_LIMITS
from page import texts
from tests.conftest import make_store
from tests.fakes import ADA, ID, LEASE, pending
from tests.http_server import HttpServer
from tests.page import (
    button,
    configured,
    fill,
    note,
    open_page,
    qstash,
    request_id_of,
    show_owner,
    text,
)

__all__ = ["configured", "qstash"]
pytestmark = pytest.mark.usefixtures("configured")


@pytest.fixture
def store(real_redis: redis.Redis) -> Store:
    return make_store(real_redis)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"VISITOR_SUBMISSIONS_PER_HOUR": "1"}, "You have sent as many requests as one visitor"),
        ({"SUBMISSIONS_PER_HOUR": "1"}, texts.AT_LIMIT),
        ({"MOST_WAITING": "1"}, texts.AT_LIMIT),
        ({"DAILY_ANALYSES": "1"}, texts.AT_LIMIT),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_limit_is_a_sentence_at_the_button_and_the_text_is_kept(
    monkeypatch: pytest.MonkeyPatch,
    real_redis: redis.Redis,
    qstash: HttpServer,
    limits: dict[str, str],
    sentence: str,
) -> None:
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    page = fill(open_page())
    page.button("new").click().run()

    fill(page, name="Bob")

    said = note(page)
    assert said.startswith(sentence)
    assert re.search(r"Your text is still here: try again in \w+ \w+\.$", said)
    assert page.text_input[0].value == "Bob"
    assert page.text_area[0].value == ADA.description
    assert "request" not in page.query_params
    assert len(qstash.requests) == 1


def test_what_was_rejected_can_be_sent_again_later(
    store: Store, real_redis: redis.Redis, qstash: HttpServer
) -> None:
    real_redis.set("paused", "1", px=timedelta(minutes=5))
    page = fill(open_page())
    refused = note(page)
    real_redis.delete("paused")

    page.button("send").click().run()

    assert refused.startswith("Our access to the AI service does not work just now")
    assert store.read(request_id_of(page)).status is Status.PENDING


def test_a_second_try_that_is_rejected_says_why(
    monkeypatch: pytest.MonkeyPatch, store: Store, real_redis: redis.Redis
) -> None:
    monkeypatch.setenv("DAILY_ANALYSES", "1")
    now = store.now()
    real_redis.set(f"count:daily_analyses:{now:%Y-%m-%d}", 1)
    page = show_owner(store, pending(now).give_up(of_round=1, now=now, lease=LEASE))

    button(page, "Try again").click().run()

    assert Limit.DAILY_ANALYSES.sentence in text(page)
    assert store.read(ID).status is Status.FAILED


def test_without_limits_nothing_is_left_of_what_was_deleted(
    monkeypatch: pytest.MonkeyPatch, real_redis: redis.Redis
) -> None:
    for name in SPEND_LIMITS:
        monkeypatch.setenv(name.upper(), "0")
    page = fill(open_page())
    button(page, "Yes, cancel it").click().run()

    button(page, "Yes, delete it").click().run()

    assert "Deleted." in text(page)
    assert real_redis.keys("*") == []


def test_the_place_in_the_queue_is_shown_and_asked_for_now_and_then(
    monkeypatch: pytest.MonkeyPatch, store: Store, real_redis: redis.Redis
) -> None:
    monkeypatch.setenv("QSTASH_PARALLELISM", "3")
    for name in ("Ada", "Bob"):
        page = fill(open_page(), name=name)
        assert "before you" not in text(page) or name == "Bob"
    asked = count_of(real_redis, "zcount")

    assert "1 before you" in text(page)
    page.run()
    assert "1 before you" in text(page)
    assert count_of(real_redis, "zcount") == asked


def count_of(client: redis.Redis, command: str) -> int:
    """How often a command was run."""
    stats = client.info("commandstats")
    return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])
