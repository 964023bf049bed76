"""A new version over old data: what the released version has left in Redis and in the history."""

import itertools
import json
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg

from benchmarks.drill.place import API_KEY, Ended, Place, open_place, released_code, some_ids
from common.store import utc_now
from common.task import TASK
from tests.chaos.report import Row
from tests.processes import wait_for

CLAIM = (
    "Records and rows of the released version are read, run again and deleted by this one; what is "
    "of a newer or an unknown older version is named as that, and can be deleted."
)
# A record as the released version wrote it; the task's part and the times are put in.
RELEASED: dict[str, Any] = {
    "schemaVersion": 1,
    "requestId": None,
    "nonce": "7ec7082c9b0b4860",
    "fingerprint": None,
    "status": "completed",
    "task": TASK.fingerprint,
    "input": None,
    "ownerHash": None,
    "createdBy": API_KEY,
    "createdAt": None,
    "dueAt": None,
    "deadlineAt": None,
    "round": 1,
    "publishedAt": None,
    "messageId": "msg_1",
    "attempt": 1,
    "nextAttemptAt": None,
    "claimToken": "t",
    "claimedAt": None,
    "lastFailure": None,
    "lastFailedAt": None,
    "failure": None,
    "result": None,
    "model": None,
    "tokens": None,
    "finishedAt": None,
}
TIMES = ("createdAt", "dueAt", "publishedAt", "nextAttemptAt", "claimedAt", "finishedAt")
INPUT = TASK.example.model_dump(mode="json", by_alias=True)
RESULT = TASK.example_result.model_dump(mode="json", by_alias=True)
COMPLETED: dict[str, Any] = {"result": RESULT, "model": "m"}
FAILED: dict[str, Any] = {"status": "failed", "failure": "key_refused", "input": INPUT}
PENDING: dict[str, Any] = {
    **dict.fromkeys(("messageId", "claimToken", "claimedAt", "finishedAt")),
    "status": "pending",
    "attempt": 0,
    "input": INPUT,
}
# As nobody writes it today: another shape, and a state that this version doesn't know.
NEWER: dict[str, Any] = {"schemaVersion": 99, "status": "paused", "result": [RESULT], "parts": {}}
GONE = object()  # instead of a value: the field is not there
OLDER: dict[str, Any] = {**COMPLETED, "dueAt": GONE}
OF_VERSION = "version"  # what is said of both
AWAY = re.compile("can't be reached|store|Redis|history")  # what nobody is told of it
STORE_ERRORS = re.compile(r"(?m)^analysis_store_errors_total\{.*\} ([\d.]+)$")
KINDS = {"newer": "a newer", "older": "an unknown older"}
EACH = 5
INSERT = """
INSERT INTO analyses (request_id, round, status, code, created_at, finished_at, record)
VALUES (%(requestId)s, 1, %(status)s, %(failure)s, %(createdAt)s, %(finishedAt)s, %(record)s)
"""


def run(directory: Path) -> list[Row]:
    released = released_code(directory / "released")
    with open_place(directory) as place:
        made = place.operate("stats", code=released)  # its tables
        assert made.status == 0, made.complaints
        ids = {
            (kind, where): put(place, content, where)
            for kind, content in {
                "completed": COMPLETED,
                "failed": FAILED,
                "pending": PENDING,
                "unwanted": COMPLETED,
                "newer": NEWER,
                "older": OLDER,
            }.items()
            for where in ("Redis", "the history")
            if (kind, where) != ("pending", "the history")
        }
        place.service.start()
        return [
            *read(place, ids["completed", "Redis"], ids["completed", "the history"]),
            *run_again(place, ids["failed", "Redis"], ids["failed", "the history"]),
            go_on(place, ids["pending", "Redis"]),
            *(
                judge_told(f"of {kind} version, in {where}", [place.read(one) for one in ids[key]])
                for key in ids
                if (kind := KINDS.get(key[0])) and (where := key[1])
            ),
            nothing_was_away(place),
            *delete(place, ids),
        ]


def put(place: Place, content: dict[str, Any], where: str) -> list[str]:
    """Let Redis or the history have a few such records."""
    ids = some_ids(EACH)
    for request_id in ids:
        record = make(request_id, content)
        if where == "Redis":
            place.client.set(f"analysis:{{{request_id}}}", json.dumps(record), ex=3600)
        else:
            store_row(place, record)
    return ids


