"""Millions of rows: the schema's change over them, and what each command then answers."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from benchmarks.drill.place import Ended, Place, open_place, released_code
from benchmarks.operator import fill_redis
from benchmarks.records import CALL, completed, processing
from common.failures import Failure
from common.store import utc_now
from tests.chaos.report import Row
from tests.postgres import slow_way

CLAIM = "With a month's rows each command answers in time, in little memory, and tells the truth."
DAYS = 30
ONE_FAILED_IN = 50
CODE = Failure.KEY_REFUSED
SAVED = 36_000  # an outage's worth, which Redis still has
OLDER_DAYS = DAYS - 1  # for `purge`: one day's rows
LONGEST_SECONDS = 60.0  # that an operator waits for an answer
LONGEST_FAR_SECONDS = 300.0  # … of a database 20 ms away
MOST_MEGABYTES = 250.0
LONGEST_WRITE_SECONDS = 5.0  # beyond that a delivery is told to come again
# The oldest first, as a history is written; the record's id and times are put into a real one's.
FILL = """
INSERT INTO analyses (request_id, round, status, code, created_at, finished_at, record)
SELECT id, 1,
  CASE WHEN has_failed THEN 'failed' ELSE 'completed' END,
  CASE WHEN has_failed THEN %(code)s END,
  ended, ended,
  replace(replace(CASE WHEN has_failed THEN %(failed)s ELSE %(completed)s END, %(id)s, id),
    %(time)s, to_char(ended AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
FROM (
  SELECT md5(n::text) AS id, n %% %(one_in)s = 0 AS has_failed,
    now() - n * interval '1 day' * %(days)s / %(rows)s AS ended
  FROM generate_series(%(rows)s, 1, -1) AS n
) AS made
"""
WRITE = """
INSERT INTO analyses (request_id, round, status, created_at, finished_at, record)
VALUES (%s, 1, 'completed', now(), now(), '{}')
ON CONFLICT (request_id) DO UPDATE SET round = excluded.round
"""
FAILED = "SELECT request_id FROM analyses WHERE status = 'failed'"
KEPT_DAYS = str(DAYS + 1)  # nothing gets too old while the drill runs


@dataclass
class Writes:
    """How long each of a running service's writes took, and how many were refused."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0

    def row(self, what: str) -> Row:
        late = sum(each > LONGEST_WRITE_SECONDS for each in self.seconds)
        longest = max(self.seconds, default=0)
        note = f"the longest took {longest:.2f} s" if self.seconds else "none came through"
        tried = len(self.seconds) + self.refused
        return Row(what, tried, late + self.refused + (not tried), note)


def run(directory: Path, rows: int) -> list[Row]:
    with open_place(directory, HISTORY_DAYS=KEPT_DAYS) as place:
        made = place.operate("stats", code=released_code(directory / "released"))
        assert made.status == 0, made.complaints
        fill(place.postgres.url, rows)
        return [
            *migrate(place, rows),
            *ask(place),
            purge(place),
            *save(place, min(SAVED, rows)),
        ]


def fill(url: str, rows: int) -> None:
    """Let the history have so many rows of the last month, at an even rate."""
    now, request_id = utc_now(), "0" * 32
    running = processing(now, request_id)
    failed = running.fail("t", CODE, now=now, retry_after=CALL, longest_wait=CALL)
    values = {
        "code": CODE.value,
        "failed": failed.model_dump_json(by_alias=True),
        "completed": completed(now, request_id).model_dump_json(by_alias=True),
        "id": request_id,
        "time": now.isoformat().replace("+00:00", "Z"),
        "one_in": ONE_FAILED_IN,
        "days": DAYS,
        "rows": rows,
    }
    with psycopg.connect(url) as connection:
        connection.execute(FILL, values)


def migrate(place: Place, rows: int) -> list[Row]:
    """Take the released version's tables forward, while that goes on writing."""
    before = _version(place)
    with writing(place.postgres.url) as writes:
        ended = place.operate("upgrade")
    place.ask("DELETE FROM analyses WHERE record = '{}'")  # what was only written to see how long
    changed = f"schema {before} to {_version(place)}, and indexes"
    return [
        Row(f"rows under `upgrade`: {changed}", rows, int(ended.status != 0), ended.effort),
        writes.row("writes of the released version meanwhile"),
    ]


def _version(place: Place) -> str:
    return str(place.ask("SELECT version_num FROM history_version")[0][0])


@contextmanager
def writing(url: str) -> Iterator[Writes]:
    """Write a row now and then until the end of the block, as a service does."""
    writes, is_over = Writes(), threading.Event()

    def write() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not is_over.wait(0.02):
                began = time.monotonic()
                try:
                    connection.execute(WRITE, [f"e{len(writes.seconds):031x}"])
                    writes.seconds.append(time.monotonic() - began)
                except psycopg.Error:
                    writes.refused += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield writes
    finally:
        is_over.set()
        thread.join()


def ask(place: Place) -> list[Row]:
    """What each command tells, beside what SQL says."""
    last_hour = f"{FAILED} AND finished_at > now() - interval '1 hour'"
    with_code = f"{FAILED} AND code = '{CODE}'"
    return [
        listed(place, last_hour, "failed", "--newer-than", "1h"),
        listed(place, with_code, "failed", "--code", CODE.value, "--limit", "100"),
        counted(place),
        listed(place, with_code, "redrive", "--dry-run", "--code", CODE.value, "--limit", "10"),
    ]


def listed(place: Place, query: str, *words: str) -> Row:
    """A command that lists ids."""
    before, ended, after = _ids(place, query), place.operate(*words), _ids(place, query)
    limit = int(words[-1]) if "--limit" in words else None
    return judge_list(f"`{' '.join(words)}`", ended, before & after, before | after, limit)


def _ids(place: Place, query: str) -> set[str]:
    return {request_id for (request_id,) in place.ask(query)}


def judge_list(what: str, ended: Ended, must: set[str], may: set[str], limit: int | None) -> Row:
    """Whether all that must be listed is, up to the limit, and nothing that may not be."""
    told = re.findall(r"\b[0-9a-f]{32}\b", ended.told)
    expected = len(must) if limit is None else min(limit, len(must))
    missing = expected - len(told) if limit else len(must - {*told})
    strangers, repeated = len({*told} - may), len(told) - len({*told})
    wrong = max(0, missing) + strangers + repeated
    if limit:
        wrong += max(0, len(told) - limit)
    return Row(what, len(told), wrong + too_much(ended), ended.effort)


def too_much(ended: Ended, longest_seconds: float = LONGEST_SECONDS) -> int:
    """1 for an exit status, a time and an amount of memory that isn't right, each."""
    return sum(
        [
            ended.status != 0,
            ended.seconds > longest_seconds,
            ended.megabytes > MOST_MEGABYTES,
        ]
    )


def counted(place: Place) -> Row:
    ended = place.operate("stats")
    query = "SELECT status, coalesce(code, ''), count(*) FROM analyses GROUP BY 1, 2"
    counts = {(status, code): number for status, code, number in place.ask(query)}
    return judge_counts(ended, counts)


def judge_counts(ended: Ended, counts: dict[tuple[str, str], int]) -> Row:
    """Whether `stats` tells of the history what SQL says."""
    told = {
        (status, code): int(number.replace(",", ""))
        for number, status, code in re.findall(r"(?m)^history +([\d,]+) (\w+) ?(\w*)$", ended.told)
    }
    different = {each for each in told.keys() | counts.keys() if told.get(each) != counts.get(each)}
    return Row("`stats`", sum(told.values()), len(different) + too_much(ended), ended.effort)


def purge(place: Place) -> Row:
    """Remove the oldest day, and nothing else."""
    expected = _older(place)
    ended = place.operate("purge", changes={"HISTORY_DAYS": str(OLDER_DAYS)})
    left = _older(place)
    removed = sum(int(each.replace(",", "")) for each in re.findall(r"[\d,]+(?= were)", ended.told))
    # While it runs, a few more get too old.
    return judge_purge(ended, expected, removed, left)


def _older(place: Place) -> int:
    query = "SELECT count(*) FROM analyses WHERE finished_at < now() - interval '1 day' * %s"
    return int(place.ask(query, OLDER_DAYS)[0][0])


def judge_purge(ended: Ended, expected: int, removed: int, left: int) -> Row:
    """Whether it removed what was too old; some get so while it runs."""
    meanwhile = round(ended.seconds * 3) + 3
    missed = max(0, left - meanwhile) + max(0, expected - removed)
    more = max(0, removed - expected - meanwhile)
    rate = removed / ended.seconds if ended.seconds else 0
    note = f"{ended.effort}; {rate:,.0f} a second"
    return Row("`purge` of the oldest day", removed, missed + more + too_much(ended), note)


def save(place: Place, number: int) -> list[Row]:
    """Write what Redis has, on loopback, and to a database 20 ms away."""
    fill_redis(place.client, number)
    near = place.operate("save")
    with slow_way(place.postgres.port) as way:
        way.seconds = 0.01  # there, and back
        url = place.postgres.url.replace(str(place.postgres.port), str(way.port))
        far = place.operate("save", changes={"DATABASE_URL": url})
    has = int(place.ask(f"SELECT count(*) FROM analyses WHERE request_id < '{number:032x}'")[0][0])
    return [
        judge_save("`save` of what Redis has", near, has, number, LONGEST_SECONDS),
        judge_save("… to a database 20 ms away", far, has, number, LONGEST_FAR_SECONDS),
    ]


def judge_save(what: str, ended: Ended, has: int, number: int, longest_seconds: float) -> Row:
    """Whether the history has them all, in time."""
    wrong = abs(number - has) + too_much(ended, longest_seconds)
    return Row(what, has, wrong, ended.effort)
