"""The connection to Redis: bounded in time, and left when another server may have taken over.

The only importer of redis. Whoever keeps something in Redis takes a `Connection`: the records
(`store.py`), and the options that count.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, ClassVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from common import addresses
from common.events import StoreName
from common.keys import with_prefix
from common.logs import get_logger
from common.settings import Settings
from common.unreachable import reason

SOCKET_TIMEOUT_SECONDS = 1.0  # at worst four of them: connecting and the command, each twice
MAX_CONNECTIONS = 512  # as many as gunicorn's threads: nobody waits for one; opened when needed
CONNECTION_TTL_SECONDS = 60.0  # its server may be a replica since, and tell a reader old things

# Another server may have taken this one's place behind the same address. After LOADING or a refused
# password the library connects anew by itself; MASTERDOWN is one of CLUSTERDOWN to it.
ELSEWHERE = redis.exceptions.ReadOnlyError, redis.exceptions.ClusterDownError
REMEDIES = {
    "ReadOnlyError": "it is a read-only replica; REDIS_URL must lead to the primary",
    "MasterDownError": "it is a replica without its primary; REDIS_URL must lead to the primary",
    "NOREPLICAS": "too few replicas are connected (min-replicas-to-write); start them, or lower it",
    "BusyLoadingError": "it is loading its data after a start; wait",
    "OutOfMemoryError": "its memory is full; raise maxmemory, or lower ANALYSIS_TTL_SECONDS",
    "MISCONF": "it can't write to its disk; free some space there",
    "NoPermissionError": "its user may not do this; let it use all keys (~*), and +@read +@write "
    "+@scripting +@connection +info +time +scan",
    "SELECT": "it has no database of this number; correct it in REDIS_URL",
    "ClusterCrossSlotError": "it is a cluster; use a single server, with replicas if you like",
    "MovedError": "it is a cluster; use a single server, with replicas if you like",
    "ClusterDownError": "it is a cluster; use a single server, with replicas if you like",
}

Client = redis.Redis
ConnectionPool = redis.ConnectionPool
Script = Callable[[list[str], list[Any]], Any]

log = get_logger(__name__)


class StoreUnavailable(Exception):
    """Redis can't be used just now. The change may have happened; repeating it is safe."""

    store: ClassVar[StoreName] = "redis"
    retry_after: timedelta = timedelta(seconds=10)


class NotReached(StoreUnavailable):
    """No Redis answers there."""


class PasswordRefused(StoreUnavailable):
    """Redis answers, and refuses the password."""


class NotOurs(StoreUnavailable):
    """What is stored under a key of ours is not of the type that we store there."""


class _Pool(redis.BlockingConnectionPool):
    """Connections that can all be left, and are none of them kept for long.

    Each is closed by the thread that takes it next: no other uses it then.
    """

    _left_at = 0.0

    def leave(self) -> None:
        """Connect anew before the next command: this server is not the one it was."""
        self._left_at = time.monotonic()

    def get_connection(self, *arguments: Any, **options: Any) -> Any:
        connection = super().get_connection(*arguments, **options)  # type: ignore[no-untyped-call]
        now = time.monotonic()
        opened_at = getattr(connection, "opened_at", now)
        if opened_at < max(self._left_at, now - CONNECTION_TTL_SECONDS):
            try:
                connection.disconnect()
                connection.connect()
            except BaseException:
                self.release(connection)  # type: ignore[no-untyped-call]
                raise
            opened_at = now
        connection.opened_at = opened_at
        return connection


class _Pipeline(redis.client.Pipeline):
    """Puts the client's prefix before the names of keys."""

    prefix = ""

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        arguments = with_prefix(self.prefix, arguments)
        return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]


