"""The types of settings: what a variable may hold, whichever part it belongs to.

Each check raises ValueError with a sentence that quotes no value.
"""

import re
from datetime import timedelta
from hashlib import sha256
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from common import addresses

MIN_SECRET_LENGTH = 16  # of what is checked on a public address; QStash's own keys have 32
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


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
ApiKeys = Annotated[dict[str, str], NoDecode, BeforeValidator(_key_hashes)]
MaxCount = Annotated[int, Field(ge=0, le=10**12)]  # 0: no limit
Port = Annotated[int, Field(ge=1, le=65535)]
