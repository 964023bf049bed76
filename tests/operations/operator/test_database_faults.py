"""What the doctor says of a database that can't be used: each kind by its own words."""

import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from operations.doctor import examine, history_answers, make_clients
from operations.history import causes, connections
from operations.history.database import Database
from tests.certificates import make_certificate
from tests.conftest import make_options, make_settings
from tests.postgres import Postgres

RULES = """
host all guarded all scram-sha-256
host all banned  all reject
host all all     all trust
"""
ROLES = """
CREATE ROLE guarded LOGIN PASSWORD 'right';
CREATE ROLE banned LOGIN;
CREATE ROLE crowded LOGIN CONNECTION LIMIT 0;
CREATE ROLE adder LOGIN;
CREATE ROLE hoarder LOGIN;
"""


@pytest.fixture(scope="module")
def server(postgres: Postgres) -> Iterator[psycopg.Connection]:
    """A server with users of several kinds."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        for (path,) in connection.execute("SHOW hba_file"):
            rules = Path(path)
        before = rules.read_text()
        rules.write_text(RULES)
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(ROLES)
        connection.execute("CREATE SCHEMA tried")
        yield connection
        connection.execute("DROP SCHEMA tried CASCADE")
        for role in ("guarded", "banned", "crowded", "adder", "hoarder"):
            connection.execute(f"DROP OWNED BY {role}")
            connection.execute(f"DROP ROLE {role}")
        rules.write_text(before)
        connection.execute("SELECT pg_reload_conf()")


@pytest.fixture
def schema(server: psycopg.Connection) -> psycopg.Connection:
    """An empty one, `tried`, which is the connection's own."""
    server.execute("DROP SCHEMA tried CASCADE")
    server.execute("CREATE SCHEMA tried")
    server.execute("SET search_path = tried")
    return server


def found_at(url: str) -> str:
    at = make_clients(make_settings(), make_options(database_url=url))
    (found,) = examine(at, [history_answers])
    return str(found)


def address(postgres: Postgres, user: str = "tester", name: str = "postgres", **more: str) -> str:
    parameters = "&".join(f"{key}={quote(value)}" for key, value in more.items())
    return f"postgresql://{user}@127.0.0.1:{postgres.port}/{name}?{parameters}"


IN_SCHEMA = {"options": "-csearch_path=tried"}


@pytest.mark.parametrize(
    ("user", "name", "sentence"),
    [
        ("guarded:hunter2", "postgres", causes.WRONG_PASSWORD),
        ("guarded", "postgres", causes.WRONG_PASSWORD),
        ("tester", "nowhere", causes.NO_DATABASE),
        ("nobody", "postgres", causes.NO_USER),
        ("banned", "postgres", causes.NOT_LET_IN),
        ("crowded", "postgres", causes.TOO_MANY),
    ],
)
def test_who_is_not_let_in_is_told_why(
    server: psycopg.Connection, postgres: Postgres, user: str, name: str, sentence: str
) -> None:
    found = found_at(address(postgres, user, name))

    assert found == f"The history can't be written (database: OperationalError: {sentence})."


