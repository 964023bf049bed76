"""arq, on one event loop with asyncio's clients. It runs a job at least once.

Source: https://arq-docs.helpmanual.io/
"""

import asyncio
import os
from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import Any

from arq.connections import ArqRedis, RedisSettings, create_pool
from openai import AsyncOpenAI

from benchmarks.peers import job

AT_ONCE = 50  # enqueued together; arq has no bulk call


async def analyse(context: dict[str, Any], request_id: str) -> None:
    await job.analyse_async(context["redis"], context["openai"], request_id)


async def start(context: dict[str, Any]) -> None:
    context["openai"] = AsyncOpenAI(**job.CLIENT_OPTIONS)


class WorkerSettings:
    """What `arq` runs."""

    redis_settings = RedisSettings.from_dsn(job.REDIS_URL)
    functions = (analyse,)
    on_startup = start
    max_jobs = int(os.environ.get("ARQ_MAX_JOBS", "10"))
    poll_delay = float(os.environ.get("ARQ_POLL_DELAY", "0.05"))
    keep_result = 0
    log_results = False


@cache
def _runner() -> asyncio.Runner:
    return asyncio.Runner()


@cache
def _redis() -> ArqRedis:
    return _runner().run(create_pool(WorkerSettings.redis_settings))


async def _enqueue(redis: ArqRedis, request_ids: Iterable[str]) -> None:
    await asyncio.gather(*(redis.enqueue_job("analyse", request_id) for request_id in request_ids))


def enqueue(request_ids: Iterable[str]) -> None:
    """Send the jobs, some at once; each takes two trips to Redis."""
    remaining, redis = iter(request_ids), _redis()
    while some := list(islice(remaining, AT_ONCE)):
        _runner().run(_enqueue(redis, some))
