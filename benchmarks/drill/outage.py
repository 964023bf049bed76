"""A database that is away for longer than Redis keeps what has ended."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx

from benchmarks.drill.place import API_KEY, Place, open_place, some_ids
from common.record import AnalysisRecord
from common.store import Store
from common.task import TASK
from tests.chaos.report import Row
from tests.processes import wait_for

CLAIM = (
    "The database is away for longer than `ANALYSIS_TTL_SECONDS`; what ends meanwhile is in the "
    "history soon after it is back, and can be read all the time."
)
TTL_SECONDS = 60  # the smallest that is allowed
AWAY_SECONDS = TTL_SECONDS * 1.25  # after the last of them has ended
BACK_WITHIN = 120.0  # seconds until the history has them all
COMPLETED, CANCELLED, TIMED_OUT = 60, 20, 20
DEADLINE = timedelta(seconds=5)
SCRAPE_EVERY = 5.0
UNARCHIVED = re.compile(r"(?m)^analysis_unarchived ([\d.]+)$")
ENDS = {"completed": "completed", "cancelled": "cancelled", "timed out": "failed"}


@dataclass
class Seen:
    """What ended while the database was away, and what became of it."""

    ids: dict[str, list[str]]  # by how they ended
    unread: dict[str, int]  # how many could not be read when the outage had lasted
    archived: dict[str, str]  # statuses in the history at last
    away_seconds: float = 0.0
    back_seconds: float = 0.0  # until all were there, or nobody waited any more
    listed: int = 0  # analyses that the metrics told of then, as not yet in the history
    refused: int = 0  # deliveries answered 503, as the database was away


def run(directory: Path) -> list[Row]:
    with open_place(directory, ANALYSIS_TTL_SECONDS=str(TTL_SECONDS)) as place:
        place.operate("stats")  # makes the tables
        place.service.start()
        place.wait_until_archived(place.submit(5))
        with scraping(place):
            return judge(outage(place))


def outage(place: Place) -> Seen:
    place.postgres.stop()
    began = time.monotonic()
    ids = {
        "cancelled": put(place, CANCELLED, timedelta(hours=1)),
        "timed out": put(place, TIMED_OUT, timedelta(0)),
        "completed": place.submit(COMPLETED),
    }
    place.operate("cancel", *ids["cancelled"])
    every = [request_id for some in ids.values() for request_id in some]
    for request_id in every:  # whoever reads one that is overdue settles it
        wait_for(lambda request_id=request_id: place.has_ended(request_id), 120)  # type: ignore[misc]
    time.sleep(AWAY_SECONDS)
    unread = {
        how: sum(place.read(request_id).status_code != 200 for request_id in some)
        for how, some in ids.items()
    }
    listed = UNARCHIVED.search(place.scrape())
    place.postgres.start()
    back = time.monotonic()
    with suppress(AssertionError):
        place.wait_until_archived(every, BACK_WITHIN)
    log = place.service.output.splitlines()
    return Seen(
        ids,
        unread,
        place.archived(),
        away_seconds=back - began,
        back_seconds=time.monotonic() - back,
        listed=round(float(listed[1])) if listed else 0,
        refused=sum('"store unavailable"' in line and '"database"' in line for line in log),
    )


def put(place: Place, number: int, delay: timedelta) -> list[str]:
    """Store analyses that nobody delivers; past `DEADLINE` after their time they are overdue."""
    store, ids = Store(place.client, ttl=timedelta(seconds=TTL_SECONDS)), some_ids(number)
    for request_id in ids:
        record = AnalysisRecord.new(
            request_id,
            TASK.example,
            owner_hash=None,
            created_by=API_KEY,
            now=store.now(),
            delay=delay,
            deadline=DEADLINE,
        )
        store.create(record)
    return ids


@contextmanager
def scraping(place: Place) -> Iterator[None]:
    """Read the metrics now and then, as Prometheus does."""
    is_over = threading.Event()

    def scrape() -> None:
        while not is_over.wait(SCRAPE_EVERY):
            with suppress(httpx.HTTPError):
                place.scrape()

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def judge(seen: Seen) -> list[Row]:
    rows = [
        Row(
            f"{how} meanwhile, and in the history at last",
            len(some),
            sum(seen.archived.get(request_id) != ENDS[how] for request_id in some),
            f"{seen.unread[how]} could not be read before",
        )
        for how, some in seen.ids.items()
    ]
    number = sum(len(some) for some in seen.ids.values())
    is_short = seen.away_seconds <= TTL_SECONDS
    return [
        Row("seconds that the database was away", round(seen.away_seconds), int(is_short)),
        *rows,
        Row("read while it was away", number, sum(seen.unread.values())),
        Row("told by the metrics then: not yet in the history", seen.listed, number - seen.listed),
        Row("deliveries told to come again", seen.refused, int(not seen.refused)),
        Row("seconds until the history had them all", round(seen.back_seconds), 0),
    ]
