"""Addresses of the history's database: PostgreSQL, or SQLite on one machine."""

import re

from common.addresses import (
    ANY,
    ENCODED,
    NUMBER,
    Address,
    check_characters,
    join,
    parameters,
    split,
)

POSTGRES_PORT = 5432
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
    "load_balance_hosts": "disable|random",
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


# Of `host:5432/name?user=me@work` this is what would else be a user and a password.
LIKE_A_PORT = re.compile(r"[^:]*:[0-9]{1,5}(/[^?]*)?\?[a-z_]+=")


def database(address: str) -> Address:
    """Check and tidy the address of a PostgreSQL or SQLite database."""
    scheme, separator, rest = address.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("postgresql", "postgres", "sqlite"):
        raise ValueError("begins with postgresql:// (or sqlite:/// and a path, on one machine)")
    check_characters(address)
    # As SQLAlchemy splits it: a password may hold anything but @.
    account, at, server = rest.rpartition("@")
    user = account.partition(":")[0]
    if "@" in account or re.search("[/?#]", user) or LIKE_A_PORT.match(account):
        raise ValueError(f"holds an @ where none can be; {ENCODED}")
    if "#" in server:
        raise ValueError(f"holds a # where none can be; {ENCODED}")
    if scheme == "sqlite":
        if at or server[:1] != "/" or server in ("/", "/:memory:") or "?" in server:
            raise ValueError("write sqlite:/// and the path of a file, without parameters")
        return Address(f"{scheme}://{rest}", [])
    return _postgres(f"{account}{at}", server)


def _postgres(account: str, server: str) -> Address:
    """Check what stands behind the account: `host:5432,host:5432/name?name=value`."""
    hosts = re.split("[/?]", server, maxsplit=1)[0]
    path, _, query = server.removeprefix(hosts).partition("?")
    parts = [split(f"//{each}") for each in hosts.split(",")]
    kept, dropped = parameters(
        query,
        # PostgreSQL's own default changes nothing.
        POSTGRES_TAKES | {"schema": "public"},
        POSTGRES_DROPS,
        INSTEAD,
    )
    if kept.pop("schema", None):
        dropped.append("schema")
    if len(parts) > 1:
        if "host" in kept or "port" in kept or not all(each.hostname for each in parts):
            raise ValueError("names several hosts, some of them not at all or twice")
        kept["host"] = ",".join(str(each.hostname) for each in parts)
        kept["port"] = ",".join(str(each.port or POSTGRES_PORT) for each in parts)
        hosts = ""
    if "port" in kept and kept["port"].count(",") != kept.get("host", "").count(","):
        raise ValueError("has another number of ports than of hosts in its parameters")
    if "," in kept.get("host", ""):
        # A history is written: a replica is none of them, wherever it stands in the list.
        kept.setdefault("target_session_attrs", "read-write")
    return Address(join(f"postgresql://{account}{hosts}{path}", kept), dropped)
