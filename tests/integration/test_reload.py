"""`kill -HUP`: the service takes all new settings, or keeps all old ones and says why."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from gunicorn.config import Config

from common.connection import connect
from common.settings import DEVELOPMENT_TOKEN
from common.store import Store
from common.submission import new_request_id
from tests.conftest import WEBHOOK_URL, make_options, make_settings, make_store
from tests.fakes import pending
from tests.http_server import serve
from tests.operations.metrics.test_metrics import BEARER, TOKEN, read
from tests.operations.tracing.test_tracing import collect
from tests.processes import ROOT, bare_environment, wait_for
from tests.product import COMMANDS, GOOD, Server
from tests.tokens import CURRENT, NEXT, token
from webhook_service import reloading

FRESH, FRESH_NEXT = f"sig_{'1' * 28}", f"sig_{'2' * 28}"
NEVER = "600000"  # milliseconds until spans are sent, unless their process ends before
FRESH_KEYS = {"QSTASH_CURRENT_SIGNING_KEY": FRESH, "QSTASH_NEXT_SIGNING_KEY": FRESH_NEXT}


@dataclass
class Service:
    """gunicorn with two workers, whose settings stand in `.env`."""

    server: Server
    store: Store
    env_file: Path
    settings: dict[str, str]
    may_answer: threading.Event  # the model

    def write(self, **changes: str) -> None:
        """Write `.env`, with these changes to what the service was started with."""
        settings = self.settings | changes
        self.env_file.write_text("".join(f"{name}={settings[name]}\n" for name in settings))

    def deliver(self, key: str) -> int:
        request_id, now = new_request_id(), self.store.now()
        self.store.create(pending(now, timedelta(0), request_id=request_id))
        body = json.dumps({"requestId": request_id, "round": 1}).encode()
        signature = token(WEBHOOK_URL, body, key=key)
        headers = {"Upstash-Signature": signature, "Connection": "close"}
        url = f"{self.server.url}/webhook"
        return httpx.post(url, content=body, headers=headers, timeout=60).status_code

    def said(self, event: str) -> list[dict[str, Any]]:
        lines = self.server.output.splitlines()
        parsed = [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "}"]
        return [line for line in parsed if line["event"].startswith(event)]

    def workers(self) -> set[int]:
        master = psutil.Process(self.said("Starting gunicorn")[0]["pid"])
        return {child.pid for child in master.children()}

    def hang_up(self) -> set[int]:
        """Send HUP, and tell who the workers were."""
        wait_for(lambda: len(self.workers()) == 2)
        workers = self.workers()
        os.kill(self.said("Starting gunicorn")[0]["pid"], signal.SIGHUP)
        return workers

    def wait_until_replaced(self, workers: set[int]) -> None:
        wait_for(lambda: len(self.workers()) == 2 and not self.workers() & workers)

    def attempts(self) -> float:
        text = httpx.get(f"{self.server.url}/metrics", headers=BEARER, timeout=20).text
        return read(text)["analysis_attempts_total"]


@pytest.fixture(scope="module")
def started(valkey: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Started once; each test begins with the settings of its start."""
    directory = tmp_path_factory.mktemp("reload")
    command = [word if word != "1" else "2" for word in COMMANDS["service"]]
    command[2] = f"{ROOT}/{command[2]}"

    may_answer = threading.Event()

    def model(connection: socket.socket) -> None:
        may_answer.wait(60)
        GOOD(connection)

    with serve(model) as openai:
        settings = {
            "REDIS_URL": valkey,
            "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
            "QSTASH_URL": "http://127.0.0.1:1",
            "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
            "QSTASH_CURRENT_SIGNING_KEY": CURRENT,
            "QSTASH_NEXT_SIGNING_KEY": NEXT,
            "OPENAI_BASE_URL": f"{openai.url}/v1",
            "OPENAI_API_KEY": "test",
            "METRICS_TOKEN": TOKEN,
            "PROMETHEUS_MULTIPROC_DIR": str(directory),
        }
        environment = bare_environment(directory, OTEL_BSP_SCHEDULE_DELAY=NEVER)
        server = Server(command, environment, directory / "log.txt", directory)
        client = connect(make_settings(redis_url=valkey))
        env_file = directory / ".env"
        service = Service(server, make_store(client), env_file, settings, may_answer)
        may_answer.set()
        service.write()
        try:
            server.start()
            yield service
        finally:
            may_answer.set()
            server.stop()
            client.close()


