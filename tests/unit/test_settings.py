"""The environment: every variable checked at start, and all problems named at once."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import proxy_bypass

import hypothesis
import pytest
from hypothesis import given

from common import addresses, environment
from common.addresses import is_loopback
from common.connection import SOCKET_TIMEOUT_SECONDS, connect
from common.environment import Part, SettingsError, given_names, load
from common.settings import (
    DEVELOPMENT_SIGNING_KEYS,
    DEVELOPMENT_TOKEN,
    PageSettings,
    ServiceSettings,
    Settings,
)
from common.times import QSTASH_DELIVERIES, TimeLadder
from docs import settings_table
from tests.addresses import SEARCHED, assert_named_and_not_quoted, parameters
from tests.addresses import addresses as addresses_of
from tests.conftest import make_settings
from tests.processes import ROOT

GOOD = {
    "REDIS_URL": "redis://127.0.0.1:6379/0",
    "QSTASH_TOKEN": "token",
    "QSTASH_WEBHOOK_URL": "https://service.example/webhook",
    "QSTASH_CURRENT_SIGNING_KEY": "sig_current_of_this_test",
    "QSTASH_NEXT_SIGNING_KEY": "sig_next_of_this_test",
    "OPENAI_API_KEY": "key",
}


def set_variables(
    monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str | None] | None = None
) -> None:
    """Set those of a good environment, some of them changed; None removes one."""
    for name, value in {**GOOD, **(changes or {})}.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def load_with(
    monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str | None] | None = None
) -> ServiceSettings:
    set_variables(monkeypatch, changes)
    return load(ServiceSettings)


def test_the_defaults_are_those_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_with(monkeypatch)

    assert settings.qstash_delay == timedelta(seconds=60)
    assert settings.ttl == timedelta(hours=1)
    assert settings.port == 3001
    assert settings.failure_callback_url == "https://service.example/webhook/failure"


def test_every_missing_variable_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load(ServiceSettings)

    named = set(re.findall(r"^  ([A-Z_]+): missing", str(caught.value), re.MULTILINE))
    assert named == set(GOOD)


def test_the_page_needs_neither_openai_nor_signing_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "QSTASH_TOKEN", "QSTASH_WEBHOOK_URL"):
        monkeypatch.setenv(name, GOOD[name])

    assert load(Settings).qstash_delay == timedelta(seconds=60)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("REDIS_URL", "https://name.upstash.io"),
        ("REDIS_URL", "redis://:hunter/2@127.0.0.1:6379"),
        ("REDIS_URL", "rediss://default:hunter#2@host:6379"),
        ("REDIS_URL", "redis://[host"),
        ("REDIS_URL", "redis://127.0.0.1:70000"),
        ("ANALYSIS_TTL_SECONDS", "soon"),
        ("ANALYSIS_TTL_SECONDS", "0"),
        ("QSTASH_TOKEN", '"quoted"'),
        ("QSTASH_TOKEN", "with\nnewline"),
        ("QSTASH_TOKEN", "schlüssel"),
        ("QSTASH_CURRENT_SIGNING_KEY", ""),
        ("QSTASH_NEXT_SIGNING_KEY", ""),
        ("QSTASH_NEXT_SIGNING_KEY", " "),
        ("QSTASH_URL", "qstash.upstash.io"),
        ("QSTASH_WEBHOOK_URL", "ftp://service.example/webhook"),
        ("QSTASH_WEBHOOK_URL", "https:///webhook"),
        ("QSTASH_WEBHOOK_URL", "https://service.example"),
        ("QSTASH_WEBHOOK_URL", "https://service.example/webhook/"),
        ("QSTASH_WEBHOOK_URL", "https://service.example:port/webhook"),
        ("QSTASH_DELAY", "a minute"),
        ("QSTASH_DELAY", "-5s"),
        ("QSTASH_DELAY", "8d"),
        ("QSTASH_PARALLELISM", "0"),
        ("OPENAI_API_KEY", " "),
        ("OPENAI_BASE_URL", "localhost:8081"),
        ("OPENAI_BASE_URL", "http://localhost:v1"),
        ("OPENAI_BASE_URL", "https://llm.example/v1?api-version=1"),
        ("OPENAI_MODEL", "two words"),
        ("OPENAI_REASONING_EFFORT", "hard"),
        ("OPENAI_MAX_OUTPUT_TOKENS", "15"),
        ("OPENAI_MAX_OUTPUT_TOKENS", "many"),
        ("OPENAI_TIMEOUT_SECONDS", "0"),
        ("OPENAI_TIMEOUT_SECONDS", "nan"),
        ("OPENAI_TIMEOUT_SECONDS", "inf"),
        ("PORT", "70000"),
        ("API_KEYS", "plain-key"),
        ("API_KEYS", f"two words:{'a' * 64}"),
        ("API_KEYS", f"app:{'a' * 64},web:{'a' * 64}"),
        ("API_KEYS", f"app:{sha256(b'').hexdigest()}"),
        ("API_RATE_LIMIT", "-1"),
        ("API_RATE_LIMIT", "often"),
        ("TRUSTED_PROXIES", "-1"),
        ("TRUSTED_PROXIES", "all"),
    ],
)
def test_a_malformed_variable_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(monkeypatch, {name: value})

    assert_named_and_not_quoted(caught.value, name, value)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        pytest.param(name, value, problem, id=f"{name.lower()}-{case}")
        for name, case, value, problem in [
            ("REDIS_URL", "unknown", "redis://host?foo=hunter2", "a parameter, number 1, that"),
            ("REDIS_URL", "db", "redis://host?db=hunter2", "wrong value for the parameter db"),
            (
                "REDIS_URL",
                "protocol",
                "redis://host?protocol=4",
                "value for the parameter protocol",
            ),
            (
                "REDIS_URL",
                "certificates",
                "rediss://host?ssl_cert_reqs=CERT_NONE",
                "wrong value for the parameter ssl_cert_reqs",
            ),
            (
                "REDIS_URL",
                "no TLS",
                "redis://host?ssl_cert_reqs=none",
                "parameter ssl_cert_reqs: begin with rediss://",
            ),
            ("REDIS_URL", "twice", "redis://host?db=1&db=2", "has the parameter db twice"),
            (
                "REDIS_URL",
                "no file",
                "rediss://host?ssl_ca_certs=/hunter2",
                "parameter ssl_ca_certs",
            ),
            (
                "REDIS_URL",
                "key alone",
                f"rediss://host?ssl_keyfile={__file__}",
                "without ssl_certfile",
            ),
            ("REDIS_URL", "path", "redis://host/hunter2", "a path that is no database number"),
            ("REDIS_URL", "no host", "redis://:hunter2@/0", "names no host"),
            ("REDIS_URL", "no address", "redis://", "names no host"),
            ("REDIS_URL", "port 0", "redis://host:0", "no valid host and port"),
            ("REDIS_URL", "no port", "redis://host:", "no valid host and port"),
            ("REDIS_URL", "label", "redis://a..b", "no valid host and port"),
            ("REDIS_URL", "long label", f"redis://{'a' * 64}.example", "no valid host and port"),
            ("REDIS_URL", "encoded host", "redis://ho%20st", "no valid host and port"),
            ("REDIS_URL", "four numbers", "redis://999.1.1.1", "no valid host and port"),
            ("REDIS_URL", "space", "redis://:hunter2 @host", "holds a space"),
            ("REDIS_URL", "space behind", "redis://host/0 ", "holds a space"),
            ("REDIS_URL", "tab", "redis://ho\tst", "holds a space"),
            ("REDIS_URL", "fragment", "redis://hunter2#x@host", "holds a # or @"),
            ("REDIS_URL", "question mark", "redis://host:1?hunter2=@host", "holds a # or @"),
            ("REDIS_URL", "odd name", "redis://host?hunter2%40=x", "a parameter, number 1"),
            ("REDIS_URL", "socket", "unix://host/socket", "unix:/// and the path"),
            ("REDIS_URL", "long socket", f"unix:///{'a' * 107}", "unix:/// and the path"),
            ("UPSTASH_REDIS_REST_URL", "port", "https://x.upstash.io:6379", "a port or path"),
            ("UPSTASH_REDIS_REST_URL", "path", "https://x.upstash.io/hunter2", "a port or path"),
            (
                "UPSTASH_REDIS_REST_URL",
                "user",
                "https://hunter2@x.upstash.io",
                "a user or password",
            ),
            ("QSTASH_URL", "path", "https://qstash.upstash.io/v2/publish/", "without /v2"),
            ("QSTASH_URL", "user", "https://:hunter2@qstash.upstash.io", "a user or password"),
            (
                "QSTASH_WEBHOOK_URL",
                "user",
                "https://u:hunter2@x.example/webhook",
                "user or password",
            ),
            (
                "QSTASH_WEBHOOK_URL",
                "query",
                "https://x.example/?hunter2=/webhook",
                "holds a ? or #",
            ),
            ("QSTASH_WEBHOOK_URL", "fragment", "https://x.example/#/webhook", "holds a ? or #"),
            (
                "OPENAI_BASE_URL",
                "query",
                "https://x.example/v1?api-version=hunter2",
                "holds a ? or #",
            ),
            ("OPENAI_BASE_URL", "fragment", "https://x.example/v1#", "holds a ? or #"),
            ("OPENAI_BASE_URL", "host", "https://999.1.1.1/v1", "no valid host and port"),
        ]
    ],
)
def test_an_address_that_no_client_can_use_is_told_at_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(monkeypatch, {"UPSTASH_REDIS_REST_TOKEN": "token", name: value})

    (told,) = str(caught.value).splitlines()[1:]
    assert told.startswith(f"  {name}: ")
    assert problem in told
    assert "hunter" not in told


def redis_connection(settings: Settings) -> Any:
    """A connection as the client makes it, which has not connected yet."""
    return connect(settings).connection_pool.make_connection()


@pytest.mark.parametrize(
    ("value", "host", "database"),
    [
        pytest.param("REDIS://Host/2", "host", 2, id="scheme in capitals"),
        pytest.param("redis://host/", "host", 0, id="empty path"),
        pytest.param("redis://[::1]:7000?db=3", "::1", 3, id="IPv6"),
        pytest.param("rediss://:a%2Fb@host?ssl_cert_reqs=none", "host", 0, id="certificate"),
        pytest.param("redis://host?socket_timeout=abc&family=6&db=1", "host", 1, id="left out"),
    ],
)
def test_an_address_of_redis_is_tidied(
    monkeypatch: pytest.MonkeyPatch, value: str, host: str, database: int
) -> None:
    made = redis_connection(load_with(monkeypatch, {"REDIS_URL": value}))

    assert (made.host, made.db) == (host, database)
    assert made.socket_timeout == SOCKET_TIMEOUT_SECONDS


def test_a_socket_of_redis_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    made = redis_connection(load_with(monkeypatch, {"REDIS_URL": "unix:///run/redis.sock?db=1"}))

    assert made.path == "/run/redis.sock"


def test_what_is_left_out_of_an_address_is_logged_by_name_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connect(load_with(monkeypatch, {"REDIS_URL": "redis://host?family=hunter2&timeout=1&family=2"}))

    (event,) = [json.loads(line) for line in caplog.text.splitlines()]
    assert event["event"] == "parameters left out"
    assert event["cause"] == "REDIS_URL: family, timeout"
    assert "hunter2" not in caplog.text


PARAMETER = parameters(
    *("db=1", "protocol=3", "ssl_cert_reqs=none"),
    names=[*addresses.REDIS_TLS, "db", "foo"],
)


@given(address=addresses_of(("redis", "REDISS", "unix"), PARAMETER))
@hypothesis.settings(SEARCHED)
def test_nothing_but_a_sentence_comes_of_a_wrong_address(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    try:
        settings = load_with(monkeypatch, {"REDIS_URL": address})
    except SettingsError:
        return

    host = redis_connection(settings).host or ""
    host.encode("idna")  # as looking the name up does


def test_redis_is_reached_over_tcp_with_the_upstash_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_with(
        monkeypatch,
        {
            "REDIS_URL": None,
            "UPSTASH_REDIS_REST_URL": "https://eu1-name.upstash.io",
            "UPSTASH_REDIS_REST_TOKEN": "to/ken=",
        },
    )

    url = settings.redis_url.get_secret_value()
    assert url == "rediss://default:to%2Fken%3D@eu1-name.upstash.io:6379"


@pytest.mark.parametrize(("given", "missing"), [("URL", "TOKEN"), ("TOKEN", "URL")])
def test_half_an_upstash_pair_is_not_enough(
    monkeypatch: pytest.MonkeyPatch, given: str, missing: str
) -> None:
    half = {"REDIS_URL": None, f"UPSTASH_REDIS_REST_{given}": "https://name.upstash.io"}

    with pytest.raises(SettingsError, match=f"UPSTASH_REDIS_REST_{missing} is missing"):
        load_with(monkeypatch, half)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param(
            {"QSTASH_URL": "http://127.0.0.1:8080"},
            "QSTASH_TOKEN: is a real token, and QSTASH_URL is a stand-in",
            id="real token, stand-in's URL",
        ),
        pytest.param(
            {"QSTASH_TOKEN": DEVELOPMENT_TOKEN},
            "QSTASH_TOKEN: is the public development token",
            id="stand-in's token, real URL",
        ),
        pytest.param(
            {"QSTASH_WEBHOOK_URL": "https://localhost/webhook"},
            "QSTASH_WEBHOOK_URL: is on this machine",
            id="loopback webhook, real QStash",
        ),
        pytest.param(
            {"QSTASH_WEBHOOK_URL": "http://service.example/webhook"},
            "QSTASH_WEBHOOK_URL: needs https",
            id="http webhook, real QStash",
        ),
        pytest.param(
            {"QSTASH_WEBHOOK_URL": "https://127.0.0.2/webhook"},
            "QSTASH_WEBHOOK_URL: is on this machine",
            id="another loopback address, real QStash",
        ),
        pytest.param(
            {"QSTASH_CURRENT_SIGNING_KEY": DEVELOPMENT_SIGNING_KEYS[0]},
            "QSTASH_CURRENT_SIGNING_KEY: is a public development key",
            id="stand-in's current key, real QStash",
        ),
        pytest.param(
            {"QSTASH_NEXT_SIGNING_KEY": DEVELOPMENT_SIGNING_KEYS[1]},
            "QSTASH_NEXT_SIGNING_KEY: is a public development key",
            id="stand-in's next key, real QStash",
        ),
        pytest.param(
            {"QSTASH_CURRENT_SIGNING_KEY": DEVELOPMENT_SIGNING_KEYS[1]},
            "QSTASH_CURRENT_SIGNING_KEY: is a public development key",
            id="stand-in's rotated key, real QStash",
        ),
        pytest.param(
            {"QSTASH_CURRENT_SIGNING_KEY": "x"},
            "QSTASH_CURRENT_SIGNING_KEY: is too short",
            id="one-letter key, real QStash",
        ),
        pytest.param(
            {"QSTASH_NEXT_SIGNING_KEY": "x" * 15},
            "QSTASH_NEXT_SIGNING_KEY: is too short",
            id="short key, real QStash",
        ),
        pytest.param(
            {"QSTASH_NEXT_SIGNING_KEY": GOOD["QSTASH_CURRENT_SIGNING_KEY"]},
            "QSTASH_NEXT_SIGNING_KEY: is the same as QSTASH_CURRENT_SIGNING_KEY",
            id="one key twice, real QStash",
        ),
    ],
)
def test_settings_that_do_not_fit_each_other_are_named(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem):
        load_with(monkeypatch, changes)


def test_a_development_server_fits_a_webhook_on_this_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    development = {
        "QSTASH_URL": "http://127.0.0.1:8080",
        "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
        "QSTASH_WEBHOOK_URL": "http://127.0.0.1:3001/webhook",
        "QSTASH_CURRENT_SIGNING_KEY": DEVELOPMENT_SIGNING_KEYS[0],
        "QSTASH_NEXT_SIGNING_KEY": DEVELOPMENT_SIGNING_KEYS[1],
    }

    settings = load_with(monkeypatch, development)

    assert settings.qstash_url == "http://127.0.0.1:8080"
    assert settings.signing_keys == DEVELOPMENT_SIGNING_KEYS


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.1", True),
        ("[::1]", True),
        ("127.0.0.1.example", False),
        ("127.example", False),
        ("service.example", False),
        ("[", False),
    ],
)
def test_loopback_is_this_machine_and_no_name_that_looks_like_it(host: str, is_one: bool) -> None:
    assert is_loopback(f"http://{host}/webhook") == is_one


def test_secrets_show_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_with(
        monkeypatch,
        {
            name: f"hunter2 of {name}".replace(" ", "-")
            for name in GOOD
            if name.endswith(("TOKEN", "KEY"))
        }
        | {"REDIS_URL": "redis://:hunter2@127.0.0.1"},
    )

    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings.model_dump())


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory that SECRETS_DIR names."""
    directory = tmp_path / "mounted"
    directory.mkdir()
    monkeypatch.setenv("SECRETS_DIR", str(directory))
    return directory


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "openai_api_key"])
def test_a_secret_may_stand_in_a_file_of_its_name(
    monkeypatch: pytest.MonkeyPatch, secrets: Path, name: str
) -> None:
    (secrets / name).write_text("from-a-file\n")

    settings = load_with(monkeypatch, {"OPENAI_API_KEY": ""})

    assert settings.openai_api_key.get_secret_value() == "from-a-file"
    assert "OPENAI_API_KEY" in given_names()


