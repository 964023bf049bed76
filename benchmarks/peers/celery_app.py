"""Celery, with its pool of threads or of greenlets.

Sources: https://docs.celeryq.dev/en/stable/userguide/optimizing.html
https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html
"""

from collections.abc import Iterable

from celery import Celery

from benchmarks.peers import job

app = Celery("peers", broker=job.REDIS_URL)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,  # at least once, as ours; it costs nothing that can be measured
    # 1 is the advice for long tasks, 4 the default; but on Redis a worker that has reserved all it
    # may is slow to fetch again: with 1 a burst of 1,000 jobs takes seven times the ideal.
    worker_prefetch_multiplier=16,
)


@app.task  # type: ignore[untyped-decorator]  # carries no types here
def analyse(request_id: str) -> None:
    job.analyse(request_id)


def enqueue(request_ids: Iterable[str]) -> None:
    """Send the tasks through one producer."""
    with app.producer_or_acquire() as producer:
        for request_id in request_ids:
            analyse.apply_async((request_id,), producer=producer)
