"""Each of the operator's commands, and what it says when something is not there."""

import json
import os
import time
from pathlib import Path

import psycopg
import pytest
import redis

from common.events import Discarded
from common.qstash import Queue
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.states import Status
from common.store import NotFound, Store, utc_now
from common.submission import new_request_id
from common.versions import Unreadable
from operations.history.database import Database
from operations.settings import OperationsSettings
from operations.statistics import connect_statistics
from tests.conftest import broken
from tests.fakes import ADA, ANALYSIS, ID, OTHER_ID, TOKENS
from tests.http_server import answer, serve
from tests.operations.operator.conftest import Put, Run
from tests.postgres import Postgres
from tests.processes import ROOT, bare_environment, wait_for
from tests.product import in_state
from tests.zygote import Zygote

ALL_BY_ID = ["show", "redrive", "cancel", "delete"]


@pytest.mark.parametrize("command", ALL_BY_ID)
@pytest.mark.parametrize("unknown", [OTHER_ID, "nonsense"])
def test_an_unknown_id_is_a_sentence_and_a_failure(run: Run, command: str, unknown: str) -> None:
    ended = run(command, unknown)

    assert ended.exit_code == 1
    assert f"{unknown}: there is no such analysis." in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["redrive"],
        ["redrive", ID, "--code", "quota_exceeded"],
        ["failed", "--code", "x"],
        ["cancel"],
        ["delete"],
    ],
)
def test_a_wrong_call_is_told(run: Run, arguments: list[str]) -> None:
    ended = run(*arguments)

    assert ended.exit_code == 2
    assert "Error: " in ended.stderr


def test_the_failed_are_listed_from_redis_and_from_the_history(run: Run, put: Put) -> None:
    archived = new_request_id()
    put("failed for us to fix", archived, archived=True)
    put("failed", ID)
    put("done", OTHER_ID)

    lines = run("failed").stdout.splitlines()

    assert len(lines) == 2
    assert f"{archived} round=1 quota_exceeded history" in lines[0]
    assert f"{ID} round=1 refused_by_model Redis" in lines[1]


def test_the_failed_are_found_by_code_and_age(run: Run, put: Put) -> None:
    put("failed for us to fix", ID)
    put("failed", OTHER_ID)

    assert ID in run("failed", "--code", "quota_exceeded").stdout
    assert OTHER_ID not in run("failed", "--code", "quota_exceeded").stdout
    assert run("failed", "--older-than", "1h").stdout == ""
    assert len(run("failed", "--newer-than", "1h").stdout.splitlines()) == 2


