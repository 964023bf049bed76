"""Every environment variable, read here alone and checked at start.

Values come from the environment, else from `.env` in the working directory; that of NAME may stand
in a file instead, whose path is NAME_FILE. An empty value counts as unset. `load()` names every
missing or malformed variable in one message.

    python -m common.settings page      # exits non-zero, and says why, when something is wrong
"""

import logging
import os
import re
import sys
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote, urlsplit

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from common import addresses

ENV_FILE = ".env"
ENCODING = "utf-8-sig"  # with or without the mark that some editors put first
# Upstash's development server and our stand-in take this one: public, good for nothing else.
DEVELOPMENT_TOKEN = "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0="  # noqa: S105 (public)
# So are their signing keys.
DEVELOPMENT_SIGNING_KEYS = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r", "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"
MIN_SECRET_LENGTH = 16  # of what is checked on a public address; QStash's own keys have 32
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
QSTASH_DELIVERIES = 4  # the first and three retries
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class SettingsError(Exception):
    """Some environment variables are missing or wrong; the message names all of them."""


class TimeLadder:
    """All time limits, derived from the total time of one model call so that none can overtake.

    call < graceful stop < QStash's timeout < lease < redelivery of an unanswered message.
    """

    def __init__(self, call_seconds: float) -> None:
        self.call = timedelta(seconds=call_seconds)
        self.graceful_stop = self.call + timedelta(seconds=3)
        self.delivery_timeout = self.call + timedelta(seconds=10)
        self.lease = self.call + timedelta(seconds=15)
        self.redelivery = self.lease + timedelta(seconds=5)

    @property
    def longest_wait(self) -> timedelta:
        """How long a delivery may at most be told to wait (`Retry-After`)."""
        return 3 * self.redelivery

    @property
    def retry_delay(self) -> str:
        """QStash's expression, in milliseconds, for a delivery that got no answer.

        Source: https://upstash.com/docs/qstash/features/retry
        """
        return f"{round(self.redelivery.total_seconds() * 1000)} * (1 + retried)"

    @property
    def worst_case(self) -> timedelta:
        """From due until the last delivery has ended, when each one fails as slowly as it can."""
        return QSTASH_DELIVERIES * self.delivery_timeout + (
            (QSTASH_DELIVERIES - 1) * self.longest_wait
        )

    @property
    def deadline(self) -> timedelta:
        """From due until the analysis is over, whatever happened."""
        return max(timedelta(minutes=10), self.worst_case)


