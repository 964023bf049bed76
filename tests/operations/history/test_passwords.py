"""Hundreds of odd passwords: each is used exactly as it is written, or nothing of it is told."""

import random
import traceback
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote, unquote

import pytest

from common.connection import connect
from common.environment import SettingsError
from operations.history.address import database
from operations.history.connections import make_engine
from tests.operations.test_settings import AllSettings, load_with

TRIES = 20  # of each address
SECRET = "QXZJKVWqxzjkvw0123456789"
BETWEEN = [
    *"/@:#?%[]&=+;,\\\"'` {}|^~$!*()<>",
    "%2F",
    "%40",
    "%zz",
    "%ff",
    "ü",
    "字",
    "🖋",
    "://",
    "@b:",
]
Used = dict[str, object]


def passwords(how_many: int) -> Iterator[str]:
    chance = random.Random(7)
    for _ in range(how_many):
        words = ["".join(chance.choices(SECRET, k=chance.randint(4, 9))) for _ in range(3)]
        marks = ["".join(chance.choices(BETWEEN, k=chance.randint(0, 2))) for _ in range(3)]
        yield "".join(part for pair in zip(words, marks, strict=True) for part in pair)


def used_by_the_database(settings: AllSettings) -> Used:
    assert settings.database_url
    engine = make_engine(database(settings.database_url.get_secret_value()).url)
    _, options = engine.dialect.create_connect_args(engine.url)
    return {name: options[name] for name in ("user", "password", "host")}


def used_by_redis(settings: AllSettings) -> Used:
    options = connect(settings).connection_pool.connection_kwargs
    return {name: options[name] for name in ("username", "password", "host") if name in options}


def used_by_nobody(settings: AllSettings) -> Used:
    raise AssertionError("no password is sent there")


DATABASE = {"user": "user", "host": "host"}
BOTH = {"user": "user", "host": "a,b"}
REDIS = {"username": "user", "host": "host"}
UPSTASH = {"username": "default", "host": "x.upstash.io"}
ADDRESSES: list[tuple[str, str, Callable[[AllSettings], Used], Mapping[str, object]]] = [
    ("DATABASE_URL", "postgresql://user:{}@host:5432/name", used_by_the_database, DATABASE),
    (
        "DATABASE_URL",
        "postgres://user:{}@host/name?sslmode=require",
        used_by_the_database,
        DATABASE,
    ),
    ("DATABASE_URL", "postgresql://user:{}@a:1,b:2/name", used_by_the_database, BOTH),
    (
        "DATABASE_URL",
        "postgresql://host/name?user=user&password={}",
        used_by_the_database,
        DATABASE,
    ),
    ("DATABASE_URL", "sqlite://user:{}@host/name", used_by_nobody, {}),
    ("REDIS_URL", "redis://user:{}@host", used_by_redis, REDIS),
    ("REDIS_URL", "rediss://user:{}@host:6379/1?ssl_cert_reqs=none", used_by_redis, REDIS),
    (
        "REDIS_URL",
        "unix:///run/redis?username=user&password={}",
        used_by_redis,
        {"username": "user"},
    ),
    ("UPSTASH_REDIS_REST_TOKEN", "{}", used_by_redis, UPSTASH),
    ("UPSTASH_REDIS_REST_URL", "https://user:{}@x.upstash.io", used_by_nobody, {}),
    ("QSTASH_URL", "https://user:{}@host", used_by_nobody, {}),
    ("QSTASH_WEBHOOK_URL", "https://user:{}@host/webhook", used_by_nobody, {}),
    ("OPENAI_BASE_URL", "https://user:{}@host/v1", used_by_nobody, {}),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:{}@host:4318", used_by_nobody, {}),
]


def told_of(text: str, password: str) -> list[str]:
    """The pieces of four characters of a password that a text has, marks alone excepted."""
    pieces = {password[at : at + 4] for at in range(len(password) - 3)}
    return [each for each in pieces if sum(map(SECRET.count, each)) > 2 and each in text]


def load_or_tell(
    monkeypatch: pytest.MonkeyPatch, given: Mapping[str, str | None]
) -> tuple[AllSettings | None, str]:
    """The settings, or all that a traceback would show."""
    try:
        return load_with(monkeypatch, given), ""
    except SettingsError as error:
        return None, "".join(traceback.format_exception(error))


@pytest.mark.parametrize("is_encoded", [True, False], ids=["encoded", "as it is"])
@pytest.mark.parametrize(("name", "address", "used", "others"), ADDRESSES)
def test_a_password_is_used_as_it_is_written_or_nothing_of_it_is_told(
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    address: str,
    used: Callable[[AllSettings], Used],
    others: Mapping[str, object],
    is_encoded: bool,
) -> None:
    is_token = address == "{}"
    changes = {"REDIS_URL": None, "UPSTASH_REDIS_REST_URL": "https://x.upstash.io"}
    refused = 0
    for password in passwords(TRIES):
        written = quote(password, safe="") if is_encoded else password
        given = (changes if "UPSTASH" in name else {}) | {name: address.format(written)}
        settings, told = load_or_tell(monkeypatch, given)
        if settings is None:
            refused += 1
            assert f"  {name}: " in told
            assert not told_of(told, password) + told_of(told, written)
        else:
            expected = written if is_token else unquote(written)
            assert used(settings) == {"password": expected, **others}, written
            assert not told_of(repr(settings) + str(settings), password)

    if is_encoded and used is not used_by_nobody:
        assert refused == 0, "whatever is encoded is taken"