def test_what_rests_at_qstash_is_marked(
    run: Run, put: Put, settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(answer(489, {}, Upstash_NonRetryable_Error="true")) as service:
        url = f"{service.url}/webhook"
        monkeypatch.setenv("QSTASH_WEBHOOK_URL", url)
        queue = Queue(settings.model_copy(update={"qstash_webhook_url": url}))
        record = put("failed for us to fix")
        queue.publish(record, now=record.due_at)
        put("failed", OTHER_ID)

        wait_for(lambda: list(queue.dead_letters()))
        listed, shown = run("failed").stdout, run("show", ID).stdout

    assert f"{ID} round=1 quota_exceeded Redis dead-letter\n" in listed
    assert f"{OTHER_ID} round=1 refused_by_model Redis\n" in listed
    assert "dead letter: " in shown
    assert "answered=489" in shown


def test_a_record_is_shown_without_what_was_written_and_answered(run: Run, put: Put) -> None:
    put("failed for us to fix")
    put("done", OTHER_ID, archived=True)

    in_redis, archived = run("show", ID).stdout, run("show", OTHER_ID).stdout

    assert "kept in: Redis" in in_redis
    assert '"failure": "quota_exceeded"' in in_redis
    assert "kept in: history" in archived
    for text in (ADA.name, ADA.description, ANALYSIS.summary, "owner", "claim_token"):
        assert text not in in_redis + archived


def test_a_redriven_one_runs_as_a_new_round(run: Run, put: Put, store: Store) -> None:
    put("failed for us to fix")

    ended = run("redrive", ID)

    assert ended.exit_code == 0, ended.stderr
    assert ended.stdout == f"{ID} runs again, round 2\n"
    assert (store.read(ID).status, store.read(ID).round) == (Status.PENDING, 2)
    assert store.read(ID).message_id


def test_a_redrive_by_code_takes_the_time_it_should(run: Run, put: Put, store: Store) -> None:
    ids = [new_request_id() for _ in range(3)]
    for request_id in ids:
        put("failed for us to fix", request_id)
    put("failed", OTHER_ID)
    began = time.monotonic()

    ended = run("redrive", "--code", "quota_exceeded")

    assert len(ended.stdout.splitlines()) == 3
    assert time.monotonic() - began >= 0.6  # 5 a second
    assert {store.read(request_id).round for request_id in ids} == {2}
    assert store.read(OTHER_ID).status is Status.FAILED


def test_a_dry_run_changes_nothing(run: Run, put: Put, store: Store) -> None:
    before = put("failed for us to fix")

    ended = run("redrive", "--dry-run", "--code", "quota_exceeded")

    assert ended.stdout == f"{ID} would run round 2\n"
    assert store.read(ID) == before


def test_a_code_that_none_has_failed_with_is_told(run: Run, put: Put) -> None:
    put("failed")

    ended = run("redrive", "--code", "quota_exceeded")

    assert (ended.exit_code, ended.stdout) == (0, "")
    assert ended.stderr == "None that is kept has failed with quota_exceeded.\n"


def test_one_that_qstash_does_not_take_is_told_in_a_sentence(
    run: Run, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("failed for us to fix")
    monkeypatch.setenv("QSTASH_URL", "http://127.0.0.1:1")

    ended = run("redrive", ID)

    assert ended.exit_code == 1
    assert ended.stderr.endswith(": not done: Your request could not be put into the queue.\n")


@pytest.mark.parametrize("state", ["done", "waiting", "cancelled"])
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_only_what_has_failed_is_redriven(
    run: Run, put: Put, state: str, options: list[str]
) -> None:
    put(state)

    ended = run("redrive", ID, *options)

    assert ended.exit_code == 1
    assert f"{ID}: not done: not failed." in ended.stderr


def test_what_redis_has_forgotten_is_redriven_from_the_history(
    run: Run, put: Put, store: Store
) -> None:
    put("failed for us to fix", archived=True)

    tried = run("redrive", ID, "--dry-run")
    assert tried.stdout == f"{ID} would run round 2\n"
    with pytest.raises(NotFound):
        store.read(ID)
    ended = run("redrive", ID)

    assert ended.exit_code == 0, ended.stderr
    assert (store.read(ID).round, store.read(ID).input) == (2, ADA)
    assert store.read(ID).message_id


def test_one_that_is_deleted_while_it_is_brought_back_stays_deleted(
    run: Run,
    put: Put,
    store: Store,
    with_history: OperationsSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put("failed for us to fix", archived=True)
    create = Store.create

    def create_after_the_delete(self: Store, record: AnalysisRecord) -> bool:
        Database(with_history).delete(ID, utc_now())
        return create(self, record)

    monkeypatch.setattr(Store, "create", create_after_the_delete)
    ended = run("redrive", ID)

    assert ended.exit_code == 1
    assert "there is no such analysis" in ended.stderr
    with pytest.raises(NotFound):
        store.read(ID)


def test_without_its_text_an_archived_one_can_not_be_redriven(
    run: Run, put: Put, with_history: OperationsSettings
) -> None:
    record = put("failed for us to fix", OTHER_ID)
    textless = record.model_copy(update={"request_id": ID, "input": None})
    Database(with_history).write(textless)

    ended = run("redrive", ID)

    assert ended.exit_code == 1
    assert "its text is no longer kept" in ended.stderr


def test_one_that_is_refused_does_not_stop_the_others(run: Run, put: Put, store: Store) -> None:
    put("failed for us to fix")

    ended = run("redrive", "e" * 32, ID)

    assert ended.exit_code == 1
    assert store.read(ID).round == 2


def test_cancelling_and_deleting_need_no_owner(
    run: Run, put: Put, with_history: OperationsSettings
) -> None:
    put("waiting")

    assert run("cancel", ID).stdout == f"{ID} cancelled\n"
    assert Database(with_history).find(ID).status is Status.CANCELLED
    assert run("delete", ID).stdout == f"{ID} deleted\n"
    assert run("show", ID).exit_code == 1
    with pytest.raises(NotFound):
        Database(with_history).find(ID)


def test_what_is_in_the_history_alone_has_ended(run: Run, put: Put) -> None:
    put("done", archived=True)

    ended = run("cancel", ID)

    assert ended.exit_code == 1
    assert ended.stderr == f"{ID}: not done: already terminal.\n"


def test_todays_spend_is_told(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = in_state("processing", ID, None, store.now())
    connect_statistics(store)
    store.events.emit(Discarded(claimed, 1.0, TOKENS))
    without_limit = run("stats").stdout
    monkeypatch.setenv("DAILY_ANALYSES", "9")

    assert "today            300 tokens in\ntoday            200 tokens out\n" in without_limit
    assert "today              0 analyses\n" in run("stats").stdout
    assert "analyses" not in without_limit


def test_everything_is_counted(run: Run, put: Put) -> None:
    put("failed for us to fix", ID)
    put("done", OTHER_ID, archived=True)

    counted = " ".join(run("stats").stdout.split())

    assert "Redis 1 failed quota_exceeded" in counted
    assert "history 1 completed" in counted
    assert "dead letters" in counted


def test_what_redis_still_has_is_saved(
    run: Run, put: Put, with_history: OperationsSettings
) -> None:
    done = put("done", ID)
    put("waiting", OTHER_ID)

    assert run("save").stdout == "1 are in the history.\n"
    assert Database(with_history).find(ID) == done


def test_a_record_that_can_not_be_read_keeps_no_other_from_being_told_and_saved(
    run: Run, put: Put, real_redis: redis.Redis, with_history: OperationsSettings
) -> None:
    failed = put("failed for us to fix", ID)
    newer = failed.model_dump_json(by_alias=True).replace('"quota_exceeded"', '"of_next_year"')
    real_redis.set(f"analysis:{{{OTHER_ID}}}", newer)

    listed, counted, saved = run("failed"), run("stats"), run("save")

    assert ID in listed.stdout
    assert "1 failed quota_exceeded" in " ".join(counted.stdout.split())
    assert saved.stdout == "1 are in the history.\n"
    assert Database(with_history).find(ID) == failed
    for ended in (listed, counted, saved):
        assert ended.exit_code == 1
        assert "1 in Redis can't be read: see the log." in ended.stderr


def test_a_row_that_can_not_be_read_does_not_stop_the_others(
    run: Run, put: Put, store: Store, postgres: Postgres
) -> None:
    put("failed for us to fix", ID, archived=True)
    put("failed for us to fix", OTHER_ID, archived=True)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("UPDATE analyses SET record = '{}' WHERE request_id = %s", [ID])

    ended = run("redrive", "--code", "quota_exceeded")

    assert ended.exit_code == 1
    assert f"{ID}: not done: a stored record can't be read" in ended.stderr
    assert store.read(OTHER_ID).round == 2


def test_many_in_redis_are_read_by_few_commands(run: Run, put: Put, valkey: str) -> None:
    for _ in range(300):
        put("done", new_request_id())
    client = redis.Redis.from_url(valkey, decode_responses=True)
    before = client.info("commandstats")

    counted = run("stats")
    saved = run("save")

    after = client.info("commandstats")
    client.close()
    gets = [stats.get("cmdstat_get", {}).get("calls", 0) for stats in (before, after)]
    assert "Redis            300 completed\n" in counted.stdout
    assert saved.stdout == "300 are in the history.\n"
    assert gets[0] == gets[1]


def test_what_was_saved_before_the_database_went_is_told(
    run: Run, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("done")
    monkeypatch.setenv("DATABASE_URL", "postgresql://tester@127.0.0.1:1/postgres")

    ended = run("save")

    assert (ended.exit_code, ended.stdout) == (1, "0 were saved, and not the rest: run it again.\n")
    assert "Error: database: " in ended.stderr


def test_what_is_too_old_is_purged(
    run: Run, put: Put, monkeypatch: pytest.MonkeyPatch, postgres: Postgres
) -> None:
    put("done", archived=True)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("UPDATE analyses SET finished_at = finished_at - interval '31 days'")

    assert run("purge").stdout == "1 were removed.\n"
    assert run("purge").stdout == "0 were removed.\n"


def test_without_a_history_there_is_nothing_to_save_to(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "")

    for command in ("save", "purge"):
        assert run(command).exit_code == 1
        assert "DATABASE_URL is not set" in run(command).stderr


def test_without_the_database_what_redis_has_is_told_all_the_same(
    run: Run, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("failed")
    monkeypatch.setenv("DATABASE_URL", "postgresql://tester@127.0.0.1:1/postgres")

    for arguments in (["failed"], ["show", ID], ["stats"], ["redrive", "--code", "timed_out"]):
        ended = run(*arguments)
        assert ended.exit_code == 1, "what the history has is not known"
        assert "The history does not answer: database: " in ended.stderr
        assert "None that is kept" not in ended.stderr
        assert "refused_by_model" in ended.stdout or arguments[0] == "redrive"


def test_the_command_logs_what_it_does(
    put: Put,
    settings: ServiceSettings,
    with_history: OperationsSettings,
    tmp_path: Path,
    zygote: Zygote,
) -> None:
    put("failed for us to fix")
    Database(with_history).ping()  # else the command would tell that it has made the tables
    names = [name.upper() for name in settings.model_fields_set | with_history.model_fields_set]
    environment = bare_environment(tmp_path, **{name: os.environ[name] for name in names})

    ended = zygote.run(["-m", "operations", "redrive", ID], ROOT, environment)

    assert (ended.returncode, ended.stdout) == (0, f"{ID} runs again, round 2\n")
    logged = [json.loads(line) for line in ended.stderr.splitlines()]
    assert [line["event"] for line in logged] == ["reopened", "published"]


def test_without_redis_each_command_ends_with_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")

    for arguments in (["failed"], ["show", ID], ["stats"], ["delete", ID]):
        ended = run(*arguments)
        assert ended.exit_code == 1
        assert ended.stderr.startswith("Error: Redis: ")


def test_dead_letters_that_qstash_does_not_show_are_told_and_the_rest_goes_on(
    run: Run, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("failed")
    monkeypatch.setenv("QSTASH_URL", "http://127.0.0.1:1")

    ended, counted = run("failed"), run("stats")

    assert ID in ended.stdout
    assert "QStash does not show its dead letters" in ended.stderr
    assert "dead letters unknown\n" in counted.stdout
    assert (ended.exit_code, counted.exit_code) == (1, 1)


def test_a_record_that_cannot_be_read_is_a_sentence_and_can_be_deleted(
    run: Run, put: Put, real_redis: redis.Redis
) -> None:
    real_redis.set(f"analysis:{{{ID}}}", broken("completed without result"))
    put("failed", OTHER_ID)

    refused = {name: run(name, ID) for name in ("show", "redrive", "cancel")}
    listed = run("failed")
    deleted = run("delete", ID)

    for ended in refused.values():
        assert ended.exit_code == 1
        assert "a stored record can't be read: damaged: incomplete for completed" in ended.stderr
        assert not isinstance(ended.exception, Unreadable)
    assert OTHER_ID in listed.stdout
    assert deleted.exit_code == 0
    assert not real_redis.exists(f"analysis:{{{ID}}}")
