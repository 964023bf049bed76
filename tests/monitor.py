"""Which commands a real server is sent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import redis

CONNECTING = {"CLIENT", "HELLO", "SELECT", "PING"}


@contextmanager
def monitored(client: redis.Redis) -> Iterator[Callable[[], list[str]]]:
    """Give a function that tells what was sent since its last call; a script is one command."""
    ends = count()

    with client.monitor() as monitor:  # type: ignore[no-untyped-call]

        def sent() -> list[str]:
            end = f"ECHO end-{next(ends)}"
            client.echo(end.partition(" ")[2])
            commands: list[str] = []
            while True:
                command = monitor.next_command()
                if command["command"] == end:
                    return commands
                name = command["command"].split()[0]
                if command["client_type"] != "lua" and name not in CONNECTING:
                    commands.append(name)

        yield sent
