"""A poison job, workers that sleep past their leases, and crowds of deliveries of one id."""

import json
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import httpx

from common.record import AnalysisRecord
from tests.chaos.history import read_history
from tests.chaos.report import Row, beyond_bearable
from tests.chaos.site import Site, open_site
from tests.fakes import end_lease
from tests.processes import free_port, wait_for
from tests.toy.task import AnalysisInput


def poison(analyses: int, directory: Path, seed: int, *, is_hurried: bool = False) -> list[Row]:
    """One analysis kills its worker each time, among others that must not suffer for it.

    QStash's redeliveries take minutes; hurried, they come at once and the leases are ended.
    """
    ids = _ids(range(analyses))
    with open_site(directory, seed=seed) as site:
        submissions = site.submissions()
        for number, request_id in enumerate(ids):
            submissions.submit(
                _input("poison" if number == 0 else "sound", number), request_id=request_id
            )
        while is_hurried and not _is_over(site, ids[0]):
            if _is_cut_off(site, ids[0]):
                with site.raw_client() as client:
                    end_lease(client, ids[0])
            with suppress(httpx.TransportError):
                _deliver(site, ids[0])
            time.sleep(0.1)
        site.wait_until_settled(ids, within_seconds=400)
        records = site.raw_records(ids)
        asked = _count(site, "asked")
    poisoned, *others = (records[request_id] or {} for request_id in ids)
    is_over = (poisoned["failure"], poisoned["attempt"]) == ("attempts_exhausted", 3)
    calls = asked[_marker("poison", 0)]
    unfinished = {
        marker: record["failure"] or record["status"]
        for number, record in enumerate(others, 1)
        if record["status"] != "completed" and (marker := _marker("sound", number))
    }
    # Whoever was beside it in the same worker each of the three times ends as it does, even if one
    # of the calls was cut off before the model knew of it.
    dragged = [
        marker
        for marker, why in unfinished.items()
        if why == "attempts_exhausted" and asked[marker] in (2, 3)
    ]
    wrong = [
        f"{marker}: {why}, {asked[marker]} calls"
        for marker, why in unfinished.items()
        if marker not in dragged
    ]
    return [
        Row(
            "a job that kills its worker each time: failed after exactly the most attempts",
            poisoned["attempt"],
            int(not is_over or calls > 3),
            f"{calls} calls",
        ),
        Row(
            "… the others beside it: not completed",
            len(others),
            len(wrong) + beyond_bearable(len(dragged), len(others)),
            "; ".join([f"{len(dragged)} in the same worker all three times", *wrong]),
        ),
    ]


def sleepers_and_crowds(
    deliveries: int, crowds: int, size: int, directory: Path, seed: int
) -> list[Row]:
    """Deliveries that sleep past their leases, and then crowds of them, on one site."""
    # The model answers nobody until it is told to: `_sleepers` does.
    with open_site(
        directory,
        seed=seed,
        threads=max(deliveries, size),
        model_seconds=0.3,
        is_held=True,
        call_seconds=240,
    ) as site:
        return [_sleepers(site, range(deliveries)), _crowds(site, range(1000, 1000 + crowds), size)]


