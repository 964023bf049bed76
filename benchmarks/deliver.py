"""QStash's part in a benchmark: signs a message for each record and delivers it.

    python -m benchmarks.deliver --url http://127.0.0.1:3001/webhook --ids FILE --in-flight 200
    python -m benchmarks.deliver --url … --ids FILE --rate 100

The first keeps so many deliveries in flight until all are done, as flow control does; the second
begins so many a second, whatever the service does. Signing is done beforehand. It prints `ready`,
waits for a line, and ends with a line of JSON: when it began, and how often each status came.
"""

import asyncio
import json
import sys
import time
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from local_stack.qstash_queue import CURRENT_SIGNING_KEY, sign

BACKLOG_PAUSE_SECONDS = 0.05
MAX_PAUSE_SECONDS = 10.0  # of those that are asked for: a benchmark counts refusals, and ends


class Deliverer:
    """Connections to the service, each used again when its delivery has been answered."""

    def __init__(self, url: str, *, keep_alive: bool) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname, parts.port
        self._url, self._path, self._keep_alive = url, parts.path, keep_alive
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.statuses: Counter[str] = Counter()

    def message(self, request_id: str) -> bytes:
        """One whole signed request."""
        body = json.dumps({"requestId": request_id, "round": 1}).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\n"
            f"Host: {self._host}:{self._port}\r\n"
            "Content-Type: application/json\r\n"
            "User-Agent: Upstash-QStash\r\n"
            f"Upstash-Signature: {sign(self._url, body, CURRENT_SIGNING_KEY)}\r\n"
            f"Upstash-Message-Id: msg_{request_id}\r\n"
            "Upstash-Retried: 0\r\n"
            f"Connection: {'keep-alive' if self._keep_alive else 'close'}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def deliver(self, message: bytes) -> None:
        """Send one message, and again while the service's answer says to."""
        while True:
            try:
                status, retry_after = await self._exchange(message)
            except (OSError, asyncio.IncompleteReadError) as error:
                status, retry_after = type(error).__name__, 0.0
            self.statuses[status] += 1
            if status == "200":
                return
            pause = min(retry_after, MAX_PAUSE_SECONDS)
            await asyncio.sleep(max(pause, BACKLOG_PAUSE_SECONDS))

    async def _exchange(self, message: bytes) -> tuple[str, float]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():  # else the service has closed it, being idle
                break
            writer.close()
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "keep-alive":
            self._idle.append((reader, writer))
        else:
            writer.close()
        return head.split()[1], float(headers.get("retry-after", 0))

    async def keep_in_flight(self, messages: list[bytes], number: int) -> None:
        waiting = iter(messages)

        async def one_after_another() -> None:
            for message in waiting:
                await self.deliver(message)

        await asyncio.gather(*(one_after_another() for _ in range(number)))

    async def keep_pace(self, messages: list[bytes], rate: float) -> None:
        loop = asyncio.get_running_loop()
        began, deliveries = loop.time(), []
        for number, message in enumerate(messages):
            await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
            deliveries.append(loop.create_task(self.deliver(message)))
        await asyncio.gather(*deliveries)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--ids", type=Path, required=True, help="one request id a line")
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0, help="a second; 0: keep so many in flight")
    parser.add_argument("--keep-alive", action="store_true")
    arguments = parser.parse_args()
    deliverer = Deliverer(arguments.url, keep_alive=arguments.keep_alive)
    messages = [deliverer.message(request_id) for request_id in arguments.ids.read_text().split()]
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.time()
    if arguments.rate:
        asyncio.run(deliverer.keep_pace(messages, arguments.rate))
    else:
        asyncio.run(deliverer.keep_in_flight(messages, arguments.in_flight))
    print(json.dumps({"began": began, "statuses": deliverer.statuses}), flush=True)