def duration(value: object) -> object:
    """Read `60s`, `2m`, `1h` or `7d`; a number alone is seconds."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", value.strip())
    if match is None:
        raise ValueError("write a number with s, m, h or d behind it, such as 60s")
    return timedelta(**{UNITS[match[2] or "s"]: int(match[1])})


def _plain_secret(secret: SecretStr) -> SecretStr:
    value = secret.get_secret_value()
    if re.fullmatch(r"[!-~]+", value) is None or value[0] in "\"'":
        raise ValueError("holds spaces, quotes or characters that are not ASCII")
    return secret


def _needs(package: str) -> AfterValidator:
    """What is set needs a package that only operators install."""

    def check(value: object) -> object:
        if value is not None and not _is_installed(package):
            raise ValueError(f"needs {package}: pip install -r requirements-operator.txt")
        return value

    return AfterValidator(check)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # what it is a part of is missing, too
        return False


def _is_upstash(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith("upstash.io")


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine alone."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host in LOOPBACK_NAMES or bool(re.fullmatch(r"127(\.\d{1,3}){1,3}", host))


def _database(url: SecretStr | None) -> SecretStr | None:
    """Accept what the history can use; its packages are not needed otherwise."""
    if url is None:
        return None
    address = addresses.database(url.get_secret_value()).url
    driver = "sqlite3" if address.startswith("sqlite:") else "psycopg"
    if not all(map(find_spec, ("sqlalchemy", driver))):
        raise ValueError("needs packages: pip install -r requirements-operator.txt")
    return url


def _key_hashes(value: object) -> object:
    """Read `name:sha256,name:sha256` into a dictionary from hash to name."""
    if not isinstance(value, str):
        return value
    pairs = [pair.strip() for pair in value.split(",") if pair.strip()]
    if not all(re.fullmatch(r"[\w.-]{1,64}:[0-9a-f]{64}", pair, re.ASCII) for pair in pairs):
        raise ValueError("write name:sha256-of-the-key, several separated by commas")
    names: dict[str, str] = {}
    for name, _, digest in (pair.partition(":") for pair in pairs):
        if digest == sha256(b"").hexdigest():
            raise ValueError("holds the hash of an empty key")
        if names.setdefault(digest, name) != name:
            raise ValueError(f"gives one key to two names, {names[digest]} and {name}")
    return names


Duration = Annotated[
    timedelta, BeforeValidator(duration), Field(ge=timedelta(0), le=timedelta(days=7))
]
Secret = Annotated[SecretStr, AfterValidator(_plain_secret)]
WebAddress = Annotated[str, AfterValidator(addresses.web)]
DatabaseUrl = Annotated[SecretStr | None, AfterValidator(_database)]
ApiKeys = Annotated[dict[str, str], NoDecode, BeforeValidator(_key_hashes)]
Most = Annotated[int, Field(ge=0, le=10**12)]  # 0: no limit
SPEND_LIMITS = (
    "visitor_submissions_per_hour",
    "submissions_per_hour",
    "most_waiting",
    "daily_analyses",
    "daily_tokens",
)


class LogSettings(BaseSettings):
    """What is logged, and how."""

    model_config = SettingsConfigDict(
        env_file=ENV_FILE,
        env_file_encoding=ENCODING,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    log_format: Annotated[Literal["auto", "json", "console"], BeforeValidator(str.lower)] = "auto"
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = "INFO"

    @property
    def level(self) -> int:
        """The level as a number."""
        return logging.getLevelNamesMapping()[self.log_level]


class Settings(LogSettings):
    """What both processes need: Redis, publishing to QStash, and which model is asked."""

    upstash_redis_rest_url: WebAddress | None = None
    upstash_redis_rest_token: Secret | None = None
    redis_url: SecretStr = Field(default=SecretStr(""), validate_default=True)
    analysis_ttl_seconds: int = Field(default=3600, ge=60, le=2_592_000)
    qstash_url: WebAddress = "https://qstash.upstash.io"
    qstash_token: Secret
    qstash_webhook_url: WebAddress
    qstash_delay: Duration = timedelta(seconds=60)
    qstash_parallelism: int | None = Field(default=None, ge=1, le=10_000)
    openai_timeout_seconds: float = Field(default=25, ge=1, le=600, allow_inf_nan=False)
    # Beyond what an honest site of one page process comes to; an office of 100 people may be one
    # visitor. A day's tokens are its analyses at 2,000 each.
    visitor_submissions_per_hour: Most = 100
    submissions_per_hour: Most = 1_000
    most_waiting: Most = 1_000
    daily_analyses: Most = 5_000
    daily_tokens: Most = 10_000_000
    # The service asks this model; the page tells the person who reads the text.
    openai_base_url: WebAddress | None = None
    openai_model: str = Field(default="gpt-5.4-mini", min_length=1, pattern=r"^\S+$")
    metrics_port: Annotated[int | None, _needs("prometheus_client")] = Field(
        default=None, ge=1, le=65535
    )
    otel_exporter_otlp_endpoint: Annotated[WebAddress | None, _needs("opentelemetry.sdk")] = None
    database_url: DatabaseUrl = None
    history_days: int = Field(default=30, ge=1, le=3650)
    keep_input: bool = False

    @field_validator("redis_url")
    @classmethod
    def _derive_redis_url(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        """Take REDIS_URL; else make it from the Upstash pair, whose host also speaks TCP.

        Source: https://upstash.com/docs/redis/howto/connectclient
        """
        if url.get_secret_value():
            addresses.redis(url.get_secret_value())
            return url
        rest_url, token = (
            info.data.get(f"upstash_redis_rest_{part}", "wrong") for part in ("url", "token")
        )
        if rest_url is None or token is None:
            if rest_url or token:
                raise ValueError(
                    f"missing, and UPSTASH_REDIS_REST_{'TOKEN' if rest_url else 'URL'} is missing"
                )
            raise ValueError(
                "missing; set it, or UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN"
            )
        if "wrong" in (rest_url, token):
            return url  # the pair has an error message of its own
        host = urlsplit(rest_url).hostname
        return SecretStr(f"rediss://default:{quote(token.get_secret_value(), safe='')}@{host}:6379")

    @field_validator("upstash_redis_rest_url")
    @classmethod
    def _rest_url_is_the_consoles(cls, url: str | None) -> str | None:
        """Its host alone is used: what else stands in it would be lost."""
        parts = urlsplit(url or "")
        if parts.port not in (None, 443) or parts.path not in ("", "/"):
            raise ValueError("holds a port or path: copy it from Upstash's console")
        return url

    @field_validator("qstash_url")
    @classmethod
    def _client_adds_the_path(cls, url: str) -> str:
        if re.match(r"/+v[0-9]", urlsplit(url).path):
            raise ValueError("holds QStash's path: write it without /v2")
        return url

    @field_validator("qstash_token")
    @classmethod
    def _token_fits_url(cls, token: SecretStr, info: ValidationInfo) -> SecretStr:
        url = info.data.get("qstash_url", "")
        is_development = token.get_secret_value() == DEVELOPMENT_TOKEN
        if is_development and _is_upstash(url):
            raise ValueError("is the public development token, and QSTASH_URL is the real QStash")
        if not is_development and is_loopback(url):
            raise ValueError("is a real token, and QSTASH_URL is a stand-in on this machine")
        return token

    @field_validator("qstash_webhook_url")
    @classmethod
    def _webhook_can_be_reached(cls, url: str, info: ValidationInfo) -> str:
        if not url.endswith("/webhook"):
            raise ValueError("ends with /webhook: any other address of the service is a 404")
        if _is_upstash(info.data.get("qstash_url", "")):
            if is_loopback(url):
                raise ValueError("is on this machine, where the real QStash can't reach it")
            if urlsplit(url).scheme != "https":
                raise ValueError("needs https, as the real QStash calls it over the internet")
        return url

    @cached_property
    def times(self) -> TimeLadder:
        """The time limits that follow from `OPENAI_TIMEOUT_SECONDS`."""
        return TimeLadder(self.openai_timeout_seconds)

    @property
    def openai_host(self) -> str:
        """Whose server is asked."""
        return urlsplit(self.openai_base_url or "https://api.openai.com").hostname or ""

    @property
    def is_openai(self) -> bool:
        """Whether OpenAI itself is asked, in whatever region, and no other server."""
        return f".{self.openai_host}".endswith(".api.openai.com")

    @property
    def unlimited(self) -> list[str]:
        """The limits on submissions and spend that are switched off, as variables."""
        return [name.upper() for name in SPEND_LIMITS if not getattr(self, name)]

    @property
    def ttl(self) -> timedelta:
        """How long a record is kept from the moment it is terminal."""
        return timedelta(seconds=self.analysis_ttl_seconds)

    @property
    def kept(self) -> timedelta:
        """How long an analysis can be read from the moment it is terminal."""
        return max(self.ttl, timedelta(days=self.history_days)) if self.database_url else self.ttl

    @property
    def failure_callback_url(self) -> str:
        """Where QStash reports that it has given a message up."""
        return self.qstash_webhook_url + "/failure"


class PageSettings(Settings):
    """What the page's process needs besides: its own port."""

    port: int = Field(default=8501, ge=1, le=65535)


