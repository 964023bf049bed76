"""Addresses from the environment: which ones the clients can use, decided without a client.

Each function raises ValueError with a sentence that quotes no value: half a password may stand
anywhere in a malformed address.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

HOST = re.compile(r"(?=.{1,253}$)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
UNIX_PATH_BYTES = 107  # the longest that a socket may have
ENCODED = "in a user or password, / is written %2F, ? %3F, # %23, @ %40, [ %5B"

# What may stand behind the `?`, and the values it may have.
ANY, NUMBER, YES_OR_NO = r".+", r"[0-9]{1,9}", r"(?i:true|false|yes|no|[01])"
REDIS_TLS = {
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": YES_OR_NO,
    "ssl_ca_certs": ANY,
    "ssl_certfile": ANY,
    "ssl_keyfile": ANY,
}
REDIS_TAKES = {"db": r"[0-9]{1,5}", "protocol": "[23]", "client_name": r"[!-~]+"}
REDIS_UNIX = {"username": ANY, "password": ANY}
# The product sets its own in place of these, or has no use for them; hosts and other clients do.
REDIS_DROPS = {
    "connect_timeout",
    "decode_responses",
    "family",
    "health_check_interval",
    "max_connections",
    "retry_on_timeout",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_timeout",
    "timeout",
}
# Source: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
POSTGRES_TAKES = {
    "application_name": ANY,
    "channel_binding": "disable|prefer|require",
    "dbname": r"[^=]+",
    "gssencmode": "disable|prefer|require",
    "host": r"/[^,]*|[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*",
    "keepalives": "[01]",
    "keepalives_count": NUMBER,
    "keepalives_idle": NUMBER,
    "keepalives_interval": NUMBER,
    "options": ANY,
    "passfile": ANY,
    "password": ANY,
    "port": r"[1-9][0-9]{0,4}(,[1-9][0-9]{0,4})*",
    "sslcert": ANY,
    "sslcrl": ANY,
    "sslkey": ANY,
    "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
    "sslnegotiation": "postgres|direct",
    "sslpassword": ANY,
    "sslrootcert": ANY,
    "sslsni": "[01]",
    "target_session_attrs": "any|read-write|primary",
    "tcp_user_timeout": NUMBER,
    "user": ANY,
}
# They tune another ORM's pool. No statement is prepared here, which is what `pgbouncer` asks for.
POSTGRES_DROPS = {
    "connect_timeout",
    "connection_limit",
    "pgbouncer",
    "pool_timeout",
    "prepare_threshold",
    "socket_timeout",
    "statement_cache_size",
    "supa",
}
INSTEAD = {
    "schema": "write options=-csearch_path%3DNAME instead",
    "ssl": "write sslmode=require instead",
    "sslaccept": "write sslmode=require instead",
}


class Address(NamedTuple):
    """What the client gets, and the names of the parameters that were left out of it."""

    url: str
    dropped: list[str]


def web(address: str) -> str:
    """Check a base address, to which clients add paths."""
    parts = _split(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write a whole address, beginning with https:// (or http://)")
    if "@" in parts.netloc:
        raise ValueError("holds a user or password, which is not sent from here: leave it out")
    if "?" in address or "#" in address:
        raise ValueError("holds a ? or #: write the address without parameters or fragment")
    return address


def redis(address: str) -> Address:
    """Check and tidy the address of a Redis-compatible server."""
    parts = _split(address)
    scheme, path, query = parts.scheme, parts.path, parts.query
    if scheme not in ("redis", "rediss", "unix"):
        raise ValueError("begins with redis:// or rediss:// (a REST address does not)")
    if "#" in address or "@" in path + query:
        raise ValueError(f"holds a # or @ where none can be; {ENCODED}")
    takes = REDIS_TAKES | {"redis": {}, "rediss": REDIS_TLS, "unix": REDIS_UNIX}[scheme]
    if scheme == "unix":
        socket = unquote(path)
        is_long = len(socket.encode()) > UNIX_PATH_BYTES
        if parts.hostname or socket in ("", "/") or is_long or not socket.isprintable():
            raise ValueError("write unix:/// and the path of a socket")
    elif not parts.hostname:
        raise ValueError(f"names no host; {ENCODED}")
    elif not re.fullmatch(r"(/[0-9]{0,5}/?)?", path):
        raise ValueError("has a path that is no database number, such as /0")
    kept, dropped = _parameters(query, takes, REDIS_DROPS)
    if "ssl_keyfile" in kept and "ssl_certfile" not in kept:
        raise ValueError("has the parameter ssl_keyfile without ssl_certfile")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in kept and not Path(kept[name]).is_file():
            raise ValueError(f"names a file that is not there, in the parameter {name}")
    return Address(_join(f"{scheme}://{parts.netloc}{path}", kept), dropped)


def database(address: str) -> Address:
    """Check and tidy the address of a PostgreSQL or SQLite database."""
    scheme, separator, rest = address.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("postgresql", "postgres", "sqlite"):
        raise ValueError("begins with postgresql:// (or sqlite:/// and a path, on one machine)")
    _check_characters(address)
    # As SQLAlchemy splits it: a password may hold anything but @.
    account, at, server = rest.rpartition("@")
    if "@" in account or "/" in account.partition(":")[0]:
        raise ValueError(f"holds an @ where none can be; {ENCODED}")
    parts = _split(f"//{server}")
    if parts.fragment or server.endswith("#"):
        raise ValueError(f"holds a # where none can be; {ENCODED}")
    if scheme == "sqlite":
        if at or parts.netloc or parts.path in ("", "/", "/:memory:") or "?" in server:
            raise ValueError("write sqlite:/// and the path of a file, without parameters")
        return Address(f"{scheme}://{rest}", [])
    kept, dropped = _parameters(
        # PostgreSQL's own default changes nothing.
        parts.query,
        POSTGRES_TAKES | {"schema": "public"},
        POSTGRES_DROPS,
    )
    if "port" in kept and kept["port"].count(",") != kept.get("host", "").count(","):
        raise ValueError("has another number of ports than of hosts in its parameters")
    if kept.pop("schema", None):
        dropped.append("schema")
    return Address(_join(f"{scheme}://{account}{at}{parts.netloc}{parts.path}", kept), dropped)


def _check_characters(address: str) -> None:
    if " " in address or not address.isprintable():
        raise ValueError("holds a space or a character that can't be printed")
    if "\0" in unquote(address):
        raise ValueError("holds a zero byte (%00)")


def _split(address: str) -> SplitResult:
    _check_characters(address)
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
        server = parts.netloc.rpartition("@")[2]
        if "[" in server and not re.fullmatch(r"\[[^]]+\](:[0-9]+)?", server):
            raise ValueError
        if "[" in server or re.fullmatch(r"([0-9]+\.){3}[0-9]+", host or ""):
            ip_address(host or "")
        elif host and not HOST.fullmatch(host):
            raise ValueError
        if port == 0 or server.endswith(":") or "%" in server:
            raise ValueError
    except ValueError:
        raise ValueError(f"has no valid host and port; {ENCODED}") from None
    return parts


def _parameters(
    query: str, takes: Mapping[str, str], drops: set[str]
) -> tuple[dict[str, str], list[str]]:
    kept: dict[str, str] = {}
    dropped: list[str] = []
    for name, value in parse_qsl(query, keep_blank_values=True):
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,29}", name):
            raise ValueError("has a parameter that is not known here: leave it out")
        if name in drops:
            dropped.append(name)
        elif name in kept:
            raise ValueError(f"has the parameter {name} twice")
        elif name in takes and re.fullmatch(takes[name], value):
            kept[name] = value
        elif name in INSTEAD:
            raise ValueError(f"has the parameter {name}: {INSTEAD[name]}")
        elif name in takes:
            raise ValueError(f"has a wrong value for the parameter {name}")
        else:
            raise ValueError(f"has the parameter {name}, which is not known here: leave it out")
    return kept, list(dict.fromkeys(dropped))


def _join(base: str, parameters: Mapping[str, str]) -> str:
    return f"{base}?{urlencode(parameters, quote_via=quote)}" if parameters else base
