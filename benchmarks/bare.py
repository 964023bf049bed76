"""The limit: a pool of threads that makes the same calls with the same SDK, and nothing else.

python -m benchmarks.bare --calls 1000 --in-flight 200
"""

import json
import os
import sys
import time
from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai

from common.task import TASK
from webhook_service.analyst import FORMAT

REQUEST: dict[str, Any] = {
    "model": "benchmark",
    "instructions": TASK.instructions,
    "input": TASK.example.model_dump_json(by_alias=True),
    "text": {"format": FORMAT},
    "max_output_tokens": 2000,
    "store": False,
}


def call(client: openai.OpenAI, due_at: float) -> float:
    """Call once, not before it is due; tell when the answer was there and checked."""
    time.sleep(max(0.0, due_at - time.time()))
    response = client.responses.create(**REQUEST)
    TASK.result.model_validate_json(response.output_text)
    return time.time()


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--rate", type=float, default=0, help="a second; 0: as fast as may be")
    arguments = parser.parse_args()
    client = openai.OpenAI(max_retries=0, timeout=60)
    with ThreadPoolExecutor(arguments.in_flight) as pool:
        list(pool.map(call, [client] * arguments.in_flight, [0.0] * arguments.in_flight))
        print("ready", flush=True)
        sys.stdin.readline()
        began, cpu = time.time(), time.process_time()
        gap = 1 / arguments.rate if arguments.rate else 0.0
        dues = [began + gap * number for number in range(arguments.calls)]
        finished = list(pool.map(call, [client] * arguments.calls, dues))
    told = {"began": began, "finished": finished, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps({**told, "pid": os.getpid()}), flush=True)
