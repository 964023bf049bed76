"""Real processes for tests: free ports, waiting, and the whole local stack."""

import fcntl
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parent.parent
_given: set[int] = set()


def free_port() -> int:
    """A port that nobody listens at, below those that systems give to outgoing connections.

    None is given twice by one process, and of those that several give no two are likely to be the
    same; a server that was stopped finds its own free again.
    """
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)  # unlike others, never seeded
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in _given:  # asked while nobody else can have the port
                _given.add(port)
                return port


def wait_for(is_so: Callable[[], object], within_seconds: float = 60) -> None:
    """Wait until a condition holds; a server that does not answer yet counts as not."""
    deadline = time.monotonic() + within_seconds
    while True:
        try:
            if is_so():
                return
        except (OSError, httpx.TransportError):
            pass
        assert time.monotonic() < deadline, "this did not come true in time"
        time.sleep(0.05)


def passed_on() -> dict[str, str]:
    """What each child process gets: where programs are, one certificate, and the tests' task."""
    names = ("PATH", "SSL_CERT_FILE", "PYTHONPATH")
    return {name: os.environ[name] for name in names if name in os.environ}


def bare_environment(home: Path, **settings: str) -> dict[str, str]:
    """The environment of a newcomer: nothing is set but what is passed on."""
    return {**passed_on(), "HOME": str(home), **settings}


def python_path(*folders: Path) -> str:
    """PYTHONPATH with these folders besides those that it has."""
    paths = [os.environ.get("PYTHONPATH"), *map(str, folders)]
    return os.pathsep.join(path for path in paths if path)


def run_python(
    command: list[str], directory: Path, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run it with these settings and no others."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env={**passed_on(), "PATH": "/usr/bin:/bin", **settings},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@contextmanager
def start_stand_in(name: str, **environment: str) -> Iterator[str]:
    """Run one stand-in as a process of its own, and tell its URL."""
    port = free_port()
    command = [sys.executable, "-m", f"local_stack.{name}", "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment})
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: httpx.get(url).status_code)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


@dataclass
class Stack:
    """The local stack as `make run` starts it."""

    process: subprocess.Popen[str]
    output_path: Path
    page_url: str = ""
    service_url: str = ""

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def processes(self) -> list[psutil.Process]:
        children: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return children

    def process_of(self, part: str) -> psutil.Process:
        """The first process with this word in its command."""
        return next(child for child in self.processes() if part in child.cmdline())

    def end(self, end: Callable[[], None] | None = None) -> int:
        """Press Ctrl-C, or end it otherwise; nothing is left. Return its exit status."""
        children = self.processes()
        (end or partial(self.process.send_signal, signal.SIGINT))()
        status = self.process.wait(timeout=60)  # a worker's busy threads have 28 s to end
        assert not [child for child in children if is_alive(child)], "left behind"
        return status


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def _starting_alone() -> Iterator[None]:
    """Stacks that start at the same time would choose the same free ports for their stand-ins."""
    with (Path(tempfile.gettempdir()) / "ask-later-starting.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def start_stack(directory: Path, code: Path = ROOT, /, **settings: str) -> Iterator[Stack]:
    """Run the code's local stack with its data in this directory, until it says it is ready.

    Unless it was ended within, Ctrl-C ends it, as all is well.
    """
    output_path = directory / "output.txt"
    ports = ["--page-port", str(free_port()), "--service-port", str(free_port())]
    with output_path.open("w") as output, _starting_alone():
        process = subprocess.Popen(
            [
                *("sh", "-c", 'ulimit -Sn 1024 && exec "$@"', "as systems do by default"),
                *(sys.executable, "-m", "local_stack", "--data", str(directory / "data"), *ports),
            ],
            cwd=code,
            env=bare_environment(directory, **settings),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )
        stack = Stack(process, output_path)
        wait_for(lambda: process.poll() is not None or "Ctrl-C ends all" in stack.output)
    try:
        assert process.poll() is None, stack.output
        stack.page_url, stack.service_url = re.findall(r"The \w+: +(\S+)", stack.output)
        yield stack
        assert process.poll() is not None or stack.end() == 0, stack.output
    finally:
        children = stack.processes() if process.poll() is None else []
        process.terminate()
        process.wait(timeout=60)
        for child in children:
            if child.is_running():
                child.kill()
