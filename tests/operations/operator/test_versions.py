"""The operator's commands among records of other versions: none stops at one."""

import json
from collections.abc import Callable

import pytest
import redis

from common.record import AnalysisRecord
from common.states import Status
from common.store import Store, record_key
from operations.history.database import Database
from operations.settings import OperationsSettings
from tests.fakes import ID, OTHER_ID
from tests.operations.operator.conftest import Put, Run
from tests.product import in_state
from tests.versions import MORE, OWNER_HASH, of_newer, of_older, released, with_more

UNREADABLE: dict[str, Callable[[AnalysisRecord], str]] = {
    "of an older version": of_older,
    "of a newer version": of_newer,
    "damaged": lambda _: "not JSON",
}
WAITS = "any moment now"


@pytest.mark.parametrize(("why", "write"), UNREADABLE.items(), ids=UNREADABLE.keys())
def test_one_that_can_not_be_read_is_told_and_the_next_is_done(
    run: Run,
    put: Put,
    real_redis: redis.Redis,
    store: Store,
    why: str,
    write: Callable[[AnalysisRecord], str],
) -> None:
    real_redis.set(record_key(ID), write(in_state("failed", ID, OWNER_HASH, store.now())), ex=3600)
    put("failed for us to fix", OTHER_ID)

    shown = run("show", ID)
    redriven = run("redrive", ID, OTHER_ID)
    cancelled = run("cancel", ID, OTHER_ID)
    deleted = run("delete", ID, OTHER_ID)

    for ended in (shown, redriven, cancelled):
        assert ended.exit_code == 1
        assert f"a stored record can't be read: {why}" in ended.stderr
        assert "Redis" not in ended.stderr
    assert f"{OTHER_ID} runs again, round 2" in redriven.stdout
    assert f"{OTHER_ID} cancelled" in cancelled.stdout
    assert (deleted.exit_code, deleted.stdout) == (0, f"{ID} deleted\n{OTHER_ID} deleted\n")
    assert not real_redis.exists(record_key(ID), record_key(OTHER_ID))


def test_the_others_are_listed_counted_and_saved(
    run: Run,
    put: Put,
    real_redis: redis.Redis,
    store: Store,
    with_history: OperationsSettings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ids = [f"{number:032x}" for number in range(len(UNREADABLE))]
    for request_id, write in zip(ids, UNREADABLE.values(), strict=True):
        record = in_state("failed", request_id, None, store.now())
        real_redis.set(record_key(request_id), write(record), ex=3600)
    kept = put("failed")

    listed, counted, saved = (run(name) for name in ("failed", "stats", "save"))

    for ended in (listed, counted, saved):
        assert ended.exit_code == 1
        assert "3 in Redis can't be read: see the log." in ended.stderr
    assert ID in listed.stdout
    assert Database(with_history).find(ID) == kept
    lines = [json.loads(line) for line in caplog.text.splitlines()]
    told = {line["request_id"] for line in lines if line["event"] == "record not read"}
    assert told == {*ids}


def test_a_row_of_any_version_is_deleted(
    run: Run, put: Put, store: Store, with_history: OperationsSettings
) -> None:
    put("done", archived=True)
    put("done", OTHER_ID, archived=True)
    database = Database(with_history)
    database.connections.run(
        lambda connection: connection.exec_driver_sql("UPDATE analyses SET record = '{}'")
    )

    assert run("delete", ID, OTHER_ID).exit_code == 0
    assert database.reports.counts() == []


def test_what_a_newer_version_has_written_is_not_shown(
    run: Run, store: Store, real_redis: redis.Redis
) -> None:
    record = in_state("failed", ID, None, store.now())
    real_redis.set(record_key(ID), with_more(record), ex=3600)

    shown = run("show", ID)

    assert shown.exit_code == 0
    assert '"status": "failed"' in shown.stdout
    assert not [name for name in MORE if name in shown.stdout]


def test_one_of_a_released_version_is_run_again(
    run: Run, store: Store, real_redis: redis.Redis
) -> None:
    real_redis.set(record_key(ID), released("1")[4], ex=3600)

    assert run("redrive", ID).stdout == f"{ID} runs again, round 2\n"
    assert store.read(ID).status is Status.PENDING
