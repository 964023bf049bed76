"""The operator's commands among records that were made for a task before: none of them stops."""

import json
import re
from collections.abc import Callable
from unittest.mock import Mock

import pytest
import redis

from common.failures import Failure
from common.options import Options
from common.states import Status
from common.store import Store, parse_record, record_key
from common.submission import new_request_id
from common.versions import Unreadable
from operations.doctor import Clients, Fault
from operations.hints import HINTS
from operations.history.database import Database
from operations.settings import OperationsSettings
from operations.smoke import _run_one
from tests.conftest import make_options, make_settings
from tests.fakes import ID, OTHER_ID, FakeQueue
from tests.operations.operator.conftest import Put, Run
from tests.product import in_state
from tests.states import OTHER_INPUT, OTHER_TASK, of_other_task

WRITTEN = ("Wie groß", "secret", "snake_case", "score")

PutOther = Callable[..., str]


@pytest.fixture
def put_other(store: Store, real_redis: redis.Redis, with_history: OperationsSettings) -> PutOther:
    """Put a record of another task into Redis, or into the history; return its id."""

    def put_other(state: str, request_id: str = ID, *, archived: bool = False) -> str:
        text = of_other_task(in_state(state, request_id, None, store.now()))
        if archived:
            Database(with_history).write(parse_record(text))
        else:
            real_redis.set(record_key(request_id), text, ex=3600)
        return request_id

    return put_other


@pytest.mark.parametrize("archived", [False, True], ids=["redis", "history"])
def test_it_is_shown_without_its_texts(run: Run, put_other: PutOther, archived: bool) -> None:
    put_other("failed", archived=archived)

    ended = run("show", ID)

    where = "history" if archived else "Redis"
    assert ended.exit_code == 0, ended.stderr
    assert f"kept in: {where}, and made for another task" in ended.stdout
    assert f'"task": "{OTHER_TASK}"' in ended.stdout
    assert not [word for word in WRITTEN if word in ended.output]


@pytest.mark.parametrize("archived", [False, True], ids=["redis", "history"])
@pytest.mark.parametrize("options", [[], ["--dry-run"]], ids=["done", "dry run"])
def test_a_redrive_says_why_not_and_goes_on(
    run: Run, put: Put, put_other: PutOther, archived: bool, options: list[str]
) -> None:
    put_other("failed for us to fix", archived=archived)
    put("failed for us to fix", OTHER_ID)

    ended = run("redrive", "--code", "quota_exceeded", *options)

    assert ended.exit_code == 1
    assert f"{ID}: not done: made for another task than this version's." in ended.stderr
    assert OTHER_ID in ended.stdout


def test_all_are_listed_counted_saved_and_purged(
    run: Run, put_other: PutOther, store: Store, with_history: OperationsSettings
) -> None:
    put_other("failed")
    put_other("done", OTHER_ID)
    put_other("any moment now", new_request_id())
    put_other("failed", new_request_id(), archived=True)

    listed, counted, saved, purged = (run(name) for name in ("failed", "stats", "save", "purge"))

    assert [ended.exit_code for ended in (listed, counted, saved, purged)] == [0] * 4
    assert len(listed.stdout.splitlines()) == 2
    assert "1 completed" in counted.stdout
    assert "1 pending" in counted.stdout
    assert "2 are in the history." in saved.stdout
    for request_id in (ID, OTHER_ID):
        assert Database(with_history).find(request_id) == store.read(request_id)


@pytest.mark.parametrize("archived", [False, True], ids=["redis", "history"])
def test_it_can_be_deleted(
    run: Run, put_other: PutOther, real_redis: redis.Redis, archived: bool
) -> None:
    put_other("done", archived=archived)

    assert run("delete", ID).exit_code == 0
    assert run("show", ID).exit_code == 1
    assert not real_redis.exists(record_key(ID))


def test_one_that_waits_can_be_cancelled(run: Run, put_other: PutOther, store: Store) -> None:
    put_other("any moment now")

    assert run("cancel", ID).stdout == f"{ID} cancelled\n"
    assert store.read(ID).status is Status.CANCELLED


def test_those_that_ended_so_are_found_by_their_code(
    run: Run, put_other: PutOther, store: Store
) -> None:
    put_other("any moment now")
    store.update(ID, lambda r, now: r._fail(Failure.TASK_CHANGED, now))

    assert f"{ID} round=1 task_changed Redis" in run("failed", "--code", "task_changed").stdout


def test_the_smoke_test_names_a_service_with_another_task(
    store: Store, real_redis: redis.Redis, queue: FakeQueue
) -> None:
    def answer_as_another() -> None:
        ((request_id, _),) = queue.published
        owner_hash = store.read(request_id).owner_hash
        done = in_state("done", request_id, owner_hash, store.now())
        real_redis.set(record_key(request_id), of_other_task(done), xx=True)

    queue.before_answer = answer_as_another
    at = Clients(make_settings(), make_options(), store, queue, Mock(), Options())

    with pytest.raises(Fault, match=re.escape(HINTS[Failure.TASK_CHANGED])):
        _run_one(at, print)


def test_a_damaged_one_of_our_own_task_is_still_told(
    run: Run, put: Put, real_redis: redis.Redis
) -> None:
    put("failed")
    damaged = json.loads(str(real_redis.get(record_key(ID)))) | {"input": OTHER_INPUT}
    real_redis.set(record_key(ID), json.dumps(damaged), ex=3600)

    with pytest.raises(Unreadable):
        parse_record(json.dumps(damaged))
    assert "a stored record can't be read: damaged: input" in run("show", ID).stderr
