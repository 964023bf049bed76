"""What an error of the database is, and what to do about it.

The server's own code says it (SQLSTATE), or SQLite's. An error at connecting has none: there, known
parts of its text do. No text is ever quoted: it may hold the address, or what was to be written.

Sources: https://www.postgresql.org/docs/current/errcodes-appendix.html
https://www.sqlite.org/rescode.html
"""

import re

from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from common.unreachable import reason
from operations.history.migrations import UnknownVersion

BUSY = "all connections are busy"
READ_ONLY = "it is read-only (a replica?); point DATABASE_URL at the primary, or let its user write"
DISK_FULL = "its disk is full; make room, or lower HISTORY_DAYS and run purge"
NO_RIGHTS = (
    "its user may not do this; let its user read and write its tables, and make and change them"
)
TOO_SLOW = "it takes too long; look at its load"
NO_ANSWER = "it does not answer in time; look at its load, the network and any firewall"
TOO_MANY = (
    "it has too many connections; raise its limit (max_connections), run fewer processes, "
    "or put a pooler in between"
)
FOREIGN = (
    "its table `analyses` is another program's, or was changed; "
    "give the history a database or schema of its own"
)
WRONG_PASSWORD = "it refuses the password; copy DATABASE_URL again"  # noqa: S105 (a sentence)
NO_DATABASE = "there is no such database; create it, or correct its name in DATABASE_URL"
NO_SCHEMA = "there is no such schema; create it, or correct search_path in DATABASE_URL"
NO_USER = "there is no such user; create it, or correct the user in DATABASE_URL"
NOT_LET_IN = (
    "it doesn't let this user in from here; allow it in pg_hba.conf, or set sslmode=require"
)
STARTING = "it is starting or stopping; wait"
LOST = "it ended the connection; look at its log"
OUT_OF_MEMORY = "its memory is full; look at its load"
ENCODING = "it can't store every character; create it with the encoding UTF8"
NOT_POSTGRES = "what answers there is not PostgreSQL; correct the host and port in DATABASE_URL"
REFUSED = "it refuses the connection; start it, or correct the host and port in DATABASE_URL"
UNKNOWN_HOST = "its host is unknown; correct it in DATABASE_URL, or this machine's DNS"
UNREACHABLE = "there is no way to it; look at the network and any firewall"
NO_TLS = "it has no TLS, and sslmode asks for it; switch it on there, or set sslmode=disable"
NEEDS_TLS = "it wants TLS; set sslmode=require in DATABASE_URL"
NOT_TRUSTED = (
    "its certificate is not trusted; name its authority's file with sslrootcert in DATABASE_URL, "
    "and the host as the certificate does"
)
NOT_FOUND = "its file can't be opened; its directory must be there, and writable"
UNNAMED = "look at the database's log, and check DATABASE_URL"

# Longer codes first: the two characters of a class stand for the rest of it.
BY_STATE = {
    "25006": READ_ONLY,
    "42501": NO_RIGHTS,
    "57014": TOO_SLOW,  # statement_timeout
    "55P03": TOO_SLOW,  # lock_timeout
    "53100": DISK_FULL,
    "53200": OUT_OF_MEMORY,
    "53300": TOO_MANY,
    "57P03": STARTING,
    "28P01": WRONG_PASSWORD,
    "28000": NOT_LET_IN,
    "3D000": NO_DATABASE,
    "3F000": NO_SCHEMA,
    "22P05": ENCODING,
    "22": FOREIGN,  # a value that a column doesn't take
    "57P": LOST,
    "08": LOST,
    "23": FOREIGN,  # a constraint that is none of ours
    "42": FOREIGN,  # another column, type, or table
}
BY_SQLITE_NAME = {
    "SQLITE_READONLY": "its file is read-only; let this user write it, and its directory",
    "SQLITE_CANTOPEN": NOT_FOUND,
    "SQLITE_FULL": DISK_FULL,
    "SQLITE_IOERR": DISK_FULL,
    "SQLITE_BUSY": TOO_SLOW,
    "SQLITE_LOCKED": TOO_SLOW,
    "SQLITE_NOTADB": "its file is no database of SQLite's; name another in DATABASE_URL",
    "SQLITE_ERROR": FOREIGN,
    "SQLITE_CONSTRAINT": FOREIGN,
}
# What libpq, psycopg, servers and poolers say at connecting. Of several attempts (at each host and
# address, with TLS and without) the one that came furthest tells the most.
BY_WORDS = {
    "password authentication failed|no password supplied|SASL": WRONG_PASSWORD,
    r'database "[^"]*" does not exist|no such database': NO_DATABASE,
    r'role "[^"]*" does not exist|no such user|Tenant or user not found': NO_USER,
    "SSL connection is required|connection is insecure|SSL required": NEEDS_TLS,
    "server does not support SSL|SSL not in use": NO_TLS,
    "certificate verify failed|root certificate|does not match host name": NOT_TRUSTED,
    "pg_hba.conf": NOT_LET_IN,
    "session is read-only|hot standby|session is not primary": READ_ONLY,
    "too many c|remaining connection slots|Max client|max_client_conn": TOO_MANY,
    "starting up|shutting down|not yet accepting|in recovery": STARTING,
    "invalid response to SSL|expected authentication request": NOT_POSTGRES,
    "Connection refused|No such file or directory": REFUSED,
    "failed to resolve host|could not translate host name": UNKNOWN_HOST,
    "Network is unreachable|No route to host": UNREACHABLE,
    "timeout expired|timed out": NO_ANSWER,
    "server closed the connection|Connection reset|EOF detected|connection is lost": LOST,
    "permission denied": NO_RIGHTS,
    "closed database|unable to open": NOT_FOUND,
}


def cause(error: Exception) -> str:
    """Name an error by its class, and say what it is; what to do; where that is known."""
    if isinstance(error, UnknownVersion):
        return str(error)
    if isinstance(error, PoolTimeoutError):
        return BUSY
    original = getattr(error, "orig", None) or error
    return f"{type(original).__name__}: {_what_it_is(original)}"


def _what_it_is(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None) or ""
    if found := [words for start, words in BY_STATE.items() if state and state.startswith(start)]:
        return found[0]
    name = getattr(error, "sqlite_errorname", None) or ""
    if found := [words for start, words in BY_SQLITE_NAME.items() if name.startswith(start)]:
        return found[0]
    text = str(error)
    if found := [words for pattern, words in BY_WORDS.items() if re.search(pattern, text)]:
        return found[0]
    if isinstance(error, TimeoutError):
        return NO_ANSWER
    if why := reason(error):
        return f"{why}; check DATABASE_URL, and the network"
    return UNNAMED
