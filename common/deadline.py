"""A total time limit for calls to other people's servers.

An HTTP client's timeout bounds each read, not the call: a server that sends a byte now and then
holds a thread for ever. So these calls run as coroutines on one event loop, in one thread per
process, which cancels them, and closes their connections, when their time is up.

The caller's own wait is bounded too: a loop that is blocked or has ended is replaced by another.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

MARGIN_SECONDS = 1.0  # for a busy machine, before the loop is suspected
T = TypeVar("T")


class _LoopThread:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self.loop.run_forever, name="outside-calls", daemon=True
        )
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self.loop.is_closed()

    def responds(self) -> bool:
        """Whether the loop runs what it is given, within a second."""
        ran = threading.Event()
        self.loop.call_soon_threadsafe(ran.set)
        return ran.wait(MARGIN_SECONDS)


_choosing = threading.Lock()
_current: _LoopThread | None = None


class PerLoop(Generic[T]):
    """A client for each event loop: open connections can't move from one loop to another.

    The first is made at once, as that is slow, and belongs to the first loop that asks for it.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._spare: list[T] = [make()]
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, T] = WeakKeyDictionary()

    def get(self) -> T:
        """The client of the running loop. Call it in a coroutine."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = self._spare.pop() if self._spare else self._make()
        return self._clients[loop]


def run_within(seconds: float, call: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from any thread and return its result. Raises: TimeoutError."""
    thread = _living_thread()
    deadline = time.monotonic() + seconds
    future = asyncio.run_coroutine_threadsafe(_limited(deadline, call), thread.loop)
    try:
        return future.result(seconds + MARGIN_SECONDS)
    except TimeoutError:
        if not future.done():
            future.cancel()
            if not (thread.is_alive() and thread.responds()):
                _replace(thread)
        raise


async def _limited(deadline: float, call: Coroutine[Any, Any, T]) -> T:
    """Run the call until the deadline; a blocked loop may come to it only when that has passed."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        call.close()
        raise TimeoutError
    async with asyncio.timeout(seconds):
        return await call


def _living_thread() -> _LoopThread:
    global _current
    with _choosing:  # two at once would start two loops
        if _current is None or not _current.is_alive():
            _current = _LoopThread()
        return _current


def _replace(thread: _LoopThread) -> None:
    """Abandon a loop: whoever calls next gets another. Other calls may still end on the old one."""
    global _current
    with _choosing:
        if _current is thread:
            _current = None
