"""Addresses from the environment: which ones the clients can use, decided without a client.

Those of the web and of Redis are here. An option checks its own, with the same helpers. Each
function raises ValueError with a sentence that quotes no value: half a password may stand anywhere
in a malformed address.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit

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
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


class Address(NamedTuple):
    """What the client gets, and the names of the parameters that were left out of it."""

    url: str
    dropped: list[str]


def is_loopback(url: str) -> bool:
    """Whether an address is one of this machine alone."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host in LOOPBACK_NAMES or bool(re.fullmatch(r"127(\.\d{1,3}){1,3}", host))


def is_upstash(url: str) -> bool:
    """Whether an address is one of Upstash's own."""
    return (urlsplit(url).hostname or "").endswith("upstash.io")


def web(address: str) -> str:
    """Check a base address, to which clients add paths."""
    parts = split(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("write a whole address, beginning with https:// (or http://)")
    if "@" in address:
        raise ValueError("holds a user or password, which is not sent from here: leave it out")
    if "?" in address or "#" in address:
        raise ValueError("holds a ? or #: write the address without parameters or fragment")
    return address


def redis(address: str) -> Address:
    """Check and tidy the address of a Redis-compatible server."""
    parts = split(address)
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
    instead = dict.fromkeys(REDIS_TLS, "begin with rediss:// instead") if scheme == "redis" else {}
    kept, dropped = parameters(query, takes, REDIS_DROPS, instead)
    if "ssl_keyfile" in kept and "ssl_certfile" not in kept:
        raise ValueError("has the parameter ssl_keyfile without ssl_certfile")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if name in kept and not Path(kept[name]).is_file():
            raise ValueError(f"names a file that is not there, in the parameter {name}")
    return Address(join(f"{scheme}://{parts.netloc}{path}", kept), dropped)


def check_characters(address: str) -> None:
    """Raises: ValueError."""
    if " " in address or not address.isprintable():
        raise ValueError("holds a space or a character that can't be printed")
    try:
        meant = unquote(address, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("holds bytes behind a % that are no UTF-8; % itself is %25") from None
    if "\0" in meant:
        raise ValueError("holds a zero byte (%00)")


def split(address: str) -> SplitResult:
    """Split an address whose host and port can be used. Raises: ValueError."""
    check_characters(address)
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


def parameters(
    query: str,
    takes: Mapping[str, str],
    drops: set[str],
    instead: Mapping[str, str] = MappingProxyType({}),
) -> tuple[dict[str, str], list[str]]:
    """Read what stands behind the `?`: what is taken, and the names of what was left out.

    `takes` has a pattern for each value, `instead` what to write for a name that isn't taken.
    Raises: ValueError.
    """
    kept: dict[str, str] = {}
    dropped: list[str] = []
    # Not by `parse_qsl`: a + in a password is none of a form's spaces.
    pairs = [pair.partition("=") for pair in query.split("&")] if query else []
    for number, (name, value) in enumerate(((unquote(n), unquote(v)) for n, _, v in pairs), 1):
        if name in drops:
            dropped.append(name)
        elif name in kept:
            raise ValueError(f"has the parameter {name} twice")
        elif name in takes and re.fullmatch(takes[name], value):
            kept[name] = value
        elif name in instead:
            raise ValueError(f"has the parameter {name}: {instead[name]}")
        elif name in takes:
            raise ValueError(f"has a wrong value for the parameter {name}")
        else:  # not by its name, which may be a piece of a password behind a & of its own
            raise ValueError(f"has a parameter, number {number}, that is not known: leave it out")
    return kept, list(dict.fromkeys(dropped))


def join(base: str, kept: Mapping[str, str]) -> str:
    """Put the parameters behind the address."""
    return f"{base}?{urlencode(kept, quote_via=quote)}" if kept else base