class ServiceSettings(Settings):
    """What the webhook service needs besides: QStash's signing keys, OpenAI's key, its own port."""

    port: int = Field(default=3001, ge=1, le=65535)
    qstash_current_signing_key: Secret
    qstash_next_signing_key: Secret
    openai_api_key: Secret
    # https://platform.openai.com/docs/guides/reasoning
    openai_reasoning_effort: (
        Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None
    ) = None
    openai_max_output_tokens: int = Field(default=2000, ge=16, le=1_000_000)
    api_keys: ApiKeys = {}
    api_rate_limit: Most = 30
    trusted_proxies: int = Field(default=0, ge=0, le=20)
    metrics_token: Annotated[Secret | None, _needs("prometheus_client")] = None
    metrics_dir: Path | None = None

    @field_validator("qstash_current_signing_key", "qstash_next_signing_key")
    @classmethod
    def _nobody_else_signs(cls, key: SecretStr, info: ValidationInfo) -> SecretStr:
        """Whoever knows or guesses a signing key can have any text analysed, and paid for."""
        if not _is_upstash(info.data.get("qstash_url", "")):
            return key
        if key.get_secret_value() in DEVELOPMENT_SIGNING_KEYS:
            raise ValueError("is a public development key, and QSTASH_URL is the real QStash")
        if len(key.get_secret_value()) < MIN_SECRET_LENGTH:
            raise ValueError("is too short for a signing key; copy it from QStash's console")
        if key == info.data.get("qstash_current_signing_key"):
            raise ValueError("is the same as QSTASH_CURRENT_SIGNING_KEY; QStash shows two keys")
        return key

    @field_validator("metrics_token")
    @classmethod
    def _is_hard_to_guess(cls, token: SecretStr | None) -> SecretStr | None:
        if token and len(token.get_secret_value()) < MIN_SECRET_LENGTH:
            raise ValueError(f"is too short: use {MIN_SECRET_LENGTH} random characters or more")
        return token

    @property
    def signing_keys(self) -> tuple[str, str]:
        """The current and the next one."""
        keys = self.qstash_current_signing_key, self.qstash_next_signing_key
        return keys[0].get_secret_value(), keys[1].get_secret_value()


