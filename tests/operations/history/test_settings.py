"""Which addresses of a database are taken, and what the drivers make of them."""

import json

import hypothesis
import pytest
from hypothesis import given
from psycopg.conninfo import make_conninfo

from common.environment import SettingsError
from operations.history.address import POSTGRES_TAKES, database
from operations.history.connections import make_engine
from operations.history.database import Database
from tests.addresses import SEARCHED, addresses, parameters
from tests.operations.test_settings import AllSettings, load_with


def libpq_takes(settings: AllSettings) -> str:
    """What the driver makes of the address, as one string. Raises what a connection would."""
    assert settings.database_url
    engine = make_engine(database(settings.database_url.get_secret_value()).url)
    arguments, options = engine.dialect.create_connect_args(engine.url)
    options.pop("context", None)  # the dialect's own
    return make_conninfo(*arguments, **options)


@pytest.mark.parametrize(
    ("value", "taken"),
    [
        pytest.param(
            "postgres://u:p@host/name?pgbouncer=true&connection_limit=1&sslmode=require",
            "host=host dbname=name user=u password=p sslmode=require",
            id="a pooler's",
        ),
        pytest.param(
            "postgresql://host/name?schema=public&pool_timeout=0&connect_timeout=30",
            "host=host dbname=name",
            id="Prisma's",
        ),
        pytest.param(
            "postgresql://u:a/b?c#d@host/name",
            "host=host dbname=name user=u password=a/b?c#d",
            id="password",
        ),
        pytest.param(
            "postgresql:///name?host=/cloudsql/a:b:c",
            "dbname=name host=/cloudsql/a:b:c",
            id="socket",
        ),
        pytest.param(
            "postgresql:///name?host=a,b&port=1,2&target_session_attrs=any",
            "dbname=name host=a,b port=1,2 target_session_attrs=any",
            id="two hosts in parameters",
        ),
        pytest.param(
            "postgresql://u:p@a:1,b/name",
            "dbname=name user=u password=p host=a,b port=1,5432 target_session_attrs=read-write",
            id="two hosts",
        ),
        pytest.param(
            "postgres://[::1]:1,b:2/name?target_session_attrs=primary",
            "dbname=name target_session_attrs=primary host=::1,b port=1,2",
            id="two hosts, one by its number",
        ),
        pytest.param(
            "postgresql://host/name?options=-csearch_path%3Dmine",
            "host=host dbname=name options=-csearch_path=mine",
            id="schema",
        ),
    ],
)
def test_an_address_as_hosts_hand_it_out_reaches_the_driver(
    monkeypatch: pytest.MonkeyPatch, value: str, taken: str
) -> None:
    assert libpq_takes(load_with(monkeypatch, {"DATABASE_URL": value})) == taken


def test_a_history_without_its_packages_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("operations.packages.find_spec", lambda _: None)

    with pytest.raises(SettingsError, match=r"DATABASE_URL: .* requirements-operator\.txt"):
        load_with(monkeypatch, {"DATABASE_URL": "postgresql://user:hunter2@host/name"})


def test_what_is_left_out_of_an_address_is_logged_by_name_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = "postgresql://host/name?schema=public&supa=hunter2"
    Database(load_with(monkeypatch, {"DATABASE_URL": url}))

    (event,) = [json.loads(line) for line in caplog.text.splitlines()]
    assert event["event"] == "parameters left out"
    assert event["cause"] == "DATABASE_URL: supa, schema"
    assert "hunter2" not in caplog.text


PARAMETER = parameters(
    *("sslmode=require", "schema=public", "pgbouncer=true", "options=-c%20a=b"),
    names=[*POSTGRES_TAKES, "foo"],
)


@given(address=addresses(("postgresql", "Postgres", "sqlite"), PARAMETER))
@hypothesis.settings(SEARCHED)
def test_nothing_but_a_sentence_comes_of_a_wrong_address(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    try:
        settings = load_with(monkeypatch, {"DATABASE_URL": address})
    except SettingsError:
        return

    if address.lower().startswith("postgres"):
        libpq_takes(settings)
    elif address:
        Database(settings)
