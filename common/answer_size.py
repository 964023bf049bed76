"""A limit for the size of what other people's servers answer.

An HTTP client reads, and expands, whatever comes: 1.5 MB of gzip become 4 GB. So no compressed
answer is asked for or accepted, and reading ends at the limit.
"""

from collections.abc import Awaitable, Callable
from typing import Any

MAX_ANSWER_BYTES = 4 * 1024 * 1024
UNCOMPRESSED = {"Accept-Encoding": "identity"}


class AnswerTooLarge(Exception):
    """An answer is larger than the limit, or compressed, so that nobody knows how large."""


def read_limited(byte_stream: Callable[[bytes], Any]) -> Callable[[Any], Awaitable[None]]:
    """Make a response hook for a client of httpx or httpx2, whose `ByteStream` is given.

    Hooks are called before the body is read, for an error's as well. Raises: AnswerTooLarge.
    Source: https://www.python-httpx.org/advanced/event-hooks/
    """

    async def read(response: Any) -> None:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise AnswerTooLarge("answer compressed, though identity was asked for")
        body = bytearray()
        stream = response.stream
        async for chunk in stream:
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                raise AnswerTooLarge("answer too large")
        await stream.aclose()
        response.stream = byte_stream(bytes(body))

    return read
