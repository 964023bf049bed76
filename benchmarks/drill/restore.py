"""A backup is restored as docs/operating.md says, and what was erased since stays erased."""

import os
import shutil
import subprocess
from pathlib import Path

import psycopg

from benchmarks.drill.place import Place, open_place
from tests.chaos.report import Row
from tests.postgres import find_binaries

CLAIM = (
    "The database is dumped, analyses are erased, the dump is restored into another, and they are "
    "erased there again before anybody reads it: by the log, and by the database before."
)
NUMBER, ERASED = 10, 4
KEPT = "SELECT request_id FROM analyses WHERE record IS NOT NULL"
TOMBSTONES = "SELECT request_id FROM analyses WHERE status = 'deleted'"
FROM_LOG = r'/"event": "deleted"/s/.*"request_id": "\([0-9a-f]*\)".*/\1/p'  # the guide's, for sed


def run(directory: Path) -> list[Row]:
    with open_place(directory) as place:
        place.operate("stats")  # makes the tables
        place.service.start()
        ids = place.submit(NUMBER)
        place.wait_until_archived(ids)
        erased, dump, log = ids[:ERASED], directory / "dump", directory / "commands.txt"
        postgres("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={place.postgres.url}")
        log.write_text(place.operate("delete", *erased).complaints)
        before = place.postgres.url
        restored = restore(place, dump)
        back = _kept(restored)
        ways = by_log(log), _ids(before, TOMBSTONES)
        place.settings["DATABASE_URL"] = restored
        ended = place.operate("delete", *ways[0])
        place.service.stop()
        place.service.start()
        place.client.flushall()  # only the history is left to be read
        readable = {one for one in ids if place.read(one).status_code == 200}
        rows = judge(ids, erased, ways, [_kept(before), back, _kept(restored), readable])
        rows.append(Row("exit status of what erases again", 1, ended.status, ended.effort))
        return rows


def restore(place: Place, dump: Path) -> str:
    """Restore into a new database, and tell its address."""
    url = place.postgres.url.removesuffix("postgres") + "restored"
    with psycopg.connect(place.postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE restored")
    postgres("pg_restore", "--no-owner", "--exit-on-error", f"--dbname={url}", str(dump))
    return url


def postgres(program: str, *words: str) -> None:
    """Run one of PostgreSQL's own programs."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:{find_binaries()}")
    assert path, f"{program} is missing: apt install postgresql"
    ended = subprocess.run([path, *words], capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr


def by_log(log: Path) -> set[str]:
    """What has been erased, as the lines of the log say."""
    found = subprocess.run(["sed", "-n", FROM_LOG, log], capture_output=True, text=True, check=True)
    return set(found.stdout.split())


def _kept(url: str) -> set[str]:
    return _ids(url, KEPT)


def _ids(url: str, query: str) -> set[str]:
    with psycopg.connect(url) as connection:
        return {request_id for (request_id,) in connection.execute(query.encode())}


def judge(
    ids: list[str], erased: list[str], ways: tuple[set[str], set[str]], kept: list[set[str]]
) -> list[Row]:
    """`kept`: after the erasure, the restoring, the second erasure; and what is read at last."""
    at_first, back, at_last, readable = kept
    gone, others = {*erased}, {*ids} - {*erased}
    log, tombstones = ways
    return [
        Row("erased", len(gone), len(at_first & gone)),
        Row("brought back by the dump", len(back & gone), int(not back & gone)),
        Row("named by the log", len(log), len(log ^ gone)),
        Row(
            "named by the tombstones of the database before",
            len(tombstones),
            len(tombstones ^ gone),
        ),
        Row("erased again, in the restored one", len(gone), len(at_last & gone)),
        Row("erased, and read by a program at last", 0, len(readable & gone)),
        Row("the others, read at last", len(others & readable), len(others - readable)),
    ]
