"""A real PostgreSQL server for tests: a throwaway cluster on loopback, and a slow way to it."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.processes import free_port


def find_binaries() -> Path | None:
    """Where initdb and pg_ctl are: on the path, or where Debian puts them."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent  # a link, perhaps, with others beside what it leads to
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


class Postgres:
    """One cluster; `stop` and `start` take it away and bring it back."""

    def __init__(self, binaries: Path, data: Path, copy_of: int | None = None) -> None:
        self.port = free_port()
        self.url = f"postgresql://tester@127.0.0.1:{self.port}/postgres"
        self.binaries, self._data = binaries, data
        # PostgreSQL refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(data, self._user)
        if copy_of:
            where = ("-h", "127.0.0.1", "-p", str(copy_of), "-U", "tester")
            self._run("pg_basebackup", *where, "-R", "-c", "fast", "--no-sync")
        else:
            self._run("initdb", "--auth=trust", "--username=tester", "--no-sync", "--encoding=UTF8")

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k '' -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-l", str(self._data / "log"), "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> None:
        ended = subprocess.run(
            [self.binaries / program, "-D", self._data, *arguments],
            user=self._user,
            cwd=self._data,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            stdout=subprocess.DEVNULL,  # a pipe would stay open with the server
            stderr=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        assert ended.returncode == 0, f"{program} {arguments[:1]} failed"


@contextmanager
def start_postgres(binaries: Path) -> Iterator[Postgres]:
    """Run a new cluster."""
    # Not pytest's directory: nobody but its owner may go into that.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        data = Path(directory) / "data"
        data.mkdir(mode=0o700)
        server = Postgres(binaries, data)
        server.start()
        yield server
        with suppress(AssertionError):  # a test may have left it stopped
            server.stop()


@contextmanager
def start_standby(primary: Postgres) -> Iterator[Postgres]:
    """Run a replica of a cluster, which can be read and not written."""
    with tempfile.TemporaryDirectory(prefix="standby-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        data = Path(directory) / "data"
        data.mkdir(mode=0o700)
        server = Postgres(primary.binaries, data, copy_of=primary.port)
        server.start()
        yield server
        server.stop()


class SlowWay:
    """Passes bytes on to a port, each piece after `seconds`; nothing after a certain piece.

    Counts how often the client, one at a time, said something and was answered.
    """

    def __init__(self, target: int) -> None:
        self.seconds = 0.0
        self.round_trips = 0
        self._was_answered = True
        self.silent_after: bytes | None = None
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for way in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pass_on, args=way, daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self.round_trips += is_answer and not self._was_answered
                self._was_answered = is_answer
                time.sleep(self.seconds)
                if self.silent_after and self.silent_after in data:
                    return  # with both ends open
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._close(self._listener)
        self._acceptor.join()  # or it would open one more
        for each in self._sockets:
            self._close(each)

    def _close(self, each: socket.socket) -> None:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()


@contextmanager
def slow_way(target: int) -> Iterator[SlowWay]:
    way = SlowWay(target)
    yield way
    way.close()
