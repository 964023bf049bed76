"""Addresses of the history's database: PostgreSQL, or SQLite on one machine."""

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


def database(address: str) -> Address:
    """Check and tidy the address of a PostgreSQL or SQLite database."""
    scheme, separator, rest = address.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("postgresql", "postgres", "sqlite"):
        raise ValueError("begins with postgresql:// (or sqlite:/// and a path, on one machine)")
    check_characters(address)
    # As SQLAlchemy splits it: a password may hold anything but @.
    account, at, server = rest.rpartition("@")
    if "@" in account or "/" in account.partition(":")[0]:
        raise ValueError(f"holds an @ where none can be; {ENCODED}")
    parts = split(f"//{server}")
    if parts.fragment or server.endswith("#"):
        raise ValueError(f"holds a # where none can be; {ENCODED}")
    if scheme == "sqlite":
        if at or parts.netloc or parts.path in ("", "/", "/:memory:") or "?" in server:
            raise ValueError("write sqlite:/// and the path of a file, without parameters")
        return Address(f"{scheme}://{rest}", [])
    kept, dropped = parameters(
        # PostgreSQL's own default changes nothing.
        parts.query,
        POSTGRES_TAKES | {"schema": "public"},
        POSTGRES_DROPS,
        INSTEAD,
    )
    if "port" in kept and kept["port"].count(",") != kept.get("host", "").count(","):
        raise ValueError("has another number of ports than of hosts in its parameters")
    if kept.pop("schema", None):
        dropped.append("schema")
    return Address(join(f"{scheme}://{account}{at}{parts.netloc}{parts.path}", kept), dropped)
