"""The settings of the core: one class per part, put together into those of each process.

    python -m common page      # exits non-zero, and says why, when something is wrong

`common/environment.py` reads them. Each option has a class of its own in `operations/`.
"""

import logging
import re
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Literal
from urllib.parse import quote, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from common import addresses
from common.addresses import is_loopback, is_upstash
from common.environment import Part, SecretsSettings
from common.setting_types import (
    MIN_SECRET_LENGTH,
    ApiKeys,
    Duration,
    MaxCount,
    Port,
    Secret,
    WebAddress,
)
from common.times import TimeLadder

# Upstash's development server and our stand-in take this one: public, good for nothing else.
DEVELOPMENT_TOKEN = "eyJVc2VySUQiOiJkZWZhdWx0VXNlciIsIlBhc3N3b3JkIjoiZGVmYXVsdFBhc3N3b3JkIn0="  # noqa: S105 (public)
# So are their signing keys.
DEVELOPMENT_SIGNING_KEYS = "sig_7kYjw48mhY7kAjqNGcy6cr29RJ6r", "sig_5ZB6DVzB1wjE8S6rZ7eenA8Pdnhs"
# Each model takes some of these: https://platform.openai.com/docs/guides/reasoning
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class LogSettings(Part):
    """What is logged, and how."""

    log_format: Annotated[Literal["auto", "json", "console"], BeforeValidator(str.lower)] = Field(
        default="auto",
        description="`json`, `console` (coloured), or `auto`: console on a terminal, else json.",
    )
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)
    ] = Field(default="INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`.")

    @property
    def level(self) -> int:
        """The level as a number."""
        return logging.getLevelNamesMapping()[self.log_level]


class RedisSettings(Part):
    """Redis.

    It keeps the analyses. Set either the Upstash pair or `REDIS_URL`.
    """

    upstash_redis_rest_url: WebAddress | None = Field(
        default=None,
        description="From Upstash's console; its host is used over TCP with TLS.",
    )
    upstash_redis_rest_token: Secret | None = Field(
        default=None, description="From Upstash's console."
    )
    redis_url: SecretStr = Field(
        default=SecretStr(""),
        validate_default=True,
        description="Any Redis-compatible server, `redis://` or `rediss://`; wins over the pair.",
    )
    redis_key_prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{0,60}$")] = Field(
        default="",
        description="Put before the name of every key, so that several deployments can share a "
        "Redis: `staging:`.",
    )
    analysis_ttl_seconds: Annotated[int, Field(ge=60, le=2_592_000)] = Field(
        default=3600,
        description="How long an analysis is kept once it is ready or has failed, in seconds.",
    )

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

    @property
    def ttl(self) -> timedelta:
        """How long a record is kept from the moment it is terminal."""
        return timedelta(seconds=self.analysis_ttl_seconds)

    @property
    def kept(self) -> timedelta:
        """How long an analysis can be read from the moment it is terminal."""
        return self.ttl


class QStashSettings(Part):
    """QStash.

    It delivers each request to the webhook service.
    """

    qstash_url: WebAddress = Field(
        default="https://qstash.upstash.io",
        description="QStash's own address; only another region or a development server needs it.",
    )
    qstash_token: Secret = Field(description="From Upstash's console: publishes messages.")
    qstash_webhook_url: WebAddress = Field(
        description="The service's public address, with https and ending in `/webhook`."
    )
    qstash_delay: Duration = Field(
        default=timedelta(seconds=60),
        description="How long a request waits: `60s`, `2m`, `1h`. The local stack has `5s`.",
    )
    qstash_parallelism: Annotated[int, Field(ge=1, le=10_000)] | None = Field(
        default=None,
        description="How many analyses may run at once; whoever waits is told how many come first. "
        "Empty: no limit.",
    )

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
        if is_development and is_upstash(url):
            raise ValueError("is the public development token, and QSTASH_URL is the real QStash")
        if not is_development and is_loopback(url):
            raise ValueError("is a real token, and QSTASH_URL is a stand-in on this machine")
        return token

    @field_validator("qstash_webhook_url")
    @classmethod
    def _webhook_can_be_reached(cls, url: str, info: ValidationInfo) -> str:
        if not url.endswith("/webhook"):
            raise ValueError("ends with /webhook: any other address of the service is a 404")
        if is_upstash(info.data.get("qstash_url", "")):
            if is_loopback(url):
                raise ValueError("is on this machine, where the real QStash can't reach it")
            if urlsplit(url).scheme != "https":
                raise ValueError("needs https, as the real QStash calls it over the internet")
        return url

    @property
    def failure_callback_url(self) -> str:
        """Where QStash reports that it has given a message up."""
        return self.qstash_webhook_url + "/failure"


