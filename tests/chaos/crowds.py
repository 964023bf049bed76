"""A poison job, workers that sleep past their leases, and crowds of deliveries of one id."""

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path

import httpx

from common.models import MAX_ATTEMPTS, AnalysisInput, AnalysisRecord
from tests.chaos.history import read_history
from tests.chaos.report import Row
from tests.chaos.site import Site, open_site
from tests.processes import free_port, wait_for


def poison(analyses: int, directory: Path, seed: int, *, is_hurried: bool = False) -> list[Row]:
    """One analysis kills its worker each time, among others that must not suffer for it.

    QStash's redeliveries take minutes; hurried, they come at once and the leases are ended.
    """
    ids = _ids(analyses)
    with open_site(directory, seed=seed) as site:
        submissions = site.submissions()
        for number, id in enumerate(ids):
            submissions.submit(_input("poison" if number == 0 else "normal", number), request_id=id)
        while is_hurried and not _is_over(site, ids[0]):
            with suppress(httpx.TransportError), site.raw_client() as client:
                client.delete(f"analysis:{{{ids[0]}}}:lease")
                _deliver(site, ids[0])
        site.wait_until_settled(ids, within_seconds=400)
        records = site.raw_records(ids)
        asked = Counter(line["marker"] for line in site.ledger() if line["event"] == "asked")
    poisoned, *others = (records[id] or {} for id in ids)
    is_over = (poisoned["status"], poisoned["failure"]) == ("failed", "attempts_exhausted")
    calls = asked["marker-poison-0"]
    return [
        Row(
            "a job that kills its worker each time: failed after exactly the most attempts",
            calls,
            int(not is_over or calls != MAX_ATTEMPTS),
        ),
        Row(
            "… the others beside it completed",
            len(others),
            sum(record["status"] != "completed" for record in others),
        ),
    ]


def sleepers(deliveries: int, directory: Path, seed: int) -> Row:
    """Four workers holding deliveries are paused; others take over; then the four wake up.

    The leases are ended at once and not waited for: so the answers that the sleepers wake up to
    are still within their time limit, and every one of them tries to store its own.
    """
    ids = _ids(deliveries)
    seconds = 5 + deliveries / 20  # of a call: half of it must do to send all of them
    with open_site(
        directory, seed=seed, threads=deliveries, model_seconds=seconds, call_seconds=60
    ) as site:
        _create(site, ids)
        with ThreadPoolExecutor(2 * deliveries) as pool:
            first = [pool.submit(_deliver, site, id) for id in ids]
            wait_for(lambda: site.calls_running() >= deliveries)
            sleeping = site.workers()
            for worker in sleeping:
                worker.suspend()
            with site.raw_client() as client:
                client.delete(*(f"analysis:{{{id}}}:lease" for id in ids))
            other = free_port()
            site.start_service(other)
            for delivery in [pool.submit(_deliver, site, id, other) for id in ids]:
                delivery.result()
            stored = site.raw_records(ids)
            for worker in sleeping:
                worker.resume()
            for delivery in first:
                delivery.result()
        history = read_history(site.data)
        after = site.raw_records(ids)
    woke = sum(after[id] == stored[id] for id in ids)
    completions = [sum(raw["status"] == "completed" for raw in history[id]) for id in ids]
    wrong = len(ids) - woke + sum(count != 1 for count in completions)
    return Row(
        "deliveries that woke up after another had taken over: results overwritten", len(ids), wrong
    )


def crowds(ids_count: int, deliveries: int, directory: Path, seed: int) -> Row:
    """So many deliveries of one id at the same time, for one id after the other."""
    ids = _ids(ids_count)
    with open_site(directory, seed=seed, model_seconds=0.3, call_seconds=25) as site:
        _create(site, ids)
        with ThreadPoolExecutor(100) as pool:
            jobs = [pool.submit(_deliver, site, id) for id in ids for _ in range(deliveries)]
            codes = Counter(job.result() for job in jobs)
        asked = Counter(line["marker"] for line in site.ledger() if line["event"] == "asked")
    wrong = sum(count != 1 for count in asked.values()) + len(ids) - len(asked)
    wrong += sum(count for code, count in codes.items() if code not in (200, 503))
    note = f"{sum(asked.values())} calls for {len(ids)} ids"
    return Row(f"deliveries, {deliveries} of each id at once", len(jobs), wrong, note)


def _is_over(site: Site, id: str) -> bool:
    record = site.raw_records([id])[id]
    return record is None or record["status"] not in ("pending", "processing")


def _create(site: Site, ids: list[str]) -> None:
    """Store records that are due, of which QStash knows nothing."""
    store = site.store()
    for number, id in enumerate(ids):
        now, at_once = store.now(), timedelta(0)
        record = AnalysisRecord.new(
            id,
            _input("sound", number),
            owner_hash=None,
            now=now,
            delay=at_once,
            deadline=site.settings.times.deadline,
        )
        assert store.create(record)


def _input(want: str, number: int) -> AnalysisInput:
    return AnalysisInput(name="Ada", age=36, description=f"marker-{want}-{number} about myself")


def _deliver(site: Site, id: str, port: int | None = None) -> int:
    """Deliver as QStash does, and return the status of the answer."""
    body = json.dumps({"requestId": id, "round": 1}).encode()
    url = site.url("/webhook", port)
    # Certificates play no part here, and loading them costs more than the request.
    post = partial(httpx.post, url, content=body, timeout=90, verify=False)
    return post(headers=site.sign(body)).status_code


def _ids(count: int) -> list[str]:
    return [f"{number:032x}" for number in range(count)]
