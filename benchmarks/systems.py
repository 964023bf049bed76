"""What is compared: for each system, the processes that do the work and those that bring it.

Ours is the product itself, with signatures, claims, settling, logs (into a file) and metrics on.
The bare pool needs no records and no Redis: it is the limit. The plain service is ours without its
guarantees. The peers are in `peers/`.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.task import ANSWER
from benchmarks.peers.workers import WORKERS
from common.settings import DEVELOPMENT_TOKEN
from common.task import TASK
from local_stack import qstash_queue
from operations.limit_settings import SPEND_LIMITS
from tests.processes import ROOT, passed_on

PEERS_PYTHON = str(ROOT / ".venv-peers/bin/python")


@dataclass(frozen=True)
class Ports:
    """Where the neighbours and the service listen, on loopback."""

    redis: int
    model: int
    service: int


@dataclass(frozen=True)
class Job:
    """What is to be done: these records, with so many in flight or so many a second."""

    ids: Path
    number: int
    in_flight: int
    rate: float


@dataclass(frozen=True)
class System:
    """`workers` run from before the first job to after the last; `feeders` bring one batch.

    A feeder prints `ready`, waits for a line, brings its jobs, and ends.
    """

    name: str
    workers: Callable[[int, Ports], list[list[str]]]
    feeders: Callable[[Job, Ports], list[list[str]]]
    answer: str = TASK.example_result.model_dump_json(by_alias=True)  # of the model
    has_records: bool = True
    is_called: bool = False  # a service of its own, which answers at /health once it can work
    settings: Mapping[str, str] = field(default_factory=dict)  # more than `environment` has


def environment(ports: Ports) -> dict[str, str]:
    """The settings of all: ours, the SDK's, and the address of Redis."""
    return {
        **passed_on(),
        "PORT": str(ports.service),
        "REDIS_URL": f"redis://127.0.0.1:{ports.redis}/0",
        "QSTASH_URL": "http://127.0.0.1:1",
        "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
        "QSTASH_WEBHOOK_URL": webhook_url(ports),
        "QSTASH_CURRENT_SIGNING_KEY": qstash_queue.CURRENT_SIGNING_KEY,
        "QSTASH_NEXT_SIGNING_KEY": qstash_queue.NEXT_SIGNING_KEY,
        "OPENAI_API_KEY": "benchmark",
        "OPENAI_BASE_URL": f"http://127.0.0.1:{ports.model}/v1",
        "METRICS_TOKEN": "benchmark-benchmark",
        **{name.upper(): "0" for name in SPEND_LIMITS},
    }


def webhook_url(ports: Ports) -> str:
    """Where deliveries go."""
    return f"http://127.0.0.1:{ports.service}/webhook"


def _service(in_flight: int, ports: Ports) -> list[list[str]]:
    config = ["-c", "webhook_service/gunicorn.conf.py", "-b", f"127.0.0.1:{ports.service}"]
    return [[sys.executable, "-m", "gunicorn", *config, "webhook_service:create_app()"]]


def _plain_service(in_flight: int, ports: Ports) -> list[list[str]]:
    pool = ["--worker-class", "gthread", "--workers", "4", "--threads", "512", "--preload"]
    options = [*pool, "--keep-alive", "75", "-b", f"127.0.0.1:{ports.service}"]
    return [[sys.executable, "-m", "gunicorn", *options, "benchmarks.plain:create_app()"]]


def _deliveries(job: Job, ports: Ports) -> list[list[str]]:
    pace = ["--rate", str(job.rate), "--in-flight", str(job.in_flight)]
    url = ["--url", webhook_url(ports), "--ids", str(job.ids)]
    return [[sys.executable, "-m", "benchmarks.deliver", "--keep-alive", *url, *pace]]


def _bare(processes: int) -> System:
    def feeders(job: Job, ports: Ports) -> list[list[str]]:
        share = [
            ("--calls", job.number // processes),
            ("--in-flight", job.in_flight // processes),
            ("--rate", job.rate / processes),
        ]
        command = [sys.executable, "-m", "benchmarks.bare"]
        return [[*command, *(str(word) for pair in share for word in pair)]] * processes

    name = f"bare threads, {processes} process{'es' if processes > 1 else ''}"
    return System(name, lambda *_: [], feeders, has_records=False)


def _peer(name: str) -> System:
    def feeders(job: Job, ports: Ports) -> list[list[str]]:
        feed = [PEERS_PYTHON, "-m", "benchmarks.peers.feed", name]
        return [[*feed, "--ids", str(job.ids), "--rate", str(job.rate)]]

    workers = WORKERS[name]
    return System(
        name,
        lambda number, _: workers(PEERS_PYTHON, number),
        feeders,
        answer=ANSWER.model_dump_json(),
    )


OURS = System("this project", _service, _deliveries, is_called=True)
PLAIN = System("plain service", _plain_service, _deliveries, is_called=True)
BARE = [_bare(1), _bare(2)]
PEERS = [_peer(name) for name in WORKERS]
