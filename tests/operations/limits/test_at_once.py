"""The limits are exact: under many at once, for repetitions, and after a failure in between.

On the real server.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
import redis

from common.connection import StoreUnavailable
from common.failures import Limit
from common.ports import LimitReached
from common.record import AnalysisRecord
from common.states import Status, TransitionError
from common.store import Store
from operations.statistics import Statistics, connect_statistics
from tests.conftest import make_options, make_settings, make_store
from tests.fakes import ADA, DEADLINE, DELAY, OTHER_ID, FakeAnalyst, FakeQueue, pending
from tests.operations.plugged import (
    EVERY_LIMIT,
    OWNER,
    fail,
    limits_with,
    submissions_with,
    submit,
)
from webhook_service import create_app

THREADS = 16
FIRST = f"{0:032x}"


@pytest.fixture
def store(real_redis: redis.Redis) -> Store:
    """A store whose events are counted."""
    store = make_store(real_redis)
    connect_statistics(store)
    return store


def counts(store: Store) -> dict[str, int]:
    """What has been counted, by limit."""
    client = store.connection.client
    keys = [str(key) for key in client.scan_iter("count:*")]
    return {key.split(":")[1]: int(str(client.get(key))) for key in keys}


ONE_OF_EACH = {"daily_analyses": 1, "everyone": 1, "visitor": 1}


def unfinished(store: Store) -> int:
    return Statistics(store).unfinished(store.now()).number


def all_at_once(*acts: Callable[[], object]) -> list[object]:
    """Run each in a thread of its own, from the same moment on; give results and errors."""
    start = threading.Barrier(len(acts))

    def run(act: Callable[[], object]) -> object:
        start.wait()
        try:
            return act()
        except (LimitReached, StoreUnavailable, TransitionError) as error:
            return error

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(run, acts))


# ── Many at once ──


@pytest.mark.parametrize(
    "setting",
    ["submissions_per_hour", "visitor_submissions_per_hour", "most_waiting", "daily_analyses"],
)
def test_many_at_once_do_not_get_past_a_limit(store: Store, setting: str) -> None:
    pages = [submissions_with(store, **{setting: 5}) for _ in range(THREADS)]

    def click(number: int) -> Callable[[], object]:
        return lambda: submit(pages[number], number, "visitor")

    said = all_at_once(*(click(number) for number in range(THREADS)))

    admitted = [each for each in said if isinstance(each, AnalysisRecord)]
    assert len(admitted) == unfinished(store) == 5
    assert sum(isinstance(each, LimitReached) for each in said) == THREADS - 5


def test_a_double_click_and_two_tabs_count_once(store: Store) -> None:
    tabs = [submissions_with(store, **EVERY_LIMIT) for _ in range(2)]

    def click(number: int) -> Callable[[], object]:
        return lambda: submit(tabs[number % 2], 0, "visitor")

    said = all_at_once(*(click(number) for number in range(THREADS)))

    assert {each.request_id for each in said if isinstance(each, AnalysisRecord)} == {FIRST}
    assert all(isinstance(each, AnalysisRecord) for each in said)
    assert counts(store) == ONE_OF_EACH
    assert unfinished(store) == 1


def test_the_last_place_is_given_to_all_clicks_of_one_submission(store: Store) -> None:
    page = submissions_with(store, submissions_per_hour=1, most_waiting=1, daily_analyses=1)

    said = all_at_once(*(lambda: submit(page, 0) for _ in range(THREADS)))

    assert all(isinstance(each, AnalysisRecord) for each in said)


def test_a_repeated_idempotency_key_counts_once(store: Store) -> None:
    settings, chosen = make_settings(), make_options(daily_analyses=9, submissions_per_hour=9)
    queue = FakeQueue()
    app = create_app(
        settings, chosen, store=store, queue=queue, analyst=FakeAnalyst(), open_api=True
    )

    def post() -> object:
        headers = {"Idempotency-Key": "key"}
        return app.test_client().post("/analyze", json=ADA.model_dump(), headers=headers)

    said = all_at_once(*(post for _ in range(THREADS)))

    assert {each.status_code for each in said} == {202}  # type: ignore[attr-defined]
    assert len({each.json["requestId"] for each in said}) == 1  # type: ignore[attr-defined]
    assert counts(store) == {"daily_analyses": 1, "everyone": 1}
    assert len(set(queue.published)) == 1


def test_a_second_try_counts_once_even_when_two_clicks_come_together(store: Store) -> None:
    pages = [submissions_with(store, **EVERY_LIMIT) for _ in range(2)]
    submit(pages[0], 0, "visitor")
    fail(store, 0)

    def click(number: int) -> Callable[[], object]:
        return lambda: pages[number % 2].retry(FIRST, OWNER, "visitor")

    said = all_at_once(*(click(number) for number in range(THREADS)))

    assert sum(isinstance(each, AnalysisRecord) for each in said) == 1
    assert counts(store) == {name: 2 for name in ONE_OF_EACH}
    assert store.read(FIRST).round == 2


def test_a_late_click_on_a_second_try_that_is_over_already_counts_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, late = (submissions_with(store, **EVERY_LIMIT) for _ in range(2))
    submit(quick, 0, "visitor")
    fail(store, 0)
    reopened = late.reopened

    def reopened_late(record: AnalysisRecord, now: datetime) -> AnalysisRecord:
        """Between reading the failed record and being admitted, the other is through."""
        monkeypatch.undo()
        quick.retry(FIRST, OWNER, "visitor")
        quick.cancel(FIRST, OWNER)
        return reopened(record, now)

    monkeypatch.setattr(late, "reopened", reopened_late)
    with pytest.raises(TransitionError):
        late.retry(FIRST, OWNER, "visitor")

    assert counts(store) == {name: 2 for name in ONE_OF_EACH}
    assert unfinished(store) == 0


# ── After a failure in between ──


@pytest.fixture
def fails_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a method of all stores fail once, before it has done anything."""

    def fail_once(name: str) -> None:
        true, left = getattr(Store, name), [StoreUnavailable("away")]

        def method(self: Store, *arguments: object, **options: object) -> object:
            if left:
                raise left.pop()
            return true(self, *arguments, **options)

        monkeypatch.setattr(Store, name, method)

    return fail_once


