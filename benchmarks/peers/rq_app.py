"""RQ, which runs one job per process.

Its pool is given SimpleWorker, which doesn't fork for each job: RQ's own benchmark finds that six
times as fast, and only so can the model's client and its connections be kept. The pool also loads
this module as its settings (`--config`), so that the job is imported once and not by each process.

Sources: https://python-rq.org/docs/workers/ (worker pool, performance notes)
https://github.com/rq/rq/blob/master/docs/benchmark.md
"""

from collections.abc import Iterable
from functools import cache

from redis import Redis
from rq import Queue

from benchmarks.peers import job

REDIS_URL = job.REDIS_URL  # a setting of RQ's, as is QUEUES
QUEUES = ["peers"]


@cache
def _queue() -> Queue:
    return Queue(QUEUES[0], connection=Redis.from_url(REDIS_URL))


def enqueue(request_ids: Iterable[str]) -> None:
    """Send the jobs in one pipeline; nobody reads their results."""
    _queue().enqueue_many(
        [Queue.prepare_data(job.analyse, (request_id,), result_ttl=0) for request_id in request_ids]
    )
