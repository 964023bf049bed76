"""Huey, with threads that wait at Redis (BRPOP). A worker that dies loses what it was at.

Sources: https://huey.readthedocs.io/en/latest/consumer.html
https://huey.readthedocs.io/en/latest/api.html#RedisHuey
"""

from collections.abc import Iterable

from huey import RedisHuey

from benchmarks.peers import job

huey = RedisHuey("peers", url=job.REDIS_URL, results=False)


@huey.task()  # type: ignore[untyped-decorator]  # carries no types here
def analyse(request_id: str) -> None:
    job.analyse(request_id)


def enqueue(request_ids: Iterable[str]) -> None:
    """Send the tasks one by one."""
    for request_id in request_ids:
        analyse(request_id)
