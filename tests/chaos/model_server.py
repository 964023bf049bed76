"""The model's side of a chaos run: answers, fails as planned, and writes each call into a ledger.

One line a call and event, appended before anything is answered, as JSON: which analysis (by the
marker in its description), the claim token it was made with, and `asked`, `answered` or `failed`.

    python -m tests.chaos.model_server --port 9000 --ledger ledger.jsonl --seed 7
"""

import asyncio
import json
import os
import re
import signal
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from random import Random
from typing import TextIO

import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.fakes import ANALYSIS
from tests.model_replies import response

MARKER = re.compile(r"marker-(\w+)-(\d+)")  # what the run wants of it, and its number
ERRORS = 0.05
DOOMED = "doomed"  # fails each time
POISON = "poison"  # kills the worker that asks, each time
SOUND = "sound"  # never fails


class ModelServer:
    """An OpenAI-compatible endpoint with a ledger."""

    def __init__(self, ledger: TextIO, seed: int, seconds: float, *, is_held: bool) -> None:
        self._ledger, self._seed, self._seconds = ledger, seed, seconds
        self._may_answer = asyncio.Event()
        if not is_held:
            self._may_answer.set()
        self._calls: Counter[str] = Counter()
        self._running = 0
        self.app = Starlette(
            routes=[
                Route("/v1/responses", self.respond, methods=["POST"]),
                Route("/running", self.running),
                Route("/release", self.release, methods=["POST"]),
            ]
        )

    async def respond(self, request: Request) -> Response:
        asked = await request.json()
        found = MARKER.search(json.loads(asked["input"])["description"])
        assert found
        marker, want = found[0], found[1]
        token = request.headers["X-Client-Request-Id"]
        self._calls[marker] += 1
        chance = Random(f"{self._seed} {marker} {self._calls[marker]}")  # the same in each run
        self._write(marker, token, "asked")
        self._running += 1
        try:
            await asyncio.sleep(self._seconds * chance.uniform(0.5, 1.5))
            await self._may_answer.wait()
        finally:
            self._running -= 1
        if want == POISON:
            os.kill(_process_at(request), signal.SIGKILL)
        if want == DOOMED or (chance.random() < ERRORS and want != SOUND):
            self._write(marker, token, "failed")
            return JSONResponse({"error": {"message": "as planned"}}, 503)
        self._write(marker, token, "answered")
        text = ANALYSIS.model_copy(update={"summary": f"Answer to the call {token}."})
        return JSONResponse(response(text.model_dump_json()))

    async def running(self, request: Request) -> Response:
        """How many calls wait for their answer now."""
        return JSONResponse(self._running)

    async def release(self, request: Request) -> Response:
        """Give the answers that were held back, and all further ones at once."""
        self._may_answer.set()
        return JSONResponse(self._running)

    def _write(self, marker: str, token: str, event: str) -> None:
        line = {"marker": marker, "token": token, "event": event}
        self._ledger.write(json.dumps(line) + "\n")
        self._ledger.flush()


def _process_at(request: Request) -> int:
    """The process at the other end of the connection."""
    ends = (tuple(request.scope["client"]), tuple(request.scope["server"]))
    return next(
        connection.pid
        for connection in psutil.net_connections("tcp")
        # Both ends: another process may use the same port of its own to reach something else.
        if (connection.laddr, connection.raddr) == ends and connection.pid
    )


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.2, help="of a call, on average")
    parser.add_argument("--held", action="store_true", help="no answers before POST /release")
    arguments = parser.parse_args()
    with arguments.ledger.open("a") as ledger:
        server = ModelServer(ledger, arguments.seed, arguments.seconds, is_held=arguments.held)
        uvicorn.run(server.app, host="127.0.0.1", port=arguments.port, log_level="warning")
