"""`make run`: start everything on this machine, with a stand-in for each account you lack.

A stand-in is left out as soon as its real settings are in `.env` or the environment.
"""

import fcntl
import os
import shlex
import signal
import socket
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import TextIO

from honcho.manager import Manager

from common.environment import SettingsError, given_names
from common.settings import DEVELOPMENT_TOKEN, ServiceSettings
from common.tasks import load_task
from local_stack import openai_server, qstash_queue

HOST = "127.0.0.1"
LOCAL_DELAY = "5s"  # a newcomer sees the result at once
LIMITS = (  # off here: who works on the product submits as often as they like
    "VISITOR_SUBMISSIONS_PER_HOUR",
    "SUBMISSIONS_PER_HOUR",
    "MOST_WAITING",
    "DAILY_ANALYSES",
    "DAILY_TOKENS",
)
REAL_SETTINGS = {
    "redis": {"REDIS_URL", "UPSTASH_REDIS_REST_URL"},
    "qstash": {"QSTASH_TOKEN"},
    "openai": {"OPENAI_API_KEY", "OPENAI_BASE_URL"},
}
STAND_IN_PORTS = {"redis": 6380, "qstash": 8080, "openai": 8081}


def stand_ins(given: set[str]) -> list[str]:
    """Name the stand-ins that are needed: those whose real settings are not given."""
    return [name for name, real in REAL_SETTINGS.items() if not real & given]


def choose_port(preferred: int, taken: set[int]) -> int:
    """Take the preferred port, or the next free one, and say so."""
    port = preferred
    while port in taken or not _is_free(port):
        port += 1
    if port != preferred:
        print(f"Port {preferred} is taken, using {port} instead.", flush=True)
    taken.add(port)
    return port


def _is_free(port: int) -> bool:
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def environment(
    needed: list[str], ports: dict[str, int], data: Path, given: set[str]
) -> dict[str, str]:
    """The settings that make page and service use the stand-ins that are needed."""
    defaults = {
        "QSTASH_DELAY": LOCAL_DELAY,
        "DATABASE_URL": f"sqlite:///{data / 'history.db'}",
        **dict.fromkeys(LIMITS, "0"),
    }
    if sys.stdout.isatty():  # the processes themselves write to a pipe
        defaults["LOG_FORMAT"] = "console"
    settings = {}
    if "redis" in needed:
        settings["REDIS_URL"] = f"redis://{HOST}:{ports['redis']}/0"
    if "qstash" in needed:
        defaults["QSTASH_WEBHOOK_URL"] = f"http://{HOST}:{ports['service']}/webhook"
        settings["QSTASH_URL"] = f"http://{HOST}:{ports['qstash']}"
        settings["QSTASH_TOKEN"] = DEVELOPMENT_TOKEN
        settings["QSTASH_CURRENT_SIGNING_KEY"] = qstash_queue.CURRENT_SIGNING_KEY
        settings["QSTASH_NEXT_SIGNING_KEY"] = qstash_queue.NEXT_SIGNING_KEY
    if "openai" in needed:
        settings["OPENAI_BASE_URL"] = f"http://{HOST}:{ports['openai']}/v1"
        settings["OPENAI_API_KEY"] = "local"
        settings["OPENAI_MODEL"] = openai_server.MODEL
    return settings | {name: text for name, text in defaults.items() if name not in given}


def commands(needed: list[str], ports: dict[str, int], data: Path) -> dict[str, list[str]]:
    """The command of each process, by the name it is printed under."""
    python = [sys.executable, "-m"]
    servers = {
        name: [*python, f"local_stack.{name}_server", "--port", str(ports[name])] for name in needed
    }
    if "redis" in servers:
        servers["redis"] += ["--data", str(data / "redis")]
    page, service = (f"{HOST}:{ports[name]}" for name in ("page", "service"))
    notes = [f"Stand-ins, for lack of settings in .env: {', '.join(needed)}."] if needed else []
    return {
        **servers,
        "service": [
            *(*python, "gunicorn", "-c", "webhook_service/gunicorn.conf.py"),
            *("-b", service, "webhook_service:create_app(open_api=True)"),
        ],
        "page": ["env", f"PORT={ports['page']}", *python, "page", "--local"],
        "ready": [*python, "local_stack.announce", f"http://{page}", f"http://{service}", *notes],
    }


def main() -> int:
    """Choose stand-ins and ports, check the settings, and run everything."""
    parser = ArgumentParser(description="Run the whole product on this machine.")
    parser.add_argument("--data", type=Path, default=Path(".local"), help="where the data is kept")
    parser.add_argument("--page-port", type=int, default=8501)
    parser.add_argument("--service-port", type=int, default=3001)
    arguments = parser.parse_args()
    preferred = {"page": arguments.page_port, "service": arguments.service_port}

    data = arguments.data.resolve()
    os.umask(0o077)  # texts and secrets are for their owner alone
    with lock_data(data):
        try:
            load_task()

            from common.options import load_with_options  # imports the task, which can work

            given = given_names()
            needed = stand_ins(given)
            preferred |= {name: STAND_IN_PORTS[name] for name in needed}
            taken: set[int] = set()
            ports = {name: choose_port(port, taken) for name, port in preferred.items()}
            settings = environment(needed, ports, data, given)
            os.environ.update(settings, PYTHONUNBUFFERED="1")
            load_with_options(ServiceSettings)
        except SettingsError as error:
            sys.exit(str(error))

        settings_path = data / "settings.env"  # for `make smoke`, while the stack runs
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.items()]
        settings_path.write_text("".join(lines))
        status = supervise(commands(needed, ports, data))
        settings_path.unlink()
    return status


def lock_data(data: Path) -> TextIO:
    """Keep the data private, and from other stacks until the returned file is closed."""
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o700)
    for path in (*data.glob("*.env"), *data.glob("history.db*"), *data.glob("redis/**/*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    lock = (data / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(f"The local stack is running already, on the data in {data}; Ctrl-C ends it.")
    return lock


def supervise(processes: dict[str, list[str]]) -> int:
    """Run the commands until one ends or a signal comes, then end all of them.

    The status is that of the one that ended, and 0 after Ctrl-C.
    """
    manager = Manager()
    for name, command in processes.items():
        manager.add_process(name, f"exec {shlex.join(command)}")
    # A closed terminal must not leave the processes behind.
    signal.signal(signal.SIGHUP, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    manager.loop()
    return 0 if manager.returncode == 128 + signal.SIGINT else manager.returncode or 0


if __name__ == "__main__":
    sys.exit(main())