def _sleepers(site: Site, numbers: range) -> Row:
    """Four workers holding deliveries are paused; others take over; then the four wake up.

    The model answers nobody until both calls of each analysis wait for it, and the leases are
    ended at once and not waited for: so the answers that the sleepers wake up to are still within
    their time limit, and every one of them tries to store its own.
    """
    ids = _create(site, numbers)
    with ThreadPoolExecutor(2 * len(ids)) as pool:
        first = [pool.submit(_deliver, site, request_id) for request_id in ids]
        wait_for(lambda: site.calls_running() == len(ids))
        sleeping = site.workers()
        try:
            for worker in sleeping:
                worker.suspend()
            with site.raw_client() as client:
                for request_id in ids:
                    end_lease(client, request_id)
            other = free_port()
            site.start_service(other)
            second = [pool.submit(_deliver, site, request_id, other) for request_id in ids]
            wait_for(lambda: site.calls_running() == 2 * len(ids))
            site.release_answers()
            for delivery in second:
                delivery.result()
            stored = site.raw_records(ids)
        finally:
            site.release_answers()
            for worker in sleeping:
                worker.resume()
        for delivery in first:
            delivery.result()
    history = read_history(site.data)
    after = site.raw_records(ids)
    answered = _count(site, "answered")
    wrong = sum(
        after[request_id] != stored[request_id]
        or sum(raw["status"] == "completed" for raw in history[request_id]) != 1
        or answered[_marker("sound", number)] != 2
        for number, request_id in zip(numbers, ids, strict=True)
    )
    return Row(
        "deliveries that woke up after another had taken over: results overwritten", len(ids), wrong
    )


def _crowds(site: Site, numbers: range, size: int) -> Row:
    """So many deliveries of one id at the same time, for one id after the other."""
    ids = _create(site, numbers)
    all_there = Barrier(size, timeout=60)
    codes: Counter[int] = Counter()
    with ThreadPoolExecutor(size) as pool:
        for request_id in ids:
            jobs = [
                pool.submit(_deliver, site, request_id, when=all_there.wait) for _ in range(size)
            ]
            codes.update(job.result() for job in jobs)
    asked = [_count(site, "asked")[_marker("sound", number)] for number in numbers]
    wrong = sum(count != 1 for count in asked)
    wrong += sum(count for code, count in codes.items() if code not in (200, 503))
    note = f"{sum(asked)} calls for {len(ids)} ids"
    return Row(f"deliveries, {size} of each id at once", codes.total(), wrong, note)


def _is_over(site: Site, request_id: str) -> bool:
    record = site.raw_records([request_id])[request_id]
    return record is None or record["status"] not in ("pending", "processing")


def _is_cut_off(site: Site, request_id: str) -> bool:
    """Whether its worker has died in mid-call: nobody's running attempt may lose its lease."""
    record = site.raw_records([request_id])[request_id] or {}
    has_called = any(line["token"] == record["claimToken"] for line in site.ledger())
    return record["status"] == "processing" and has_called and site.calls_running() == 0


def _create(site: Site, numbers: range) -> list[str]:
    """Store records that are due, of which QStash knows nothing."""
    store, ids = site.store(), _ids(numbers)
    for number, request_id in zip(numbers, ids, strict=True):
        now, at_once = store.now(), timedelta(0)
        record = AnalysisRecord.new(
            request_id,
            _input("sound", number),
            owner_hash=None,
            now=now,
            delay=at_once,
            deadline=site.settings.times.deadline,
        )
        assert store.create(record)
    return ids


def _input(want: str, number: int) -> AnalysisInput:
    return AnalysisInput(name="Ada", age=36, description=f"{_marker(want, number)} about myself")


def _marker(want: str, number: int) -> str:
    return f"marker-{want}-{number}"


def _count(site: Site, event: str) -> Counter[str]:
    """How many calls there were for each marker, or how many were answered."""
    return Counter(line["marker"] for line in site.ledger() if line["event"] == event)


def _deliver(
    site: Site, request_id: str, port: int | None = None, when: Callable[[], object] = lambda: None
) -> int:
    """Deliver as QStash does, as soon as `when` returns, and return the status of the answer."""
    body = json.dumps({"requestId": request_id, "round": 1}).encode()
    url = site.url("/webhook", port)
    # Certificates play no part here, and loading them costs more than the request.
    with httpx.Client(timeout=300, verify=False) as client:
        request = client.build_request("POST", url, content=body, headers=site.sign(body))
        when()
        return client.send(request).status_code


def _ids(numbers: range) -> list[str]:
    return [f"{number:032x}" for number in numbers]
