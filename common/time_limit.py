"""A total time limit for calls to other people's servers.

An HTTP client's timeout bounds each read, not the call: a server that sends a byte now and then
holds a thread for ever. So these calls run as coroutines on one event loop, in one thread per
process, which cancels them, and closes their connections, when their time is up.
"""

import asyncio
import threading
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
_starting = threading.Lock()


def run_within(seconds: float, call: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from any thread and return its result. Raises: TimeoutError."""
    return asyncio.run_coroutine_threadsafe(_limited(seconds, call), _loop()).result()


async def _limited(seconds: float, call: Coroutine[Any, Any, T]) -> T:
    async with asyncio.timeout(seconds):
        return await call


def _loop() -> asyncio.AbstractEventLoop:
    with _starting:  # two at once would start two loops, and a client works on one alone
        return _started_loop()


@cache
def _started_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="outside-calls", daemon=True).start()
    return loop
