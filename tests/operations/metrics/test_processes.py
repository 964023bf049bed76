"""Metrics of real processes: gunicorn with two workers, and the page."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from common.events import Submitted
from common.failures import Failure
from common.settings import DEVELOPMENT_TOKEN
from common.store import Store
from operations.statistics import connect_statistics
from tests.conftest import WEBHOOK_URL, make_store
from tests.fakes import ID, pending
from tests.http_server import Behaviour, hang, serve
from tests.operations.metrics.test_metrics import BEARER, NOW, TOKEN, Samples, read
from tests.processes import ROOT, bare_environment, free_port, wait_for
from tests.product import COMMANDS, GOOD, Server
from tests.tokens import CURRENT, NEXT, token
from tests.zygote import Zygote

PAGE_SETTINGS = {
    "QSTASH_TOKEN": "token",
    "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
}


@dataclass
class Service:
    """gunicorn with two workers, and what the model answers."""

    server: Server
    store: Store
    model: Behaviour = GOOD

    def deliver(self, request_id: str) -> int:
        record = pending(self.store.now(), NOW, request_id=request_id)
        self.store.create(record)
        self.store.events.emit(Submitted(record))
        body = json.dumps({"requestId": request_id, "round": 1}).encode()
        headers = {"Upstash-Signature": token(WEBHOOK_URL, body), "Connection": "close"}
        url = f"{self.server.url}/webhook"
        return httpx.post(url, content=body, headers=headers, timeout=60).status_code

    def scrape(self) -> Samples:
        return read(httpx.get(f"{self.server.url}/metrics", headers=BEARER, timeout=20).text)

    def log(self) -> list[dict[str, Any]]:
        lines = self.server.output.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def workers(self) -> set[int]:
        (master,) = {line["pid"] for line in self.log() if "Starting gunicorn" in line["event"]}
        return {child.pid for child in psutil.Process(master).children()}


@pytest.fixture
def start_service(
    tmp_path: Path, real_redis: redis.Redis, valkey: str, zygote: Zygote
) -> Iterator[Callable[..., Service]]:
    with serve(lambda connection: service.model(connection)) as openai:
        environment = bare_environment(
            tmp_path,
            REDIS_URL=valkey,
            QSTASH_TOKEN=DEVELOPMENT_TOKEN,
            QSTASH_URL="http://127.0.0.1:1",
            QSTASH_WEBHOOK_URL=WEBHOOK_URL,
            QSTASH_CURRENT_SIGNING_KEY=CURRENT,
            QSTASH_NEXT_SIGNING_KEY=NEXT,
            OPENAI_BASE_URL=f"{openai.url}/v1",
            OPENAI_API_KEY="test",
            METRICS_TOKEN=TOKEN,
            TMPDIR=str(tmp_path),
        )
        command = [word if word != "1" else "2" for word in COMMANDS["service"]]
        store = make_store(real_redis)
        connect_statistics(store)
        server = Server(command, environment, tmp_path / "service.txt", zygote=zygote)
        service = Service(server, store)

        def start(**settings: str) -> Service:
            environment.update(settings)
            service.server.start()
            return service

        yield start
        service.server.stop()


def kill_who_has_claimed(service: Service, request_id: str) -> int:
    """Wait until a worker asks the model for this one, kill it, and tell which it was."""
    wait_for(lambda: service.scrape()["analysis_calls_in_flight"] == 1)
    (victim,) = {line["pid"] for line in service.log() if line.get("request_id") == request_id}
    os.kill(victim, signal.SIGKILL)
    return int(victim)


def test_the_sums_are_right_over_two_workers_and_after_one_was_killed(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = start_service()
    wait_for(lambda: len(service.workers()) == 2)
    first = service.scrape()
    with ThreadPoolExecutor(12) as pool:
        told = list(pool.map(lambda n: service.deliver(f"{n:032x}"), range(24)))
    lines = service.log()
    both = {line["pid"] for line in lines if line["event"] == "settled"}
    before = service.scrape()

    service.model = hang
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(service.deliver, ID)
        victim = kill_who_has_claimed(service, ID)
    assert isinstance(stuck.exception(), httpx.HTTPError)
    wait_for(lambda: service.scrape()["analysis_calls_in_flight"] == 0)
    wait_for(lambda: len(service.workers() - {victim}) == 2)
    service.model = GOOD
    service.deliver("f" * 32)
    after = service.scrape()

    for code in Failure:
        assert first[f"analysis_settled_total{{code={code}}}{{status=failed}}"] == 0, "is there"
    assert set(told) == {200}
    assert len(both) == 2, "both workers had something to count"
    assert before["analysis_settled_total{code=}{status=completed}"] == 24
    assert before["analysis_model_seconds_count{outcome=answered}"] == 24
    assert before["analysis_attempts_total"] == 24
    assert after["analysis_settled_total{code=}{status=completed}"] == 25
    assert after["analysis_attempts_total"] == 26
    assert after["analysis_unfinished"] == 1
    (directory,) = tmp_path.glob("ask-later-metrics-*")
    assert len(list(directory.glob("counter_*.db"))) >= 3

    service.server.stop()

    assert not directory.exists()


def test_the_operators_directory_is_emptied_at_the_start_and_left_at_the_end(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    directory = tmp_path / "shared"
    directory.mkdir()
    (directory / "counter_1.db").write_text("of an earlier run, and unreadable")
    (directory / "notes.txt").write_text("not ours")

    service = start_service(PROMETHEUS_MULTIPROC_DIR=str(directory))
    service.deliver(ID)
    told = service.scrape()
    service.server.stop()

    assert told["analysis_attempts_total"] == 1
    assert not (directory / "counter_1.db").exists()
    assert (directory / "notes.txt").exists()
    assert list(directory.glob("counter_*.db"))
    assert not list(tmp_path.glob("ask-later-metrics-*"))


def test_a_directory_that_cannot_be_written_costs_the_metrics_alone(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    (tmp_path / "a file").touch()
    service = start_service(PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "a file" / "directory"))

    assert service.deliver(ID) == 200
    assert httpx.get(f"{service.server.url}/metrics", headers=BEARER).status_code == 404
    loggers = [line["logger"] for line in service.log()]
    assert loggers.count("operations.metrics_route") == 1, "says why"
    assert "gunicorn.error" in loggers, "written as ours are"


# ── The page ────────────────────────────────────────────────────────────────────────────────


PAGE = """
import sys, time
from common.events import Events, Submitted
from common.logs import start_logging
from operations.metrics_route import serve_metrics
from tests.fakes import pending
start_logging()
for _ in range(2):  # the page may have to connect again: its cache can be emptied
    events = Events()
    serve_metrics(int(sys.argv[1]), events)
    events.emit(Submitted(pending()))
