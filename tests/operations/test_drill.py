"""What `make drill` makes of what it has seen: each fault is counted, and nothing else."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from benchmarks.compare import Run
from benchmarks.drill import doctor, outage, report, restore, roll, size, speed, upgrade
from benchmarks.drill.__main__ import do, steps
from benchmarks.drill.place import Ended
from operations.history.database import Database
from tests.chaos.report import Row
from tests.conftest import make_options
from tests.postgres import Postgres

ROWS = 2000
IDS = [f"{number:032x}" for number in range(4)]


def ended(told: str = "", *, status: int = 0, complaints: str = "", **effort: float) -> Ended:
    return Ended(status, told, complaints, effort.get("seconds", 1.0), effort.get("megabytes", 90))


# ── size ──


def test_the_rows_of_a_month_are_records_that_can_be_read(postgres: Postgres) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        database = Database(make_options(database_url=postgres.url, history_days=31))
        database.ping()  # makes the tables

        size.fill(postgres.url, ROWS)

        counts = connection.execute("SELECT status, count(*) FROM analyses GROUP BY 1").fetchall()
        found = connection.execute(
            "(SELECT request_id, finished_at FROM analyses WHERE status = 'failed' LIMIT 3)"
            "UNION ALL (SELECT request_id, finished_at FROM analyses WHERE code IS NULL LIMIT 3)"
        ).fetchall()
    assert dict(counts) == {"completed": ROWS * 49 // 50, "failed": ROWS // 50}
    for request_id, finished_at in found:
        record = database.find(request_id)
        assert (record.request_id, record.finished_at) == (request_id, finished_at)


LISTED = "\n".join(f"2026-11-28 00:00:00Z {one} round=1 key_refused history" for one in IDS[:2])


@pytest.mark.parametrize(
    ("command", "must", "may", "limit", "wrong"),
    [
        (ended(LISTED), IDS[:2], IDS[:2], None, 0),
        (ended(LISTED), IDS[:1], IDS[:2], None, 0),  # one got too old while it was asked
        (ended(LISTED), IDS[:3], IDS[:3], None, 1),
        (ended(LISTED), IDS[1:2], IDS[1:2], None, 1),
        (ended(LISTED + "\n" + LISTED), IDS[:2], IDS[:2], None, 2),
        (ended(LISTED), IDS, IDS, 2, 0),
        (ended(LISTED), IDS, IDS, 3, 1),
        (ended(LISTED), IDS, IDS, 1, 1),
        (ended(), [], [], None, 0),
        (ended("None that is kept"), IDS, IDS, None, 4),
        (ended(LISTED, status=1), IDS[:2], IDS[:2], None, 1),
        (ended(LISTED, seconds=99), IDS[:2], IDS[:2], None, 1),
        (ended(LISTED, megabytes=650), IDS[:2], IDS[:2], None, 1),
    ],
)
def test_a_list_holds_what_sql_says(
    command: Ended, must: list[str], may: list[str], limit: int | None, wrong: int
) -> None:
    assert size.judge_list("failed", command, {*must}, {*may}, limit).wrong == wrong


def test_counts_are_those_of_sql() -> None:
    told = ended("Redis   1 failed\nhistory   7 completed\nhistory   2 failed key_refused\n")
    counts = {("completed", ""): 7, ("failed", "key_refused"): 2}

    assert size.judge_counts(told, counts) == Row("`stats`", 9, 0, told.effort)
    assert size.judge_counts(told, counts | {("completed", ""): 8}).wrong == 1
    assert size.judge_counts(ended(), counts).wrong == 2


@pytest.mark.parametrize(
    ("expected", "removed", "left", "wrong"),
    [(100, 100, 0, 0), (100, 102, 1, 0), (100, 90, 10, 14), (100, 150, 0, 44)],
)
def test_a_purge_removes_what_is_too_old(
    expected: int, removed: int, left: int, wrong: int
) -> None:
    assert size.judge_purge(ended(), expected, removed, left).wrong == wrong


def test_writes_that_wait_long_or_are_refused_are_counted() -> None:
    assert size.Writes([0.1, 4.0]).row("writes").wrong == 0
    assert size.Writes([0.1, 6.0], refused=2).row("writes").wrong == 3
    assert size.Writes().row("writes").wrong == 1


# ── outage ──


def test_what_an_outage_has_lost_is_counted() -> None:
    kinds = dict(zip(outage.ENDS, ([one] for one in IDS), strict=False))
    archived = {IDS[0]: "completed", IDS[1]: "cancelled", IDS[2]: "failed"}
    seen = outage.Seen(kinds, dict.fromkeys(kinds, 0), archived, 90.0, 10.0, listed=3, refused=3)
    assert report.wrong(outage.judge(seen)) == 0

    seen.archived = {**archived, IDS[1]: "completed"}
    del seen.archived[IDS[2]]
    seen.unread["cancelled"] = 1
    seen.away_seconds, seen.listed = 50.0, 2
    wrong = {row.what for row in outage.judge(seen) if row.wrong}

    assert wrong == {
        "seconds that the database was away",
        "cancelled meanwhile, and in the history at last",
        "timed out meanwhile, and in the history at last",
        "read while it was away",
        "told by the metrics then: not yet in the history",
    }


# ── upgrade ──


NEWER, OLDER = "of a newer version", "of an unknown older version"


@pytest.mark.parametrize(
    ("what", "status", "detail", "wrong"),
    [
        (OLDER, 410, "It was made with an earlier version.", 0),
        (NEWER, 410, "It was made with another version.", 0),
        (NEWER, 503, "It is with a newer version. Ask again.", 0),
        (OLDER, 503, "It is with a newer version. Ask again.", 1),
        (OLDER, 404, "There is no such request.", 1),
        (NEWER, 503, "Come again.", 1),
        (OLDER, 410, "The store of this version can't be reached.", 1),
    ],
)
def test_what_is_of_another_version_is_named_so_and_no_store_is_away(
    what: str, status: int, detail: str, wrong: int
) -> None:
    answer = httpx.Response(status, json={"detail": detail})

    assert upgrade.judge_told(what, [answer]).wrong == wrong


def test_a_refused_deletion_and_what_is_left_are_counted() -> None:
    assert upgrade.judge_deleted("deleted", IDS, [], ended()).wrong == 0
    assert upgrade.judge_deleted("deleted", IDS, IDS[:2], ended(status=1)).wrong == 3


# ── roll ──


def test_a_field_that_comes_and_goes_is_seen() -> None:
    values: list[dict[str, Any]] = [{"a": 1}, {"a": 1, "b": 2}, {"a": 2}]

    assert roll.dropped(values) == {"b"}
    assert roll.dropped(values[:2]) == set()


# ── speed ──


def made(cpu: float, refused: int = 0) -> Run:
    statuses = {"200": 1000, **({"503": refused} if refused else {})}
    return Run("s", "c", 10.0, 0.1, 0.2, cpu, 90.0, 100.0, 200, statuses)


def test_refusals_and_processor_time_are_judged() -> None:
    def wrong(kept: Run) -> list[int]:
        return [row.wrong for row in speed.judge(speed.CASE, [made(4.0)], [kept])]

    assert wrong(made(5.0)) == [0, 0]
    assert wrong(made(5.3, refused=7)) == [7, 1]


# ── doctor ──

READ_ONLY = doctor.Neighbour("read-only", {}, "read-only", doctor.HISTORY)


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        (ended("ok    Redis answers.\n", complaints="WRONG It is read-only.\n", status=1), 0),
        (ended("ok    The history's database answers.\n"), 3),
        (ended(complaints="WRONG The database does not answer.\n", status=1), 1),
        (ended(complaints="DATABASE_URL is read-only\n", status=1), 0),
        (ended(complaints="WRONG It is read-only: hunter2\n", status=1), 1),
        (ended(complaints="Traceback (most …\nValueError: read-only\n", status=1), 1),
    ],
)
def test_what_doctor_says_is_judged(command: Ended, wrong: int) -> None:
    assert doctor.judge(READ_ONLY, command).wrong == wrong


# ── restore ──


def test_an_analysis_that_comes_back_is_seen() -> None:
    erased, others = IDS[:1], {*IDS[1:]}
    well, named = [others, {*IDS}, others, others], {*erased}
    assert report.wrong(restore.judge(IDS, erased, (named, named), well)) == 0

    bad = [others, {*IDS}, {*IDS}, {*IDS}]

    assert report.wrong(restore.judge(IDS, erased, (named, named), bad)) == 2
    assert report.wrong(restore.judge(IDS, erased, (named, set()), well)) == 1


# ── the report ──


@pytest.mark.parametrize("error", [AssertionError, pytest.skip.Exception])
def test_a_step_that_can_not_be_run_is_wrong_and_ends_nothing(
    tmp_path: Path, error: type[BaseException]
) -> None:
    def run(directory: Path) -> list[Row]:
        raise error("there is\nno server")

    done = do(report.Step("size", "It works.", run), tmp_path)

    assert done.rows == [Row("the step itself", 1, 1, f"{error.__name__}: there is no server")]


AT = datetime(2026, 11, 28, 8, tzinfo=UTC)
WELL = report.Done([Row("rows", 3_000_000, 0, "a | b")], AT, 1.0)
BAD = report.Done([Row("lost", 5, 2)], AT, 2.0)


def test_the_report_says_first_whether_something_is_wrong() -> None:
    some = [report.Step(name, "It works.", lambda _: []) for name in ("size", "roll")]

    assert "1 figures of 1 parts, and nothing is wrong." in report.page(some, {"size": WELL}, "")
    page = report.page(some, {"size": WELL, "roll": BAD}, "2 cores")

    assert "something is wrong in: roll." in page
    assert "## Size\n\nIt works.\n" in page
    assert "| rows | 3,000,000 | 0 | a \\| b |" in page
    assert "28 November 2026, 08:00 UTC, 1.0 minutes." in page


def test_results_are_kept_for_the_next_report(tmp_path: Path) -> None:
    path = tmp_path / "drill.json"
    assert report.load(path) == {}

    report.keep(path, {"size": WELL, "roll": BAD})

    assert report.load(path) == {"size": WELL, "roll": BAD}


def test_each_step_has_a_name_of_its_own() -> None:
    assert max(Counter(step.name for step in steps(1)).values()) == 1
