"""One event loop for a process, however many ask at once."""

import subprocess
import sys

from tests.processes import ROOT

MANY_AT_ONCE = """
import asyncio, sys, threading
from common.time_limit import run_within

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
