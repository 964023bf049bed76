"""Dramatiq, with processes of threads. It acknowledges a message once its actor has returned.

Source: https://dramatiq.io/guide.html
"""

from collections.abc import Iterable

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers import job

dramatiq.set_broker(RedisBroker(url=job.REDIS_URL))


@dramatiq.actor  # type: ignore[untyped-decorator]  # carries no types here
def analyse(request_id: str) -> None:
    job.analyse(request_id)


def enqueue(request_ids: Iterable[str]) -> None:
    """Send the messages one by one; a group does the same."""
    for request_id in request_ids:
        analyse.send(request_id)
