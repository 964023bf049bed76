"""Thousands of analyses through the API, while the services are replaced, killed and replaced."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import httpx

from benchmarks.scale.site import API_KEY, Site
from common.task import TASK

SUBMITTERS = 6
PATIENCE_SECONDS = 120.0  # of who submits
PAUSE_SECONDS = 0.5


@dataclass
class Story:
    """What was taken, and what happened meanwhile; seconds count from the beginning."""

    began: float = field(default_factory=time.time)
    accepted: dict[str, str] = field(default_factory=dict)  # request ids, by Idempotency-Key
    answers: Counter[str] = field(default_factory=Counter)  # to the submitters
    events: list[tuple[float, str]] = field(default_factory=list)

    def note(self, event: str) -> None:
        self.events.append((time.time() - self.began, event))


def submit_all(site: Site, number: int, story: Story, pause_seconds: float = 0) -> None:
    """Submit so many through the proxy; who gets no answer sends the same again.

    Each submitter pauses before the next.
    """

    def submit(first: int) -> None:
        # From an address of their own, as the proxy limits the requests of each.
        way = httpx.HTTPTransport(local_address=f"127.0.1.{first + 1}")
        headers = {"Authorization": f"Bearer {API_KEY}"}
        with httpx.Client(transport=way, headers=headers, timeout=30) as client:
            for index in range(first, number, SUBMITTERS):
                key = f"scale-{index}"
                if request_id := _submit(client, site.proxy.url, key, story):
                    story.accepted[key] = request_id
                time.sleep(pause_seconds)

    with ThreadPoolExecutor(SUBMITTERS) as pool:
        list(pool.map(submit, range(SUBMITTERS)))
    story.note(f"the last of {number:,} taken")


def _submit(client: httpx.Client, url: str, key: str, story: Story) -> str | None:
    example = TASK.examples[hash(key) % len(TASK.examples)]
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up_at:
        try:
            answer = client.post(
                f"{url}/analyze",
                json=example.model_dump(mode="json", by_alias=True),
                headers={"Idempotency-Key": key},
            )
        except httpx.TransportError as error:
            story.answers[type(error).__name__] += 1
        else:
            story.answers[str(answer.status_code)] += 1
            if answer.status_code == 202:
                return str(answer.json()["requestId"])
        time.sleep(PAUSE_SECONDS)
    return None


def upset(site: Site, number: int, story: Story, is_over: threading.Event) -> None:
    """Replace, kill and replace the services, each at its part of all submissions and calls."""
    steps: list[tuple[float, str, Callable[[], None]]] = [
        (0.15, "service 1 replaced by the other version", lambda: _replace(site, 0)),
        (0.6, "service 2 killed with its workers, and started again", lambda: _kill(site, 1)),
        (0.8, "service 2 replaced by the other version", lambda: _replace(site, 1)),
    ]
    for share, event, step in steps:
        while len(story.accepted) + len(site.calls()) < share * 2 * number:
            if is_over.wait(0.2):
                return
        step()
        story.note(event)


def _replace(site: Site, index: int) -> None:
    site.services[index].stop()
    site.services[index] = site.newer[index]
    site.services[index].start()


def _kill(site: Site, index: int) -> None:
    now = time.time()
    site.killed.update(dict.fromkeys(site.services[index].kill(), now))
    site.services[index].start()


def wait_until_settled(site: Site, ids: list[str], within_seconds: float) -> None:
    """Wait until nothing is unfinished, and the history has it; else the check tells.

    What the history couldn't take at once, it gets with the next delivery. A program polls what it
    waits for, and so heals a publish that never happened.
    """
    give_up_at = time.monotonic() + within_seconds
    headers = {"Authorization": f"Bearer {API_KEY}"}
    while time.monotonic() < give_up_at:
        records = [record for record in site.records(ids).values() if record]
        unfinished = [r for r in records if r["status"] in ("pending", "processing")]
        if not unfinished and site.archived().keys() >= {*ids}:
            return
        for record in itertools.islice((r for r in unfinished if not r["messageId"]), 20):
            httpx.get(f"{site.proxy.url}/analyze/{record['requestId']}", headers=headers)
        time.sleep(1)