def test_without_a_directory_named_secrets_are_where_containers_have_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "OPENAI_API_KEY").write_text("from-a-file")
    monkeypatch.setattr(environment, "SECRETS_DIR", tmp_path)

    settings = load_with(monkeypatch, {"OPENAI_API_KEY": None})

    assert settings.openai_api_key.get_secret_value() == "from-a-file"


def test_the_directory_of_secrets_may_stand_in_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, secrets: Path
) -> None:
    (secrets / "QSTASH_TOKEN").write_text("from-a-file")
    (tmp_path / ".env").write_text(f"SECRETS_DIR={secrets}\n")
    monkeypatch.delenv("SECRETS_DIR")

    settings = load_with(monkeypatch, {"QSTASH_TOKEN": None})

    assert settings.qstash_token.get_secret_value() == "from-a-file"


def test_every_kind_of_value_may_stand_in_a_file(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    values = {"API_KEYS": f"app:{'a' * 64}", "QSTASH_DELAY": "2m"}
    for name, value in values.items():
        (secrets / name).write_text(f"\ufeff{value}\n")  # with the mark that some editors put first

    settings = load_with(monkeypatch)

    assert settings.api_keys == {"a" * 64: "app"}
    assert settings.qstash_delay == timedelta(minutes=2)


def test_secrets_as_kubernetes_mounts_them_are_read(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    """Links to files of a hidden directory, which is replaced as a whole."""
    (secrets / "..2026_11_27").mkdir()
    (secrets / "..data").symlink_to("..2026_11_27")
    (secrets / "..data" / "OPENAI_API_KEY").write_text("from-a-file")
    (secrets / "OPENAI_API_KEY").symlink_to("..data/OPENAI_API_KEY")

    settings = load_with(monkeypatch, {"OPENAI_API_KEY": None})

    assert settings.openai_api_key.get_secret_value() == "from-a-file"


@pytest.mark.parametrize("content", [b"from-a-file", b"", b"\xff"])
def test_the_environment_wins_over_a_secrets_file(
    monkeypatch: pytest.MonkeyPatch, secrets: Path, content: bytes
) -> None:
    (secrets / "OPENAI_API_KEY").write_bytes(content)

    settings = load_with(monkeypatch, {"OPENAI_API_KEY": "key"})

    assert settings.openai_api_key.get_secret_value() == "key"


def test_an_empty_secrets_file_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    (secrets / "OPENAI_API_KEY").write_text("\n")
    (secrets / "OPENAI_BASE_URL").write_text("")

    with pytest.raises(SettingsError) as caught:
        load_with(monkeypatch, {"OPENAI_API_KEY": None})

    assert str(caught.value).splitlines()[1:] == ["  OPENAI_API_KEY: missing"]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        pytest.param(lambda path: path.write_bytes(b"\xff\xfe"), "not UTF-8 text", id="not text"),
        pytest.param(
            lambda path: path.write_bytes("key".encode("utf-16-le")), "not UTF-8 text", id="UTF-16"
        ),
        pytest.param(
            lambda path: path.mkdir(), "what is there is no file of that directory", id="directory"
        ),
        pytest.param(
            lambda path: path.symlink_to(__file__),
            "what is there is no file of that directory",
            id="a link that leads out",
        ),
    ],
)
def test_a_secrets_file_that_is_of_no_use_is_named(
    monkeypatch: pytest.MonkeyPatch, secrets: Path, make: Callable[[Path], object], problem: str
) -> None:
    make(secrets / "OPENAI_API_KEY")

    with pytest.raises(SettingsError) as caught:
        load_with(monkeypatch, {"OPENAI_API_KEY": None})

    told = f"  OPENAI_API_KEY: its file in SECRETS_DIR can't be read ({problem})"
    assert str(caught.value).splitlines()[1:] == [told]


