"""The job that every peer runs: read the record, ask the model, write the result.

    GET analysis:{<id>}  →  POST /responses  →  SET analysis:{<id>} … PX

What the product does, without its guarantees: no claim, no attempts counted, no log. It imports
nothing of the product, whose dependencies the peers' environment lacks.
"""

import json
import os
import time
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

from openai import AsyncOpenAI, OpenAI
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from benchmarks.peers.task import INSTRUCTIONS, PeersResult

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")
MODEL = "benchmark"
TTL_MS = 3_600_000
CLIENT_OPTIONS: dict[str, Any] = {"max_retries": 0, "timeout": 60}

REQUEST: dict[str, Any] = {  # as webhook_service/analyst.py makes it
    "model": MODEL,
    "instructions": INSTRUCTIONS,
    "text": {
        "format": {
            "type": "json_schema",
            "name": "analysis",
            "strict": True,
            "schema": PeersResult.model_json_schema(),
        }
    },
    "max_output_tokens": 2000,
    "store": False,
}


class Clients(NamedTuple):
    """One of each for a process, shared by its threads; both open connections as needed."""

    redis: Redis
    openai: OpenAI


_building = Lock()


@cache
def _build() -> Clients:
    return Clients(Redis.from_url(REDIS_URL), OpenAI(**CLIENT_OPTIONS))


def clients() -> Clients:
    """Build the clients in the process that uses them, once: threads ask for them at once."""
    with _building:
        return _build()


def analyse(request_id: str) -> None:
    """Do the job in a thread, a greenlet or a process of its own."""
    redis, openai = clients()
    stored = redis.get(_key(request_id))
    record = _record(stored)
    response = openai.responses.create(input=json.dumps(record["input"]), **REQUEST)
    redis.set(_key(request_id), _completed(record, response.output_text), px=TTL_MS)


async def analyse_async(redis: AsyncRedis, openai: AsyncOpenAI, request_id: str) -> None:
    """Do the job on an event loop."""
    stored = await redis.get(_key(request_id))
    record = _record(stored)
    response = await openai.responses.create(input=json.dumps(record["input"]), **REQUEST)
    await redis.set(_key(request_id), _completed(record, response.output_text), px=TTL_MS)


def _key(request_id: str) -> str:
    return f"analysis:{{{request_id}}}"


def _record(stored: bytes | str | None) -> dict[str, Any]:
    if stored is None:
        raise LookupError("no such record")
    record: dict[str, Any] = json.loads(stored)
    return record


def _completed(record: dict[str, Any], output_text: str) -> str:
    result = PeersResult.model_validate_json(output_text).model_dump()
    return json.dumps(
        {**record, "status": "completed", "result": result, "finishedAtUnix": time.time()}
    )
