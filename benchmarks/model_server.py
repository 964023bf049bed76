"""OpenAI's side of a benchmark: one process that answers everything after a time that is given.

    python -m benchmarks.model_server --port 9000 --seconds 1 --answer '{"text": "Hello"}'

With `--up-to`, each answer takes any time between the two. With `--ledger`, the id of each call
(X-Client-Request-Id) is written into a file as it comes, a line each.

Written on bare asyncio, so that it takes as little as possible of the cores that are measured. It
knows what the SDK's requests look like, and nothing else of HTTP.
"""

import asyncio
import json
import random
import re
from argparse import ArgumentParser
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
CALL_ID = re.compile(rb"x-client-request-id: *(\S+)", re.IGNORECASE)


def response(text: str) -> dict[str, object]:
    """What the Responses API answers when the model has written this."""
    return {
        "id": "resp_0",
        "object": "response",
        "created_at": 0,
        "model": "benchmark",
        "status": "completed",
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "output": [
            {
                "id": "msg_0",
                "type": "message",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }
        ],
        "usage": {
            "input_tokens": 200,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 80,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 280,
        },
    }


def _answer(body: object) -> bytes:
    text = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


class Counts:
    """What came in and went out, as `GET /counts` tells it."""

    def __init__(self) -> None:
        self.answered = self.running = self.most_running = 0


class Connection(asyncio.Protocol):
    """One client: its requests come one after another."""

    def __init__(
        self, seconds: tuple[float, float], answer: bytes, counts: Counts, ledger: TextIO | None
    ) -> None:
        self._seconds, self._answer, self._counts = seconds, answer, counts
        self._ledger = ledger
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        found = LENGTH.search(head)
        if not end or len(body) < (int(found[1]) if found else 0):
            return
        self._received = b""
        if head.startswith(b"GET"):
            self._transport.write(_answer(vars(self._counts)))
            return
        if self._ledger and (call := CALL_ID.search(head)):
            self._ledger.write(call[1].decode() + "\n")
        counts = self._counts
        counts.running += 1
        counts.most_running = max(counts.most_running, counts.running)
        asyncio.get_running_loop().call_later(random.uniform(*self._seconds), self._respond)

    def _respond(self) -> None:
        self._counts.running -= 1
        self._counts.answered += 1
        if not self._transport.is_closing():
            self._transport.write(self._answer)


async def serve(port: int, seconds: tuple[float, float], text: str, ledger: TextIO | None) -> None:
    """Answer until the process ends."""
    answer, counts = _answer(response(text)), Counts()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(seconds, answer, counts, ledger), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=1.0, help="until each answer")
    parser.add_argument("--up-to", type=float, help="seconds; else all take the same")
    parser.add_argument("--answer", required=True, help="what the model writes, as JSON")
    parser.add_argument("--ledger", type=Path, help="where to write each call's id")
    arguments = parser.parse_args()
    pace = (arguments.seconds, arguments.up_to or arguments.seconds)
    path = arguments.ledger
    with path.open("a", buffering=1) if path else nullcontext() as ledger:
        asyncio.run(serve(arguments.port, pace, arguments.answer, ledger))
