"""The service in gunicorn, whose settings change while it runs."""

import json
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from common.connection import connect
from common.settings import DEVELOPMENT_TOKEN
from common.store import Store
from common.submission import new_request_id
from tests.conftest import WEBHOOK_URL, make_settings, make_store
from tests.fakes import pending
from tests.http_server import serve
from tests.log_lines import logged
from tests.processes import ROOT, bare_environment, wait_for
from tests.product import COMMANDS, GOOD, Server
from tests.tokens import CURRENT, NEXT, token
from tests.zygote import Zygote

FRESH, FRESH_NEXT = f"sig_{'1' * 28}", f"sig_{'2' * 28}"
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
        return logged(self.server.output, event)

    def workers(self) -> set[int]:
        return {child.pid for child in self.server.processes()[1:]}

    def hang_up(self) -> set[int]:
        """Send HUP, and tell who the workers were."""
        wait_for(lambda: len(self.workers()) == 2)
        workers = self.workers()
        self.server.processes()[0].send_signal(signal.SIGHUP)
        return workers

    def wait_until_replaced(self, workers: set[int]) -> None:
        wait_for(lambda: len(self.workers()) == 2 and not self.workers() & workers)

    def reload_during_a_call(self, **changes: str) -> int:
        """Reload while the model is being asked, and return what QStash is answered then."""
        claimed, reloaded = len(self.said("claimed")), len(self.said("settings reloaded"))
        self.may_answer.clear()
        with ThreadPoolExecutor(1) as pool:
            in_flight = pool.submit(self.deliver, CURRENT)
            wait_for(lambda: len(self.said("claimed")) > claimed)
            self.write(**changes)
            old = self.hang_up()
            wait_for(lambda: len(self.said("settings reloaded")) > reloaded)
            wait_for(lambda: len(self.workers() - old) == 2)
            self.may_answer.set()
            answer = in_flight.result(60)
        self.wait_until_replaced(old)
        return answer


@contextmanager
def start_service(
    redis_url: str,
    directory: Path,
    environment: Mapping[str, str] | None = None,
    zygote: Zygote | None = None,
    **settings: str,
) -> Iterator[Service]:
    """Run it with two workers, and these settings besides the core's in `.env`."""
    command = [word if word != "1" else "2" for word in COMMANDS["service"]]
    command[2] = f"{ROOT}/{command[2]}"

    may_answer = threading.Event()

    def model(connection: socket.socket) -> None:
        may_answer.wait(60)
        GOOD(connection)

    with serve(model) as openai:
        settings |= {
            "REDIS_URL": redis_url,
            "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
            "QSTASH_URL": "http://127.0.0.1:1",
            "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
            "QSTASH_CURRENT_SIGNING_KEY": CURRENT,
            "QSTASH_NEXT_SIGNING_KEY": NEXT,
            "OPENAI_BASE_URL": f"{openai.url}/v1",
            "OPENAI_API_KEY": "test",
        }
        variables = bare_environment(directory, **environment or {})
        server = Server(command, variables, directory / "log.txt", directory, zygote=zygote)
        client = connect(make_settings(redis_url=redis_url))
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