@pytest.fixture
def service(started: Service) -> Iterator[Service]:
    yield started
    started.may_answer.set()
    started.write()
    started.wait_until_replaced(started.hang_up())


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        pytest.param({"QSTASH_TOKEN": ""}, "QSTASH_TOKEN: missing", id="missing"),
        pytest.param({"PORT": "3999"}, "PORT: changed; restart the service", id="port"),
    ],
)
def test_a_reload_that_is_not_possible_keeps_all_settings_and_says_why(
    service: Service, changes: dict[str, str], cause: str
) -> None:
    said_before = len(service.said("settings not reloaded"))
    service.write(**FRESH_KEYS, **changes)

    service.wait_until_replaced(service.hang_up())

    assert [service.deliver(key) for key in (CURRENT, FRESH)] == [200, 401]
    (line,) = service.said("settings not reloaded")[said_before:]
    assert cause in line["cause"]


def test_a_reload_takes_new_settings_and_answers_the_calls_in_flight(service: Service) -> None:
    before = service.attempts()
    claimed, reloaded = len(service.said("claimed")), len(service.said("settings reloaded"))
    service.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        in_flight = pool.submit(service.deliver, CURRENT)
        wait_for(lambda: len(service.said("claimed")) > claimed)
        service.write(**FRESH_KEYS, LOG_LEVEL="WARNING")
        old = service.hang_up()
        wait_for(lambda: len(service.said("settings reloaded")) > reloaded)
        wait_for(lambda: len(service.workers() - old) == 2)
        service.may_answer.set()
        answer = in_flight.result(60)
    service.wait_until_replaced(old)

    answers = [service.deliver(key) for key in (FRESH, FRESH_NEXT, CURRENT)]

    assert answer == 200
    assert answers == [200, 200, 401]
    assert service.attempts() - before == 3, "what was counted before the reload stays"
    assert len(service.said("claimed")) == claimed + 1, "the level of the log is new, too"


def test_traces_go_where_the_new_settings_say_and_those_of_the_old_workers_arrive(
    service: Service,
) -> None:
    with collect() as first, collect() as second:
        for collector in (first, second):
            service.write(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
            service.wait_until_replaced(service.hang_up())
            assert service.deliver(CURRENT) == 200
        service.wait_until_replaced(service.hang_up())

        for collector in (first, second):
            wait_for(lambda collector=collector: len(collector.named("deliver")) == 1)  # type: ignore[misc]
            assert collector.named("ask the model")


def test_gunicorn_tells_before_a_reload_whether_its_configuration_can_be_read(
    started: Service, tmp_path: Path
) -> None:
    def check(file: Path) -> int:
        check = ["-m", "gunicorn", "--check-config", "-c", str(file), COMMANDS["service"][-1]]
        environment = bare_environment(tmp_path, **started.settings)
        return subprocess.run([sys.executable, *check], cwd=ROOT, env=environment).returncode

    ours, changed = ROOT / "webhook_service" / "gunicorn.conf.py", tmp_path / "gunicorn.conf.py"
    changed.write_text(f"{ours.read_text()}\nworkers = 'many'\n")

    assert check(ours) == 0
    assert check(changed) == 1


def test_an_application_that_can_not_be_made_leaves_the_old_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Application(SimpleNamespace):
        def load(self) -> object:
            raise ValueError("hunter2 is no such parameter")

    old = reloading.Loaded(make_settings(), make_options())
    new = reloading.Loaded(make_settings(port=3002), make_options())
    configuration = Config()
    monkeypatch.setattr(reloading, "_in_use", reloading.InUse(old, configuration))
    monkeypatch.setattr(reloading, "_read", new)
    app = Application(callable="the old one", cfg=Config())
    served: list[Config] = []
    server = SimpleNamespace(app=app, cfg=app.cfg, setup=lambda app: served.append(app.cfg))

    reloading.make_application_anew(server)

    assert app.callable == "the old one"
    assert served == [configuration]
    assert reloading.current_settings() is old
    assert '"settings not reloaded", "cause": "ValueError"' in caplog.text
    assert "hunter2" not in caplog.text