SettingsT = TypeVar("SettingsT", bound=Settings)


def load(kind: type[SettingsT]) -> SettingsT:
    """Read and check the settings of one process.

    From then on no HTTP client of this process, or of one it starts, asks a proxy for loopback.
    Raises: SettingsError, naming every missing or malformed variable but no value.
    """
    bypass_proxies_on_loopback()
    values, unread = _from_files(kind)
    problems = [f"  {name}: {problem}" for name, problem in unread.items()]
    try:
        settings = kind.model_validate(values)
        if not problems:
            return settings
    except ValidationError as error:
        problems += [
            f"  {name}: {_problem(problem['type'], problem['msg'])}"
            for problem in error.errors(include_input=False, include_url=False)
            if f"{(name := str(problem['loc'][0]).upper())}_FILE" not in unread
        ]
    raise SettingsError(
        "These environment variables are missing or wrong (see .env.example):\n"
        + "\n".join(problems)
    )


def bypass_proxies_on_loopback() -> None:
    """Extend NO_PROXY: httpx and urllib read it, in either case, and prefer lower case."""
    given = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    names = [name.strip() for value in given for name in value.split(",") if name.strip()]
    joined = ",".join(dict.fromkeys([*names, *LOOPBACK_NAMES]))
    os.environ.update(no_proxy=joined, NO_PROXY=joined)


def given_names() -> set[str]:
    """The names of the variables that have a value in the environment, in `.env`, or in a file.

    Raises: SettingsError when `.env` can't be read.
    """
    return {name.removesuffix("_FILE") for name in _given(ENV_FILE)}


def _given(env_file: str | PathLike[str]) -> dict[str, str]:
    try:
        in_file = dotenv_values(stream=StringIO(_read_text(env_file)))
    except FileNotFoundError:
        in_file = {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{env_file}: {_unreadable(error)}") from None
    values = {**in_file, **os.environ}
    return {name.upper(): value for name, value in values.items() if value}


def _from_files(kind: type[Settings]) -> tuple[dict[str, str], dict[str, str]]:
    """Read the files that variables such as `OPENAI_API_KEY_FILE` name, as containers get secrets.

    Returns the values by field, and a problem by variable.
    """
    given = _given(kind.model_config["env_file"])  # type: ignore[arg-type]  # always one path here
    values, problems = {}, {}
    for field in kind.model_fields:
        name = f"{field.upper()}_FILE"
        if name not in given:
            continue
        if field.upper() in given:
            problems[name] = f"set it or {field.upper()}, not both"
            continue
        try:
            values[field] = _read_text(given[name]).strip()
        except (OSError, ValueError) as error:
            problems[name] = _unreadable(error)
    return values, problems


def _read_text(path: str | PathLike[str]) -> str:
    """Raises: OSError, ValueError."""
    text = Path(path).read_text(ENCODING)
    if "\0" in text:  # UTF-16 without a mark is valid UTF-8, and no variable is found in it
        raise ValueError
    return text


def _unreadable(error: OSError | ValueError) -> str:
    reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
    return f"this file can't be read ({reason})"


def _problem(kind: str, message: str) -> str:
    return "missing" if kind == "missing" else message.removeprefix("Value error, ")


if __name__ == "__main__":
    try:
        load(Settings if sys.argv[1:] == ["page"] else ServiceSettings)
    except SettingsError as error:
        sys.exit(str(error))