class _Client(redis.Redis):
    """Repeats a command once where another server may have taken over; all are safe to repeat.

    Puts a prefix before the names of keys.
    """

    prefix = ""

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> _Pipeline:
        """Send several commands at once."""
        pool, callbacks = self.connection_pool, self.response_callbacks
        pipeline = _Pipeline(pool, callbacks, transaction, shard_hint)
        pipeline.prefix = self.prefix
        return pipeline

    def execute_command(self, *arguments: Any, **options: Any) -> Any:
        arguments = with_prefix(self.prefix, arguments)
        try:
            return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]
        except redis.RedisError as error:
            if not _leave(self.connection_pool, error):
                raise
        return super().execute_command(*arguments, **options)  # type: ignore[no-untyped-call]


def _leave(pool: redis.ConnectionPool, error: Exception) -> bool:
    """Leave the server if the error may be this one's alone; say whether it was left."""
    is_left = isinstance(error, ELSEWHERE) or _name(error) == "NOREPLICAS"
    if is_left and isinstance(pool, _Pool):
        pool.leave()
        return True
    return False


def unavailable(pool: ConnectionPool, error: Exception) -> StoreUnavailable:
    """Name an error of Redis with what to do, and leave this server if another may be well."""
    _leave(pool, error)
    name = _name(error)
    is_network = type(error) in (redis.ConnectionError, redis.TimeoutError)
    remedy = REMEDIES.get(name) or (reason(error) if is_network else None)
    kind = NotReached if is_network else StoreUnavailable
    if isinstance(error, redis.AuthenticationError):
        kind = PasswordRefused
    return kind(f"Redis: {name} ({remedy})" if remedy else f"Redis: {name}")


def _name(error: Exception) -> str:
    """Name an error by its class, or by the server's own code where the library has no class."""
    if type(error) is redis.ResponseError:
        if "ACL failure in script" in str(error):
            return redis.exceptions.NoPermissionError.__name__
        if "DB index" in str(error):
            return "SELECT"
        if code := re.match(r"[A-Z]{5,}\b", str(error)):
            return code[0]
    return type(error).__name__


def connect(settings: Settings) -> redis.Redis:
    """Make a client whose every command is answered, or fails, within about 4 s."""
    url, dropped = addresses.redis(settings.redis_url.get_secret_value())
    if dropped:
        log.warning("parameters left out", cause=f"REDIS_URL: {', '.join(dropped)}")
    pool = _Pool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=SOCKET_TIMEOUT_SECONDS,
        decode_responses=True,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=SOCKET_TIMEOUT_SECONDS,
        retry=Retry(NoBackoff(), 1),
        health_check_interval=30,
    )
    client = _Client(connection_pool=pool)
    client.prefix = settings.redis_key_prefix
    return client


class Connection:
    """A client, with every error of Redis turned into StoreUnavailable."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.prefix = client.prefix if isinstance(client, _Client) else ""

    @property
    def pool(self) -> ConnectionPool:
        """The connections, for a library that brings its own commands."""
        return self.client.connection_pool

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Run commands within. Raises: StoreUnavailable."""
        try:
            yield
        except UnicodeDecodeError:
            raise NotOurs("a stored value is not UTF-8") from None
        except redis.RedisError as error:
            if _name(error) == "WRONGTYPE":
                raise NotOurs("a stored value is of another type") from error
            raise unavailable(self.pool, error) from error

    def script(self, source: str) -> Script:
        """Prepare a Lua script: one atomic step, which must be safe to repeat."""
        registered = self.client.register_script(source)

        def run(keys: list[str], args: list[Any]) -> Any:
            with self.errors():
                try:
                    return registered(keys=keys, args=args)
                except redis.exceptions.NoScriptError:
                    # One server has loaded it, and another was to run it.
                    return registered(keys=keys, args=args)

        return run

    def refusal(self, answer: str) -> StoreUnavailable:
        """Name an error that a script met and went on after."""
        return unavailable(self.pool, redis.ResponseError(answer))

    def setting(self, name: str) -> str | None:
        """Read one of the server's settings; None where its host keeps them to itself."""
        with self.errors():
            try:
                value: str | None = self.client.config_get(name).get(name)
            except redis.ResponseError:
                return None
        return value
