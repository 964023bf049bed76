"""A TCP proxy in front of a Redis server that breaks the commands it is told to break."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple

CONNECTING = (b"HELLO", b"CLIENT", b"SELECT", b"AUTH")


class Exchange(NamedTuple):
    """One command on its way."""

    proxy: "RedisProxy"
    client: socket.socket
    server: socket.socket
    replies: BinaryIO
    request: bytes

    @property
    def command(self) -> bytes:
        return self.request.split(b"\r\n")[2].upper()

    def ask(self, request: bytes | None = None) -> bytes:
        """Let the server execute the command, or another one, and read the reply."""
        self.server.sendall(request or self.request)
        return read_value(self.replies)


Fault = Callable[[Exchange], None]  # an EOFError ends the connection


def pass_on(exchange: Exchange) -> None:
    exchange.client.sendall(exchange.ask())


class RedisProxy:
    """Passes commands on, or does with them what it is told."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._clients: set[socket.socket] = set()
        self.time_has_passed = threading.Event()
        self.held_back = 0
        self.port = 0
        self._listen()
        self.port = self._listener.getsockname()[1]
        self.repair()

    def break_with(self, fault: Fault, first: int = 0, *, only: bool = False) -> None:
        """Let the fault meet each command from the first on, or only that; 0 is the next one."""
        self._fault, self._first, self._only = fault, first, only
        self._seen, self.has_fired = 0, False

    def repair(self) -> None:
        self.break_with(pass_on)
        if self._listener.fileno() < 0:
            self._listen()

    def lead_to(self, server_port: int) -> None:
        """Lead new connections elsewhere; those there are stay where they are."""
        self._server_port = server_port

    def refuse_connections(self) -> None:
        """Take none any more, then end those there are: who notices that may repair it at once."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for client in list(self._clients):
            with suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._clients.add(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        server = socket.create_connection(("127.0.0.1", self._server_port))
        with client, server, client.makefile("rb") as commands, server.makefile("rb") as replies:
            with suppress(OSError, EOFError):
                while True:
                    exchange = Exchange(self, client, server, replies, read_value(commands))
                    act = self._fault if self._is_met(exchange.command) else pass_on
                    act(exchange)
            self._clients.discard(client)

    def _is_met(self, command: bytes) -> bool:
        if command in CONNECTING:  # goes well until the fault has begun
            return self.has_fired and not self._only
        number, self._seen = self._seen, self._seen + 1
        is_met = number == self._first if self._only else number >= self._first
        self.has_fired |= is_met
        return is_met


def read_value(stream: BinaryIO) -> bytes:
    """Read one value of the protocol, with all it holds, as the bytes it was sent in."""
    line = stream.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError
    if line[:1] in b"$=!" and line[1:2] != b"-":
        return line + stream.read(int(line[1:]) + 2)
    if line[:1] in b"*~>%":  # a map's size counts pairs
        size = max(0, int(line[1:])) * (2 if line[:1] == b"%" else 1)
        return line + b"".join(read_value(stream) for _ in range(size))
    return line


@contextmanager
def redis_proxy(server_port: int) -> Iterator[RedisProxy]:
    """Put a proxy in front of the server at this port."""
    proxy = RedisProxy(server_port)
    yield proxy
    proxy.time_has_passed.set()
    proxy.refuse_connections()
