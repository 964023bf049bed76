"""What the containers of a deployment are told of the options, and what they can do with them."""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import sqlalchemy

from common.settings import PageSettings, ServiceSettings
from operations.packages import require
from operations.settings import OperationsSettings
from tests.integration.test_deploy import (
    AS_ANYBODY,
    COMPOSE,
    environment_of_a_container,
    unpack,
    variables,
)
from tests.processes import ROOT, Stack

GUIDE = (ROOT / "docs" / "deploy.md").read_text()
IN_COMPOSE = r"(?m)^docker compose run --rm service (python -m .*)$"


def test_each_container_gets_the_options_of_its_process_and_nothing_that_nobody_reads() -> None:
    the_others = {
        "page": {"METRICS_TOKEN", "PROMETHEUS_MULTIPROC_DIR"},
        "service": {"METRICS_PORT"},
    }

    for name, kind in (("page", PageSettings), ("service", ServiceSettings)):
        environment = COMPOSE["services"][name]["environment"]
        # Those without a value are a library's, and so is the last one: it is uvicorn's.
        given = {key for key, value in environment.items() if value} - {"FORWARDED_ALLOW_IPS"}
        assert given - variables(kind) == variables(OperationsSettings) - the_others[name]


def interpolate(text: str, given: Mapping[str, str]) -> str:
    """What Compose makes of a value, of which it knows more than this.

    Source: https://docs.docker.com/reference/compose-file/interpolation/
    """

    def value(found: re.Match[str]) -> str:
        name, operator, other = found.groups()
        return other if bool(given.get(name)) == (operator == "+") else given.get(name, "")

    while (text := re.sub(r"\$\{(\w+):([+-])([^${}]*)\}", value, before := text)) != before:
        pass
    return text


@pytest.mark.parametrize(
    "asking",
    ["OPERATOR", "DATABASE_URL", "METRICS_TOKEN", "METRICS_PORT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
)
def test_what_asks_for_an_option_has_its_packages_built_in(asking: str) -> None:
    for name in ("page", "service"):
        (argument,) = COMPOSE["services"][name]["build"]["args"].items()

        assert argument[0] == "OPERATOR"
        assert interpolate(argument[1], {asking: "it"}) != ""
        assert interpolate(argument[1], {"OPENAI_API_KEY": "it"}) == ""


def test_an_image_that_lacks_a_package_says_how_it_gets_it() -> None:
    with pytest.raises(ValueError, match=r"needs no_such_package: .*an image: .*OPERATOR=1"):
        require("no_such_package")


def test_the_guides_database_is_the_one_of_the_profile() -> None:
    (line,) = re.findall(r"(?m)^DATABASE_URL=(postgresql:.*)$", GUIDE)
    url = sqlalchemy.make_url(line.replace("${POSTGRES_PASSWORD}", "secret"))
    environment = COMPOSE["services"][str(url.host)]["environment"]

    assert (url.username, url.database) == (
        environment["POSTGRES_USER"],
        environment["POSTGRES_DB"],
    )
    assert url.password == "secret"
    assert COMPOSE["services"][str(url.host)]["profiles"] == ["history"]
    assert "\nCOMPOSE_PROFILES=history\n" in GUIDE


def test_the_operators_commands_run_in_the_services_image(stack: Stack, tmp_path: Path) -> None:
    """Each line that the guide has, in the files that the image holds, as its user."""
    app = unpack("service", tmp_path / "app")
    data = tmp_path / "data"
    data.mkdir()
    environment = environment_of_a_container(
        stack,
        tmp_path,
        QSTASH_DELAY="1s",
        DATABASE_URL=f"sqlite:///{data}/history.db",
    )
    commands = re.findall(IN_COMPOSE, GUIDE)

    assert {"doctor", "smoke"} <= {re.split(r"[ .]", command)[-1] for command in commands}
    for command in commands:
        words = [sys.executable, *command.split()[1:]]
        subprocess.run([*AS_ANYBODY, *words], cwd=app, env=environment, check=True, timeout=60)
    assert (data / "history.db").stat().st_size > 0


@pytest.mark.parametrize(
    ("file", "says"),
    [
        pytest.param("history.db", "can't be written; in a container use sqlite:////", id="code"),
        pytest.param("no/such/history.db", "there is no such folder", id="nowhere"),
    ],
)
def test_a_file_that_the_images_user_cannot_write_is_named_at_the_start(
    file: str, says: str, stack: Stack, tmp_path: Path
) -> None:
    app = unpack("service", tmp_path / "app")
    environment = environment_of_a_container(stack, tmp_path, DATABASE_URL=f"sqlite:///{file}")

    ended = subprocess.run(
        [*AS_ANYBODY, sys.executable, "-m", "operations", "stats"],
        cwd=app,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 1
    assert "  DATABASE_URL: " in ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
