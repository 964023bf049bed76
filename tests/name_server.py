"""A DNS server for tests: names that lead to addresses of this machine, and can move."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

A, NAME_ERROR = 1, 3  # https://datatracker.ietf.org/doc/html/rfc1035
FLAGS = 0x8180  # an answer, from a server that recurses


@dataclass
class NameServer:
    """Where the server is; `addresses` may be changed while it runs.

    A name leads to one address, or to several with spaces between them.
    """

    port: int
    addresses: dict[str, str] = field(default_factory=dict)


@contextmanager
def name_server(**addresses: str) -> Iterator[NameServer]:
    """Answer for these names, each for a second, and say of others that there is no such name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        server = NameServer(listener.getsockname()[1], addresses)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    query, client = listener.recvfrom(512)
                    if not query:
                        return
                    listener.sendto(_answer(query, server.addresses), client)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"", ("127.0.0.1", server.port))
        thread.join()


def _answer(query: bytes, addresses: dict[str, str]) -> bytes:
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    question = query[12 : at + 5]
    found = addresses.get(".".join(labels))
    (kind,) = struct.unpack("!H", query[at + 1 : at + 3])
    if found is None:
        return query[:2] + struct.pack("!5H", FLAGS | NAME_ERROR, 1, 0, 0, 0) + question
    if kind != A:
        return query[:2] + struct.pack("!5H", FLAGS, 1, 0, 0, 0) + question
    records = [
        struct.pack("!HHHIH", 0xC00C, A, 1, 1, 4) + socket.inet_aton(address)
        for address in found.split()
    ]
    head = struct.pack("!5H", FLAGS, 1, len(records), 0, 0)
    return query[:2] + head + question + b"".join(records)