def answer_as_the_web(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_what_stands_in_the_way_of_a_connection_is_told(postgres: Postgres) -> None:
    assert causes.REFUSED in found_at("postgresql://127.0.0.1:1/name")
    assert causes.REFUSED in found_at("postgresql:///name?host=/nowhere")
    assert causes.UNKNOWN_HOST in found_at("postgresql://name.invalid/name")
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor() as threads:
        port = other.getsockname()[1]
        threads.submit(answer_as_the_web, other)
        assert causes.NOT_POSTGRES in found_at(f"postgresql://127.0.0.1:{port}/name")


def test_of_several_attempts_the_one_that_came_furthest_is_told(
    server: psycopg.Connection, postgres: Postgres
) -> None:
    hosts = f"127.0.0.1:1,name.invalid,127.0.0.1:{postgres.port}"

    assert causes.WRONG_PASSWORD in found_at(f"postgresql://guarded:hunter2@{hosts}/postgres")


def test_a_database_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CHECK_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = found_at(f"postgresql://127.0.0.1:{silent.getsockname()[1]}/name")

    assert causes.NO_ANSWER in found


def test_what_is_wrong_with_tls_is_told(
    server: psycopg.Connection, postgres: Postgres, tmp_path: Path
) -> None:
    without = found_at(address(postgres, sslmode="require"))
    certificate, key = make_certificate(tmp_path)
    for (folder,) in server.execute("SHOW data_directory"):
        data = Path(folder)
    owner = data.stat()
    for path, name in ((certificate, "server.crt"), (key, "server.key")):
        (data / name).write_bytes(path.read_bytes())
        (data / name).chmod(0o600)
        os.chown(data / name, owner.st_uid, owner.st_gid)
    server.execute("ALTER SYSTEM SET ssl = on")
    server.execute("SELECT pg_reload_conf()")
    try:
        wanted = {"sslmode": "verify-full"}
        unknown = found_at(address(postgres, **wanted))
        other_name = found_at(address(postgres, **wanted, sslrootcert=str(certificate)))
        known = address(postgres, **wanted, sslrootcert=str(certificate))
        right = found_at(known.replace("127.0.0.1", "localhost"))
    finally:
        server.execute("ALTER SYSTEM RESET ssl")
        server.execute("SELECT pg_reload_conf()")

    assert causes.NO_TLS in without
    assert causes.NOT_TRUSTED in unknown
    assert causes.NOT_TRUSTED in other_name
    assert right == "The history can be written."


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE analyses (id int)",
        "CREATE VIEW analyses AS SELECT 1 AS request_id",
    ],
)
def test_a_table_of_another_program_is_told(
    schema: psycopg.Connection, postgres: Postgres, statement: str
) -> None:
    schema.execute(statement)

    assert causes.FOREIGN in found_at(address(postgres, **IN_SCHEMA))


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("ALTER TABLE analyses DROP COLUMN record", causes.FOREIGN),
        ("ALTER TABLE analyses ADD COLUMN theirs int NOT NULL", causes.FOREIGN),
        ("ALTER TABLE analyses ALTER COLUMN record TYPE varchar(3)", causes.FOREIGN),
        ("ALTER TABLE analyses DROP CONSTRAINT analyses_pkey", causes.FOREIGN),
        ("CREATE RULE keep AS ON INSERT TO analyses DO INSTEAD NOTHING", "database: "),
        ("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA tried TO adder", causes.NO_RIGHTS),
        ("GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA tried TO hoarder", causes.NO_RIGHTS),
    ],
)
def test_a_table_that_does_not_take_what_deliveries_write_is_told(
    schema: psycopg.Connection, postgres: Postgres, statement: str, sentence: str
) -> None:
    url = address(postgres, **IN_SCHEMA)
    assert found_at(url) == "The history can be written."
    schema.execute(statement)
    for user in ("adder", "hoarder"):
        if user in statement:
            schema.execute(f"GRANT USAGE ON SCHEMA tried TO {user}")
            url = address(postgres, user, **IN_SCHEMA)

    assert sentence in found_at(url)


def test_a_schema_that_is_not_there_is_told(server: psycopg.Connection, postgres: Postgres) -> None:
    assert causes.NO_SCHEMA in found_at(address(postgres, options="-csearch_path=nowhere"))


def test_a_database_that_cannot_store_every_character_is_told(
    server: psycopg.Connection, postgres: Postgres
) -> None:
    server.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    try:
        found = found_at(address(postgres, name="latin"))
    finally:
        server.execute("DROP DATABASE latin WITH (FORCE)")

    assert causes.ENCODING in found


def test_a_file_that_cannot_be_a_database_is_told(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"no database" * 100)

    assert causes.NOT_FOUND in found_at(f"sqlite:///{tmp_path}")
    assert causes.BY_SQLITE_NAME["SQLITE_NOTADB"] in found_at(f"sqlite:///{other}")


def test_the_trial_leaves_nothing_and_harms_nothing(
    schema: psycopg.Connection, postgres: Postgres, tmp_path: Path
) -> None:
    url = address(postgres, **IN_SCHEMA)

    assert found_at(url) == found_at(f"sqlite:///{tmp_path}/history.db")

    assert schema.execute("SELECT count(*) FROM analyses").fetchone() == (0,)
    file = Database(make_options(database_url=f"sqlite:///{tmp_path}/history.db"))
    assert file.reports.counts() == []
