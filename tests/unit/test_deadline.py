"""One event loop for a process, however many ask at once."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from common.deadline import run_within
from common.qstash import Queue
from tests.conftest import make_settings
from tests.http_server import answer, serve
from tests.processes import ROOT, wait_for
from webhook_service.analyst import Analyst

MANY_AT_ONCE = """
import asyncio, sys, threading
from common.deadline import run_within

sys.setswitchinterval(1e-6)
loops = set()

async def note():
    loops.add(asyncio.get_running_loop())

start = threading.Barrier(32)
def ask():
    start.wait()
    run_within(5, note())

threads = [threading.Thread(target=ask) for _ in range(32)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(loops))
"""


def test_the_first_calls_of_a_process_share_one_loop() -> None:
    counts = {
        subprocess.check_output([sys.executable, "-c", MANY_AT_ONCE], cwd=ROOT, text=True).strip()
        for _ in range(5)
    }

    assert counts == {"1"}


@pytest.fixture
def server() -> Iterator[str]:
    with serve(answer(200, {"current": "one", "next": "two"})) as server:
        yield server.url


@pytest.mark.parametrize("is_dead", [False, True], ids=["blocked", "dead"])
def test_a_loop_that_does_not_answer_costs_one_call_and_is_replaced(
    server: str, is_dead: bool
) -> None:
    """With real clients, whose connections belong to the old loop."""
    queue = Queue(make_settings(qstash_url=server))
    analyst = Analyst(make_settings(openai_base_url=server, openai_timeout_seconds=1))
    assert queue.signing_keys() == ("one", "two")
    analyst.knows_model()
    opened = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def spoil() -> None:
        loops.append(asyncio.get_running_loop())
        if is_dead:
            asyncio.get_running_loop().stop()
            await asyncio.sleep(60)
        opened.wait(60)

    began = time.monotonic()
    with pytest.raises(TimeoutError):
        run_within(0.2, spoil())

    try:
        assert queue.signing_keys() == ("one", "two")
        analyst.knows_model()
        assert time.monotonic() - began < 20
    finally:
        opened.set()
        end(loops[0])


def end(loop: asyncio.AbstractEventLoop) -> None:
    """Close a loop that was abandoned; in a process that is only done by its end."""
    loop.call_soon_threadsafe(loop.stop)
    wait_for(lambda: not loop.is_running())

    def close() -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        for _ in range(3):  # so that they notice, and what they had open is closed
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()

    closing = threading.Thread(target=close)  # in this one, the browser's loop may be running
    closing.start()
    closing.join()


def test_a_call_that_a_blocked_loop_reaches_too_late_is_not_made() -> None:
    opened, ran = threading.Event(), threading.Event()

    async def block() -> asyncio.AbstractEventLoop:
        opened.wait(60)
        return asyncio.get_running_loop()

    async def late() -> None:
        ran.set()

    loops: list[asyncio.AbstractEventLoop] = []
    blocking = threading.Thread(target=lambda: loops.append(run_within(30, block())))
    blocking.start()
    with pytest.raises(TimeoutError):
        run_within(0.2, late())
    opened.set()
    blocking.join()
    end(loops[0])

    assert not ran.is_set()
