"""Python processes that start in no time: forks of one that has imported what others wrote.

For what a program does, with its own modules imported anew, and its own settings. How one starts
is for `run_python`. The options' libraries are not there before: who uses them imports them.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import site
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

LIBRARIES = (  # none of them reads a setting when it is imported
    *("flask", "httpx", "openai"),
    *("opentelemetry.trace.propagation.tracecontext", "pydantic_settings", "redis"),
    *("streamlit.testing.v1", "structlog"),
)


class Forked:
    """One process; as much of `subprocess.Popen` as tests need."""

    def __init__(self, zygote: "Zygote", pid: int) -> None:
        self._zygote, self.pid = zygote, pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._wait(os.WNOHANG)

    def wait(self, timeout: float = 240) -> int:
        """Wait for its end, and kill it when that takes too long."""
        killing = threading.Timer(timeout, self.send_signal, [signal.SIGKILL])
        killing.start()
        status = self._wait(0)
        killing.cancel()
        assert status is not None
        return status

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            self.returncode = self._zygote.order(wait=self.pid, options=options)
        return self.returncode

    def send_signal(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


class Zygote:
    """The process that is forked, one test at a time."""

    def __init__(self, process: subprocess.Popen[str], directory: Path) -> None:
        self._process, self._directory = process, directory

    def start(
        self,
        command: list[str],
        directory: Path,
        environment: dict[str, str],
        *outputs: Path,
        reads: str | Path = os.devnull,
    ) -> Forked:
        """Start Python with this command, -c CODE or -m MODULE; `outputs` are appended to."""
        streams = [str(path) for path in (reads, outputs[0], outputs[-1])]
        told = {"directory": str(directory), "environment": environment, "streams": streams}
        return Forked(self, self.order(command, **told))

    def run(
        self, command: list[str], directory: Path, environment: dict[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Start it, and wait for its end."""
        outputs = self._directory / "stdout", self._directory / "stderr"
        for path in outputs:
            path.write_text("")
        status = self.start(command, directory, environment, *outputs).wait()
        return subprocess.CompletedProcess(command, status, *(path.read_text() for path in outputs))

    def order(self, command: list[str] | None = None, **more: object) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"command": command, **more}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def start_zygote(directory: Path) -> Iterator[Zygote]:
    with subprocess.Popen(
        [sys.executable, __file__],
        env={"HOME": str(directory), "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield Zygote(process, directory)


# ── In that process ──


def main() -> None:
    for library in LIBRARIES:
        import_module(library)
    keep_what_streamlit_finds()
    del sys.path[0]  # where this file is
    gc.freeze()  # or each child would copy all of it, to look through it
    running: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if order["command"]:
            reply: int | None = os.fork()
            if not reply:
                become(order["directory"], order["environment"], order["streams"])
                os._exit(execute(order["command"]))
            running.add(reply)
        else:
            pid, status = os.waitpid(order["wait"], order["options"])
            running.discard(pid)
            reply = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(reply), flush=True)
    for pid in running:  # a test failed before it ended them
        os.kill(pid, signal.SIGKILL)


def keep_what_streamlit_finds() -> None:
    """It searches all installed packages for components, for the page of each process."""
    from streamlit.components.v2 import manifest_scanner

    search = cache(manifest_scanner.scan_component_manifests)
    search()
    manifest_scanner.scan_component_manifests = search


def become(directory: str, environment: dict[str, str], streams: list[str]) -> None:
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [directory, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    tempfile.tempdir = None  # to be asked for anew
    sys.modules.pop("sitecustomize", None)
    site.execsitecustomize()  # the tests' task
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    for stream, path in enumerate(streams):
        opened = os.open(path, append if stream else os.O_RDONLY)
        os.dup2(opened, stream)
        os.close(opened)


def execute(command: list[str]) -> int:
    """Run it as Python does, but at the end take nothing apart that goes with the process."""
    option, what, *arguments = command
    status: object = 0
    try:
        if option == "-m":
            sys.argv = [what, *arguments]
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            sys.argv = [option, *arguments]
            exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if isinstance(status, str):
        print(status, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return status if isinstance(status, int) else int(status is not None)


if __name__ == "__main__":
    main()