def test_a_submission_that_could_not_be_stored_and_is_repeated_counts_once(
    store: Store, fails_once: Callable[[str], None]
) -> None:
    page = submissions_with(store, **EVERY_LIMIT | {"daily_analyses": 1, "most_waiting": 1})
    fails_once("create")
    with pytest.raises(StoreUnavailable):
        submit(page, 0, "visitor")

    assert submit(page, 0, "visitor").status is Status.PENDING
    assert counts(store) == ONE_OF_EACH
    assert unfinished(store) == 1


def test_what_could_not_be_stored_may_be_repeated_during_a_pause(
    store: Store, fails_once: Callable[[str], None]
) -> None:
    page = submissions_with(store)
    fails_once("create")
    with pytest.raises(StoreUnavailable):
        submit(page, 0)
    store.connection.client.set("paused", "1", px=60_000)

    assert submit(page, 0).status is Status.PENDING


def test_a_second_try_that_could_not_be_stored_and_is_repeated_counts_once(
    store: Store, fails_once: Callable[[str], None]
) -> None:
    page = submissions_with(store, **EVERY_LIMIT)
    submit(page, 0, "visitor")
    fail(store, 0)
    fails_once("update")
    with pytest.raises(StoreUnavailable):
        page.retry(FIRST, OWNER, "visitor")

    assert page.retry(FIRST, OWNER, "visitor").round == 2
    assert counts(store) == {name: 2 for name in ONE_OF_EACH}
    assert unfinished(store) == 1


def test_what_was_admitted_and_never_stored_waits_until_its_deadline_and_no_longer(
    store: Store,
) -> None:
    limits, now = limits_with(store, most_waiting=1), store.now()
    limits.admit(pending(now))
    over = now + DELAY + DEADLINE

    limits.admit(pending(over, request_id=OTHER_ID))

    with pytest.raises(LimitReached) as caught:  # its place is another's by now
        limits.admit(pending(over))
    assert caught.value.limit is Limit.WAITING


def test_what_is_repeated_waits_until_its_new_deadline(store: Store) -> None:
    limits, now = limits_with(store), store.now()
    limits.admit(pending(now))

    limits.admit(pending(now + DELAY))

    at_the_first_deadline = now + DELAY + DEADLINE
    assert Statistics(store).unfinished(at_the_first_deadline).number == 1


def test_a_deleted_analysis_under_the_same_id_is_another_submission(store: Store) -> None:
    page = submissions_with(store, **EVERY_LIMIT)
    submit(page, 0, "visitor")
    page.delete(FIRST, OWNER)

    submit(page, 0, "visitor")

    assert counts(store) == {name: 2 for name in ONE_OF_EACH}
    assert unfinished(store) == 1
