"""A backup is restored, and what was erased since stays erased."""

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.drill.place import Place, open_place
from tests.chaos.report import Row
from tests.postgres import find_binaries

CLAIM = (
    "The database is dumped, analyses are erased, the dump is restored, and they are erased again "
    "as the guide says: nobody can read them."
)
NUMBER, ERASED = 10, 4
KEPT = "SELECT request_id FROM analyses WHERE record IS NOT NULL"


def run(directory: Path) -> list[Row]:
    with open_place(directory) as place:
        place.operate("stats")  # makes the tables
        place.service.start()
        ids = place.submit(NUMBER)
        place.wait_until_archived(ids)
        erased, dump = ids[:ERASED], directory / "dump"
        postgres(place, "pg_dump", "--format=custom", f"--file={dump}")
        first = place.operate("delete", *erased)
        at_first = _kept(place)
        postgres(place, "pg_restore", "--clean", "--if-exists", str(dump))
        back = _kept(place)
        again = place.operate("delete", *erased)
        readable = {request_id for request_id in ids if place.read(request_id).status_code == 200}
        statuses = first.status, again.status
        return judge(ids, erased, [at_first, back, _kept(place), readable], statuses)


def postgres(place: Place, program: str, *words: str) -> None:
    """Run one of PostgreSQL's own programs on the database."""
    path = shutil.which(program, path=f"{os.environ['PATH']}:{find_binaries()}")
    assert path, f"{program} is missing: apt install postgresql"
    ended = subprocess.run(
        [path, *words, f"--dbname={place.postgres.url}"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


def _kept(place: Place) -> set[str]:
    return {request_id for (request_id,) in place.ask(KEPT)}


def judge(
    ids: list[str], erased: list[str], kept: list[set[str]], statuses: tuple[int, int]
) -> list[Row]:
    """`kept`: what was there after the erasure, the restoring, the second erasure; what is read."""
    at_first, back, at_last, readable = kept
    others = {*ids} - {*erased}
    return [
        Row("erased", len(erased), len(at_first & {*erased}) + statuses[0]),
        Row("brought back by the dump", len(back & {*erased}), int(not back & {*erased})),
        Row("erased again", len(erased), len(at_last & {*erased}) + statuses[1]),
        Row("erased, and read by a program at last", 0, len(readable & {*erased})),
        Row("the others, read at last", len(others & readable), len(others - readable)),
    ]
