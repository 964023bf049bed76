"""A server for tests that answers each connection exactly as told, faults included."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import uvicorn
from starlette.types import ASGIApp

Behaviour = Callable[[socket.socket], None]


@dataclass
class HttpServer:
    """Where the server is, and the raw requests it has got."""

    url: str
    requests: list[bytes] = field(default_factory=list)
    open_connections: set[socket.socket] = field(default_factory=set)


@contextmanager
def serve(*behaviours: Behaviour) -> Iterator[HttpServer]:
    """Serve on loopback: a connection's request is read, then met by the next behaviour.

    The last behaviour is repeated for ever.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    planned = list(behaviours)

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            server.open_connections.add(connection)
            server.requests.append(_read_request(connection))
            behaviour = planned.pop(0) if len(planned) > 1 else planned[0]
            behaviour(connection)
        server.open_connections.discard(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    yield server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    accepting.join()
    for connection in list(server.open_connections):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serve_app(app: ASGIApp) -> Iterator[str]:
    """Serve an application in a thread, and tell its URL: a process takes its time to start."""
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            while len(body) < int(line.partition(b":")[2]):
                body += _receive(connection)
    return head + b"\r\n\r\n" + body


def _receive(connection: socket.socket) -> bytes:
    """Raises: ConnectionError when the other side has gone, instead of asking for ever."""
    if data := connection.recv(65536):
        return data
    raise ConnectionError


def answer(status: int, body: bytes | object = b"", **headers: str) -> Behaviour:
    """Answer with a status, a body (JSON unless bytes) and headers, and close."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", "Connection: close"]
    if not isinstance(body, bytes):
        lines.append("Content-Type: application/json")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda connection: connection.sendall(
        "\r\n".join(lines).encode() + b"\r\n\r\n" + content
    )


def hang(connection: socket.socket) -> None:
    """Take the request and say nothing until the other side has gone."""
    connection.recv(1)


def reset(connection: socket.socket) -> None:
    """Break the connection off."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def trickle(start: bytes, piece: bytes = b"x", pause_seconds: float = 0.1) -> Behaviour:
    """Begin, then send a little now and then for ever."""

    def behave(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(piece)
            time.sleep(pause_seconds)

    return behave
