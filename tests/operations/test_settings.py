"""The settings of the options: checked at start like the core's, and documented like them."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from common.environment import SettingsError, load
from common.options import load_with_options
from common.settings import PageSettings, ServiceSettings
from operations.limit_settings import SPEND_LIMITS
from operations.settings import OperationsSettings
from tests.addresses import assert_named_and_not_quoted
from tests.processes import ROOT, run_python
from tests.unit.test_settings import (
    GOOD,
    check_rows,
    example,
    secrets,
    set_variables,
)

__all__ = ["secrets"]


class AllSettings(OperationsSettings, ServiceSettings):
    """Every variable there is."""


def load_with(
    monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, str | None] | None = None
) -> AllSettings:
    set_variables(monkeypatch, changes)
    return load(AllSettings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VISITOR_SUBMISSIONS_PER_HOUR", "-5"),
        ("SUBMISSIONS_PER_HOUR", "many"),
        ("MOST_WAITING", "-3"),
        ("DAILY_ANALYSES", "1.5"),
        ("DAILY_TOKENS", "-100"),
        ("DAILY_TOKENS", "1e6 tokens"),
        ("DATABASE_URL", "mysql://user:password@host/name"),
        ("DATABASE_URL", "host/name"),
        ("DATABASE_URL", "sqlite:history.db"),
        ("DATABASE_URL", "postgresql://user:hunter@host:port/name"),
        ("HISTORY_DAYS", "0"),
        ("HISTORY_DAYS", "forever"),
        ("KEEP_INPUT", "perhaps"),
        ("METRICS_TOKEN", "metrics"),
    ],
)
def test_a_malformed_variable_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(monkeypatch, {name: value})

    assert_named_and_not_quoted(caught.value, name, value)


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        pytest.param(name, value, problem, id=f"{name.lower()}-{case}")
        for name, case, value, problem in [
            (
                "DATABASE_URL",
                "unknown",
                "postgresql://host/name?user=u&hunter2",
                "a parameter, number 2, that",
            ),
            (
                "DATABASE_URL",
                "schema",
                "postgresql://host/name?schema=hunter2",
                "options=-csearch_path",
            ),
            ("DATABASE_URL", "ssl", "postgresql://host/name?ssl=hunter2", "write sslmode=require"),
            (
                "DATABASE_URL",
                "sslmode",
                "postgresql://host/name?sslmode=no-verify",
                "parameter sslmode",
            ),
            (
                "DATABASE_URL",
                "twice",
                "postgresql://host/name?user=a&user=b",
                "parameter user twice",
            ),
            ("DATABASE_URL", "ports", "postgresql:///name?host=a,b&port=1", "number of ports"),
            ("DATABASE_URL", "port 0", "postgresql://host:0/name", "no valid host and port"),
            ("DATABASE_URL", "no port", "postgresql://host:/name", "no valid host and port"),
            ("DATABASE_URL", "encoded host", "postgresql://%2Frun/name", "no valid host and port"),
            ("DATABASE_URL", "space", "postgresql://user:hunter2@host/na me", "holds a space"),
            ("DATABASE_URL", "zero byte", "postgresql://user:hunter%00@host/name", "a zero byte"),
            ("DATABASE_URL", "at", "postgresql://user:hunter@2@host/name", "holds an @"),
            ("DATABASE_URL", "two ats", "postgresql://user:a@b:hunter2/z@host", "holds an @"),
            ("DATABASE_URL", "user", "postgresql://host:1/name?user=me@hunter2", "holds an @"),
            ("DATABASE_URL", "hosts", "postgresql://a,b/name?host=hunter2", "several hosts"),
            ("DATABASE_URL", "fragment", "postgresql://host/name#hunter2", "holds a #"),
            ("DATABASE_URL", "file", "sqlite:///history.db?timeout=hunter2", "the path of a file"),
            ("DATABASE_URL", "host", "sqlite://history.db", "the path of a file"),
            ("DATABASE_URL", "memory", "sqlite:///:memory:", "the path of a file"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "query", "http://x.example?hunter2", "holds a ? or #"),
        ]
    ],
)
def test_an_address_that_no_client_can_use_is_told_at_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(monkeypatch, {"UPSTASH_REDIS_REST_TOKEN": "token", name: value})

    (told,) = str(caught.value).splitlines()[1:]
    assert told.startswith(f"  {name}: ")
    assert problem in told
    assert "hunter" not in told


def test_the_options_are_checked_where_they_are_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {**GOOD, "HISTORY_DAYS": "7"}.items():
        monkeypatch.setenv(name, value)

    settings, chosen = load_with_options(ServiceSettings)

    assert isinstance(chosen, OperationsSettings)
    assert (settings.port, chosen.history_days) == (3001, 7)


def test_env_example_lists_exactly_the_settings() -> None:
    names = [name for name, _ in example()]
    assert sorted(names) == sorted(name.upper() for name in AllSettings.model_fields)


def test_env_example_and_the_guide_tell_the_default_of_each_limit() -> None:
    example = (ROOT / ".env.example").read_text()
    guide = (ROOT / "docs" / "operating.md").read_text()

    for name in SPEND_LIMITS:
        default = AllSettings.model_fields[name].default
        assert default > 0
        assert re.search(rf"(?m): {default}\n{name.upper()}=$", example), name
        assert f"| `{name.upper()}` ({default:,}) |" in guide


def test_an_explicit_zero_switches_a_limit_off_and_an_empty_value_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_with(monkeypatch, {"DAILY_ANALYSES": "0", "MOST_WAITING": ""})

    assert settings.unlimited == ["DAILY_ANALYSES"]
    assert settings.most_waiting == 1000


def test_several_kinds_are_read_at_once_and_all_their_problems_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load_with(monkeypatch)

    settings, options = load(ServiceSettings, OperationsSettings)
    monkeypatch.setenv("QSTASH_DELAY", "soon")
    monkeypatch.setenv("HISTORY_DAYS", "0")
    with pytest.raises(SettingsError) as caught:
        load(PageSettings, AllSettings)

    assert (settings.port, options.history_days) == (3001, 30)
    named = [line.partition(":")[0].strip() for line in str(caught.value).splitlines()[1:]]
    assert sorted(named) == ["HISTORY_DAYS", "QSTASH_DELAY"]


def test_secrets_of_an_option_may_stand_in_files(
    monkeypatch: pytest.MonkeyPatch, secrets: Path
) -> None:
    (secrets / "METRICS_TOKEN").write_text("a-token-of-this-test")
    (secrets / "KEEP_INPUT").write_text("\ufefftrue\n")  # with the mark that some editors put first

    settings = load_with(monkeypatch)

    assert settings.metrics_token == SecretStr("a-token-of-this-test")
    assert settings.keep_input


def test_a_secret_whose_file_is_named_by_a_variable_is_told_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("DATABASE_URL_FILE=/run/hunter2\n")

    with pytest.raises(SettingsError) as caught:
        load_with(monkeypatch)

    (told,) = str(caught.value).splitlines()[1:]
    assert told.startswith("  DATABASE_URL_FILE: is not read: put what that file holds as DATABASE")


def test_env_example_gives_the_defaults() -> None:
    for name, value in example():
        default = AllSettings.model_fields[name.lower()].default
        assert not value or value == str(default).removesuffix(".0")


def test_each_setting_has_a_description_and_a_row_of_its_own() -> None:
    check_rows(OperationsSettings)


def test_the_page_of_settings_is_what_is_made_of_the_classes() -> None:
    made = run_python(["-m", "docs.settings_table"], ROOT)

    assert made.stdout == (ROOT / "docs" / "settings.md").read_text(), "run: make settings"