def test_a_directory_of_secrets_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRETS_DIR", str(tmp_path / "missing"))

    with pytest.raises(SettingsError) as caught:
        load_with(monkeypatch)

    (told,) = str(caught.value).splitlines()[1:]
    assert told == "  SECRETS_DIR: is not a directory that can be read"


def test_a_secret_whose_file_is_named_by_a_variable_is_told_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("REDIS_URL_FILE=/run/hunter2\n")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", "/run/hunter2")

    with pytest.raises(SettingsError) as caught:
        load_with(monkeypatch)

    assert sorted(str(caught.value).splitlines()[1:]) == [
        f"  {name}_FILE: is not read: put what that file holds as {name} into SECRETS_DIR"
        for name in ("OPENAI_API_KEY", "REDIS_URL")
    ]


def test_what_stands_in_a_file_is_checked_like_the_rest(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    (secrets / "OPENAI_API_KEY").write_text("two words")

    with pytest.raises(SettingsError, match="OPENAI_API_KEY: holds spaces") as caught:
        load_with(monkeypatch, {"OPENAI_API_KEY": ""})

    assert "two words" not in str(caught.value)


def test_several_kinds_are_read_at_once_and_all_their_problems_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_variables(monkeypatch)

    page, service = load(PageSettings, ServiceSettings)
    monkeypatch.setenv("QSTASH_DELAY", "soon")
    monkeypatch.setenv("API_RATE_LIMIT", "often")
    with pytest.raises(SettingsError) as caught:
        load(PageSettings, ServiceSettings)

    assert (page.port, service.port) == (8501, 3001)
    named = [line.partition(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
    assert sorted(named) == ["API_RATE_LIMIT", "QSTASH_DELAY"]


def test_api_keys_are_read_by_hash_and_a_name_may_have_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = f"app:{'a' * 64}, old:{'b' * 64}, app:{'c' * 64},"

    settings = load_with(monkeypatch, {"API_KEYS": keys})

    assert settings.api_keys == {"a" * 64: "app", "b" * 64: "old", "c" * 64: "app"}


@pytest.mark.parametrize("call_seconds", [1, 5, 25, 60, 600])
def test_no_time_limit_overtakes_the_next(call_seconds: int) -> None:
    times = TimeLadder(call_seconds)

    ladder = [times.call, times.graceful_stop, times.delivery_timeout, times.lease]
    assert ladder == sorted(set(ladder))
    assert times.lease < times.redelivery <= times.longest_wait
    assert times.delivery_timeout - times.call >= timedelta(seconds=5)  # to settle and to answer


@pytest.mark.parametrize("call_seconds", [1, 5, 25, 60, 600])
def test_the_deadline_comes_after_the_worst_sequence(call_seconds: int) -> None:
    times = TimeLadder(call_seconds)
    unanswered = sum(
        (times.delivery_timeout + times.redelivery * (1 + retried) for retried in range(3)),
        times.delivery_timeout,
    )
    told_to_wait = QSTASH_DELIVERIES * times.delivery_timeout + 3 * times.longest_wait

    assert times.deadline >= max(unanswered, told_to_wait, timedelta(minutes=10))


def test_the_default_ladder_is_the_documented_one() -> None:
    times = make_settings().times

    assert [
        limit.total_seconds()
        for limit in (times.call, times.graceful_stop, times.delivery_timeout, times.lease)
    ] == [25, 28, 35, 40]
    assert times.retry_delay == "45000 * (1 + retried)"
    assert times.deadline == timedelta(minutes=10)


def example() -> list[tuple[str, str]]:
    """The variables of .env.example, with their values; those of the options as well."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if re.match(r"[A-Z]", line)]
    return [(name, value) for name, _, value in pairs]


def test_env_example_lists_every_setting_with_its_default() -> None:
    listed = dict(example())

    for name, field in ServiceSettings.model_fields.items():
        value = listed[name.upper()]
        assert not value or value == str(field.default).removesuffix(".0")


def test_env_example_explains_every_variable() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()

    for above, line in pairwise(lines):
        if re.match(r"[A-Z]", line):
            assert above.startswith("#") or re.match(r"[A-Z]", above)


def sections_of(page: str) -> set[str]:
    return {section.strip() for section in page.split("\n## ")}


def test_the_page_of_settings_holds_what_is_made_of_the_classes() -> None:
    written = (ROOT / "docs" / "settings.md").read_text()

    assert sections_of(settings_table.page()) <= sections_of(written), "run: make settings"


def test_each_setting_has_a_description_and_a_row_of_its_own() -> None:
    check_rows(ServiceSettings)
    check_rows(PageSettings)


def check_rows(kind: type[Part]) -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    for name, field in kind.model_fields.items():
        assert field.description, name
        assert page.count(f"| `{name.upper()}` | ") == (2 if name == "port" else 1)
        assert field.description in page


def test_given_names_come_from_the_environment_and_the_env_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("OPENAI_API_KEY=key\nQSTASH_TOKEN=\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1")

    assert {"OPENAI_API_KEY", "REDIS_URL"} <= given_names()
    assert "QSTASH_TOKEN" not in given_names()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        pytest.param(None, "Is a directory", id="a directory"),
        pytest.param("OPENAI_MODEL=größer\n".encode("latin-1"), "not UTF-8 text", id="Latin-1"),
        pytest.param("OPENAI_MODEL=x\n".encode("utf-16"), "not UTF-8 text", id="UTF-16"),
        pytest.param("OPENAI_MODEL=x\n".encode("utf-16-le"), "not UTF-8 text", id="no mark"),
    ],
)
def test_an_env_file_that_is_of_no_use_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / ".env"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    monkeypatch.chdir(tmp_path)

    with pytest.raises(SettingsError) as loading:
        load_with(monkeypatch)
    with pytest.raises(SettingsError) as naming:
        given_names()

    assert str(loading.value) == str(naming.value) == f"{path}: this file can't be read ({reason})"


def test_an_env_file_may_begin_with_the_mark_of_utf_8(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("OPENAI_MODEL=größer\n", "utf-8-sig")

    assert load_with(monkeypatch).openai_model == "größer"


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_loopback_is_never_asked_of_a_proxy_and_others_are(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for other in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(other, "")
    monkeypatch.setenv(name, "inside.example")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    load_with(monkeypatch)

    proxied = {
        host: not proxy_bypass(host)
        for host in ("localhost", "127.0.0.1", "::1", "inside.example", "qstash.upstash.io")
    }
    assert [host for host in proxied if proxied[host]] == ["qstash.upstash.io"]
