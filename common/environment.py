"""How settings are read: from the environment, else from `.env`, else from a file in SECRETS_DIR.

An empty value counts as unset. A file in SECRETS_DIR is named like its variable, in either case,
as container platforms mount secrets. This is the only module that reads the environment.

Source: https://docs.pydantic.dev/latest/concepts/pydantic_settings/#secrets
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from pydantic import Field, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from common.addresses import LOOPBACK_NAMES

ENCODING = "utf-8-sig"  # with or without the mark that some editors put first
SECRETS_DIR = Path("/run/secrets")  # where containers find them


class SettingsError(Exception):
    """Some environment variables are missing or wrong; the message names all of them."""


class Unreadable(NamedTuple):
    """Stands for the value of a variable whose file can't be read."""

    reason: str


class SecretFiles(SecretsSettingsSource):
    """Values from the files of a directory; one that can't be read is a problem of its variable."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        try:
            with warnings.catch_warnings(action="error", category=UserWarning):
                value, key, is_complex = super().get_field_value(field, field_name)
            text = str(value or "").removeprefix("\ufeff")
            _check_text(text)
        except UserWarning:
            text, reason = "", "what is there is no file of that directory"
        except (OSError, ValueError) as error:
            text, reason = "", _reason(error)
        else:
            return text or None, key, is_complex
        return Unreadable(reason), field_name, False


class Part(BaseSettings):
    """The variables of one part of the product. Parts are put together by inheritance."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding=ENCODING,
        env_ignore_empty=True,
        extra="ignore",  # the other parts'
        frozen=True,
        hide_input_in_errors=True,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _was_read(cls, value: object) -> object:
        if isinstance(value, Unreadable):
            raise ValueError(f"its file in SECRETS_DIR can't be read ({value.reason})")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        files = SecretFiles(settings_cls, _secrets_dir(_given(settings_cls)))
        return init_settings, env_settings, dotenv_settings, files


class SecretsSettings(Part):
    """Secrets in files.

    Every variable of this page may stand in a file instead, as container platforms mount secrets.
    The file is named like the variable, in either case; the environment and `.env` win over it.
    """

    secrets_dir: Path | None = Field(
        default=None,
        description="The directory of these files. Empty: `/run/secrets`, where there is one.",
    )

    @field_validator("secrets_dir")
    @classmethod
    def _is_a_directory(cls, path: Path | None) -> Path | None:
        if path and not _can_be_listed(path):
            raise ValueError("is not a directory that can be read")
        return path


KindT = TypeVar("KindT", bound=Part)
OtherT = TypeVar("OtherT", bound=Part)


@overload
def load(kind: type[KindT], /) -> KindT: ...
@overload
def load(kind: type[KindT], other: type[OtherT], /) -> tuple[KindT, OtherT]: ...
def load(kind: type[Part], /, *others: type[Part]) -> Any:
    """Read and check the settings of one process: one object per kind, a tuple if several.

    From then on no HTTP client of this process, or of one it starts, asks a proxy for loopback.
    Raises: SettingsError, naming every missing or malformed variable but no value.
    """
    settings, more = load_all(kind, *others)
    return (settings, *more) if others else settings


def load_all(kind: type[KindT], /, *others: type[OtherT]) -> tuple[KindT, list[OtherT]]:
    """Do what `load` does, for any number of others.

    Raises: SettingsError.
    """
    bypass_proxies_on_loopback()
    given = _given(Part)
    problems: dict[str, str] = {}
    loaded: list[Any] = []
    for each in (kind, *others):
        for name in (field.upper() for field in each.model_fields):
            if f"{name}_FILE" in given:
                advice = f"is not read: put what that file holds as {name} into SECRETS_DIR"
                problems[f"{name}_FILE"] = advice
        try:
            loaded.append(each())
        except ValidationError as error:
            for problem in error.errors(include_input=False, include_url=False):
                name = str(problem["loc"][0]).upper()
                problems.setdefault(name, _sentence(problem["type"], problem["msg"]))
    if problems:
        raise SettingsError(
            "These environment variables are missing or wrong (see .env.example):\n"
            + "\n".join(f"  {name}: {problem}" for name, problem in problems.items())
        )
    return loaded[0], loaded[1:]


def bypass_proxies_on_loopback() -> None:
    """Extend NO_PROXY: httpx and urllib read it, in either case, and prefer lower case."""
    given = [os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY")]
    names = [name.strip() for value in given for name in value.split(",") if name.strip()]
    joined = ",".join(dict.fromkeys([*names, *LOOPBACK_NAMES]))
    os.environ.update(no_proxy=joined, NO_PROXY=joined)


def unset(name: str) -> None:
    """Take a variable out of this process's environment, before a library reads it."""
    os.environ.pop(name, None)


def pass_on(prefix: str) -> None:
    """Put what `.env` holds under such names into the environment: a library reads nothing else.

    Raises: SettingsError when `.env` can't be read.
    """
    for name, value in _given(Part).items():
        if name.startswith(prefix):
            os.environ.setdefault(name, value)


def given_names() -> set[str]:
    """The names of the variables that have a value in the environment, in `.env`, or in a file.

    Raises: SettingsError when `.env` can't be read.
    """
    given = _given(Part)
    directory = _secrets_dir(given)
    return {*given, *(path.name.upper() for path in (directory.iterdir() if directory else ()))}


def _given(kind: type[BaseSettings]) -> Mapping[str, str]:
    """What the environment and `.env` hold. Raises: SettingsError."""
    env_file = Path(str(kind.model_config["env_file"]))
    try:
        # UTF-16 without a mark is valid UTF-8, and no variable would be found in it.
        _check_text(env_file.read_text(ENCODING) if env_file.exists() else "")
    except (OSError, ValueError) as error:
        raise SettingsError(f"{env_file}: this file can't be read ({_reason(error)})") from None
    found = {**DotEnvSettingsSource(kind).env_vars, **EnvSettingsSource(kind).env_vars}
    return {name.upper(): value for name, value in found.items() if value}


def _secrets_dir(given: Mapping[str, str]) -> Path | None:
    """The directory of secrets, if there is one that can be read."""
    directory = Path(given.get("SECRETS_DIR", SECRETS_DIR))
    return directory if _can_be_listed(directory) else None


def _can_be_listed(path: Path) -> bool:
    return path.is_dir() and os.access(path, os.R_OK | os.X_OK)


def _check_text(text: str) -> None:
    if "\0" in text:
        raise ValueError


def _reason(error: OSError | ValueError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "not UTF-8 text"


def _sentence(kind: str, message: str) -> str:
    return "missing" if kind == "missing" else message.removeprefix("Value error, ")