def make(request_id: str, content: dict[str, Any]) -> dict[str, Any]:
    now = utc_now()
    ago = (now - timedelta(seconds=60)).isoformat()
    later = (now + timedelta(seconds=600)).isoformat()
    times = dict.fromkeys(TIMES, ago)
    record = {**RELEASED, **times, "deadlineAt": later, "requestId": request_id, **content}
    return {name: value for name, value in record.items() if value is not GONE}


def store_row(place: Place, record: dict[str, Any]) -> None:
    with psycopg.connect(place.postgres.url) as connection:
        connection.execute(
            INSERT,
            {**record, "record": json.dumps(record)},
        )


def read(place: Place, *sources: list[str]) -> list[Row]:
    def is_read(request_id: str) -> bool:
        answer = place.read(request_id)
        return answer.status_code == 200 and answer.json().get("result") == RESULT

    names = "completed, in Redis: read by a program", "completed, in the history: the same"
    return [_each(name, ids, is_read) for name, ids in zip(names, sources, strict=True)]


def run_again(place: Place, *sources: list[str]) -> list[Row]:
    names = "failed, in Redis: run again by `redrive`", "failed, in the history: the same"
    rows = []
    for name, ids in zip(names, sources, strict=True):
        ended = place.operate("redrive", *ids)
        row = _each(name, ids, lambda request_id: _completes(place, request_id))
        rows.append(row._replace(wrong=row.wrong + (ended.status != 0), note=ended.effort))
    return rows


def go_on(place: Place, ids: list[str]) -> Row:
    """Its message was lost; whoever waits for it has it published again."""
    what = "pending, in Redis: published again, and completed"
    return _each(what, ids, lambda request_id: _completes(place, request_id))


def _completes(place: Place, request_id: str) -> bool:
    try:
        wait_for(lambda: place.read(request_id).json().get("status") == "completed", 60)
    except AssertionError:
        return False
    return True


def judge_told(what: str, answers: list[httpx.Response]) -> Row:
    """Its owner is told that it is of another version, and of no store that is away.

    503 is for a newer one alone: it may be read as soon as the new version has taken over.
    """
    told = [(answer.status_code, str(answer.json().get("detail"))) for answer in answers]
    allowed = {410, 503} if "newer" in what else {410}
    bad = [
        (status, detail)
        for status, detail in told
        if status not in allowed or OF_VERSION not in detail or AWAY.search(detail)
    ]
    note = "; ".join(sorted({f"{status}: {detail}" for status, detail in told}))
    return Row(what, len(told), len(bad), note)


def nothing_was_away(place: Place) -> Row:
    """Whoever watches the metrics is not woken for a store that is well."""
    number = sum(float(each) for each in STORE_ERRORS.findall(place.scrape()))
    return Row("counted meanwhile as a store that is away", 0, round(number))


def delete(place: Place, ids: dict[tuple[str, str], list[str]]) -> list[Row]:
    """One that can't be read stops none of the next."""
    rows = []
    for where in ("Redis", "the history"):
        kinds = zip(*(ids[kind, where] for kind in ("newer", "older", "unwanted")), strict=True)
        mixed = list(itertools.chain(*kinds))
        ended = place.operate("delete", *mixed)
        left = [one for one in mixed if place.client.exists(f"analysis:{{{one}}}")]
        query = "SELECT request_id FROM analyses WHERE record IS NOT NULL AND request_id = ANY(%s)"
        left += [one for (one,) in place.ask(query, mixed)]
        rows.append(judge_deleted(f"of all versions, in {where}: deleted", mixed, left, ended))
    return rows


def judge_deleted(what: str, ids: list[str], left: list[str], ended: Ended) -> Row:
    refused = [line for line in ended.complaints.splitlines() if not line.startswith("{")]
    note = "; ".join([f"exit status {ended.status}", *refused[:2]])
    return Row(what, len(ids), len({*left}) + (ended.status != 0), note)


def _each(what: str, ids: list[str], is_right: Callable[[str], bool]) -> Row:
    return Row(what, len(ids), sum(not is_right(request_id) for request_id in ids))