print("ready", flush=True)
time.sleep(60)  # until it is ended
"""


def test_the_page_serves_its_own_on_a_port_and_goes_on_if_that_is_taken(
    tmp_path: Path, zygote: Zygote
) -> None:
    port = free_port()
    logs = [tmp_path / name for name in ("first", "second")]
    pages = []
    for log in logs:
        command = ["-c", PAGE, str(port)]
        pages.append(zygote.start(command, ROOT, bare_environment(tmp_path), log))
        wait_for(lambda log=log: "ready" in log.read_text())  # type: ignore[misc]

    told = read(httpx.get(f"http://127.0.0.1:{port}/metrics").text)

    assert [page.poll() for page in pages] == [None, None]
    for page in pages:
        page.terminate()
        page.wait()
    assert told["analysis_submitted_total"] == 2
    assert ['"event": "metrics not served"' in log.read_text() for log in logs] == [False, True]


def test_the_page_serves_its_metrics_before_anybody_comes_and_can_be_traced(
    tmp_path: Path, valkey: str, zygote: Zygote
) -> None:
    port = free_port()
    settings = {
        **PAGE_SETTINGS,
        "REDIS_URL": valkey,
        "METRICS_PORT": str(port),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
    }
    page = Server(["page"], bare_environment(tmp_path, **settings), tmp_path / "log", zygote=zygote)
    page.start()
    try:
        told = read(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    finally:
        page.stop()

    assert told["analysis_submitted_total"] == 0
    assert '"event": "page started"' in page.output


OPEN_THE_PAGE = """
import os, urllib.request
from streamlit.testing.v1 import AppTest
page = AppTest.from_file("streamlit_app.py", default_timeout=20).run()
assert not page.exception
print(urllib.request.urlopen(f"http://127.0.0.1:{os.environ['METRICS_PORT']}").read().decode())
"""


@pytest.mark.parametrize("shared", ["", "none/there"])
def test_the_real_page_serves_its_metrics_wherever_the_service_shares_its_own(
    valkey: str, tmp_path: Path, zygote: Zygote, shared: str
) -> None:
    settings = {
        **PAGE_SETTINGS,
        "REDIS_URL": valkey,
        "METRICS_PORT": str(free_port()),
        "PROMETHEUS_MULTIPROC_DIR": shared,
    }

    opened = zygote.run(["-c", OPEN_THE_PAGE], ROOT, bare_environment(tmp_path, **settings))

    assert opened.returncode == 0, opened.stderr
    assert read(opened.stdout)["analysis_submitted_total"] == 0
    assert not list(ROOT.glob("*.db"))