class SigningSettings(QStashSettings):
    """QStash's signing keys."""

    qstash_current_signing_key: Secret = Field(
        description="From Upstash's console: proves that a delivery is QStash's."
    )
    qstash_next_signing_key: Secret = Field(description="From Upstash's console, beside it.")

    @field_validator("qstash_current_signing_key", "qstash_next_signing_key")
    @classmethod
    def _nobody_else_signs(cls, key: SecretStr, info: ValidationInfo) -> SecretStr:
        """Whoever knows or guesses a signing key can have any text analysed, and paid for."""
        if not is_upstash(info.data.get("qstash_url", "")):
            return key
        if key.get_secret_value() in DEVELOPMENT_SIGNING_KEYS:
            raise ValueError("is a public development key, and QSTASH_URL is the real QStash")
        if len(key.get_secret_value()) < MIN_SECRET_LENGTH:
            raise ValueError("is too short for a signing key; copy it from QStash's console")
        if key == info.data.get("qstash_current_signing_key"):
            raise ValueError("is the same as QSTASH_CURRENT_SIGNING_KEY; QStash shows two keys")
        return key

    @property
    def signing_keys(self) -> tuple[str, str]:
        """The current and the next one."""
        keys = self.qstash_current_signing_key, self.qstash_next_signing_key
        return keys[0].get_secret_value(), keys[1].get_secret_value()


class ModelSettings(Part):
    """The model and its server.

    The service asks it, and the page tells the person who reads the text.
    """

    openai_base_url: WebAddress | None = Field(
        default=None,
        description="Any server with OpenAI's Responses API. Empty: OpenAI itself.",
    )
    openai_model: Annotated[str, Field(pattern=r"^\S+$")] = Field(
        default="gpt-5.4-mini", description="Which model is asked."
    )
    openai_timeout_seconds: Annotated[float, Field(ge=1, le=600, allow_inf_nan=False)] = Field(
        default=25,
        description="The total time of one model call; all other time limits follow from it.",
    )

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


class AnalystSettings(Part):
    """How the model is asked."""

    openai_api_key: Secret = Field(description="OpenAI's key, or that of the other server.")
    openai_reasoning_effort: ReasoningEffort | None = Field(
        default=None,
        description="How long a model thinks: `none`, `minimal`, `low`, `medium`, `high`, `xhigh` "
        "or `max`; each model takes some of them. Empty: as the model likes.",
    )
    openai_max_output_tokens: Annotated[int, Field(ge=16, le=1_000_000)] = Field(
        default=2000, description="How many tokens an answer may take, thinking included."
    )


class ApiSettings(Part):
    """The API for programs."""

    api_keys: ApiKeys = Field(
        default={},
        description="`name:sha256-of-the-key`, separated by commas. Empty: the API answers 403.",
    )
    api_rate_limit: MaxCount = Field(
        default=30,
        description="How often a minute each key may call each route from each address.",
    )
    trusted_proxies: Annotated[int, Field(ge=0, le=20)] = Field(
        default=0, description="How many proxies stand before the service, exactly."
    )


class Settings(RedisSettings, QStashSettings, ModelSettings, LogSettings, SecretsSettings):
    """What both processes need."""


class PageSettings(Settings):
    """The page."""

    port: Port = Field(default=8501, description="The port where the page listens.")


class ServiceSettings(Settings, SigningSettings, AnalystSettings, ApiSettings):
    """The webhook service."""

    port: Port = Field(default=3001, description="The port where the webhook service listens.")
