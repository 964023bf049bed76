"""`make run`: what stands in, where it listens, and that nothing is left behind."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from local_stack.__main__ import REAL_SETTINGS, choose_port, environment, stand_ins
from tests.conftest import DEAD_PROXY
from tests.fakes import ADA
from tests.processes import (
    ROOT,
    Stack,
    bare_environment,
    free_port,
    is_alive,
    python_path,
    wait_for,
)

DATA = Path("/data")
PORTS = {"page": 1, "service": 2, "redis": 3, "qstash": 4, "openai": 5}


@pytest.mark.parametrize(
    ("given", "needed"),
    [
        (set(), ["redis", "qstash", "openai"]),
        ({"REDIS_URL"}, ["qstash", "openai"]),
        ({"UPSTASH_REDIS_REST_URL"}, ["qstash", "openai"]),
        ({"QSTASH_TOKEN"}, ["redis", "openai"]),
        ({"OPENAI_API_KEY"}, ["redis", "qstash"]),
        ({"OPENAI_BASE_URL"}, ["redis", "qstash"]),
        ({"REDIS_URL", "QSTASH_TOKEN", "OPENAI_API_KEY"}, []),
        ({"OPENAI_MODEL", "PORT", "QSTASH_DELAY"}, ["redis", "qstash", "openai"]),
    ],
    ids=lambda names: ",".join(sorted(names)) or "none",
)
def test_each_stand_in_steps_aside_by_itself(given: set[str], needed: list[str]) -> None:
    assert stand_ins(given) == needed


@pytest.mark.parametrize("name", REAL_SETTINGS)
def test_the_settings_of_a_real_neighbour_are_left_alone(name: str) -> None:
    needed = [other for other in REAL_SETTINGS if other != name]

    settings = environment(needed, PORTS, DATA, given=REAL_SETTINGS[name])

    prefix = {"redis": "REDIS_URL", "qstash": "QSTASH_", "openai": "OPENAI_"}[name]
    assert {key for key in settings if key.startswith(prefix)} <= {"QSTASH_DELAY"}


def test_what_is_given_wins_over_the_defaults() -> None:
    settings = environment(["qstash"], PORTS, DATA, given={"QSTASH_DELAY", "QSTASH_WEBHOOK_URL"})

    assert "QSTASH_DELAY" not in settings
    assert "QSTASH_WEBHOOK_URL" not in settings


@pytest.mark.parametrize(
    ("is_terminal", "given", "log_format"),
    [(True, set(), "console"), (True, {"LOG_FORMAT"}, None), (False, set(), None)],
)
def test_on_a_terminal_the_log_is_for_people(
    monkeypatch: pytest.MonkeyPatch, is_terminal: bool, given: set[str], log_format: str | None
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)

    assert environment([], PORTS, DATA, given).get("LOG_FORMAT") == log_format


def test_a_taken_port_is_left_to_its_owner(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        taken = owner.getsockname()[1]

        assert choose_port(taken, set()) != taken

    assert f"Port {taken} is taken" in capsys.readouterr().out


def test_no_port_is_given_twice() -> None:
    port = free_port()
    taken: set[int] = set()

    assert len({choose_port(port, taken) for _ in range(3)}) == 3


def test_everything_listens_on_loopback_and_others_can_read_nothing(stack: Stack) -> None:
    """And in the end all of it ends with Ctrl-C: see `start_stack`."""
    listening = [
        connection.laddr.ip
        for child in stack.processes()
        for connection in child.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    data = stack.output_path.parent / "data"

    assert set(listening) == {"127.0.0.1"}
    assert len(listening) >= 5
    assert not [path for path in (data, *data.rglob("*")) if path.stat().st_mode & 0o077]
    for part in ("redis", "qstash", "openai", "service", "page"):
        assert f" {part}" in stack.output


SLEEPERS = """
from local_stack.__main__ import supervise

raise SystemExit(supervise({"one": ["sleep", "60"], "two": ["sleep", "60"]}))
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_end_whatever_runs_as_well(signum: signal.Signals) -> None:
    command = [sys.executable, "-uc", SLEEPERS]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        started = (line for line in process.stdout if " started (pid=" in line)
        assert next(started) != next(started), "honcho loses those that it does not know yet"
        children = psutil.Process(process.pid).children(recursive=True)

        process.send_signal(signum)

        assert process.wait(timeout=30) != 0
        assert not any(map(is_alive, children))


def test_behind_a_proxy_this_machine_is_reached_directly(stack: Stack) -> None:
    assert stack.process_of("gunicorn").environ()["HTTP_PROXY"] == DEAD_PROXY

    sent = httpx.post(f"{stack.service_url}/analyze", json=ADA.model_dump())

    url = f"{stack.service_url}{sent.headers['Location']}"
    wait_for(lambda: httpx.get(url).json()["status"] == "completed")


def test_a_second_start_on_the_same_data_says_so(stack: Stack, tmp_path: Path) -> None:
    second = run_stack(tmp_path, str(stack.output_path.parent / "data"))

    assert second.returncode != 0
    assert "running already" in second.stderr


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"QSTASH_DELAY": "never"}, ["QSTASH_DELAY"]),
        (
            {"QSTASH_TOKEN": "real"},
            ["QSTASH_WEBHOOK_URL", "QSTASH_CURRENT_SIGNING_KEY", "QSTASH_NEXT_SIGNING_KEY"],
        ),
        ({"OPENAI_BASE_URL": "https://models.example/v1"}, ["OPENAI_API_KEY"]),
    ],
    ids=str,
)
def test_settings_that_are_wrong_or_half_are_named_and_nothing_starts(
    tmp_path: Path, settings: dict[str, str], named: list[str]
) -> None:
    ended = run_stack(tmp_path, **settings)

    assert ended.returncode != 0
    assert all(f"{name}: " in ended.stderr for name in named)
    assert "Traceback" not in ended.stderr


def test_data_that_an_older_version_left_readable_is_so_no_more(tmp_path: Path) -> None:
    (tmp_path / ".local").mkdir(mode=0o755)

    run_stack(tmp_path, ".local", tmp_path, PYTHONPATH=python_path(ROOT), QSTASH_DELAY="never")

    assert (tmp_path / ".local").stat().st_mode & 0o777 == 0o700


def run_stack(
    directory: Path, data: str = "", cwd: Path = ROOT, /, **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local_stack", "--data", data or str(directory / "data")],
        cwd=cwd,
        env=bare_environment(directory, **settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
