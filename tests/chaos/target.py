"""The service as an attacker meets it, in this process, and what is watched meanwhile."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from flask import Flask
from werkzeug.datastructures import Headers
from werkzeug.test import run_wsgi_app

from tests.conftest import make_settings, make_store
from tests.fakes import FakeAnalyst, FakeQueue
from webhook_service import create_app


class WatchedPool(redis.ConnectionPool):
    """A Redis that is away, and counts who asks for it."""

    touches = 0

    def get_connection(self, *args: Any, **options: Any) -> Any:
        self.touches += 1
        raise redis.ConnectionError("watched")


class Untouched:
    """The service with neighbours that nobody uninvited may reach."""

    def __init__(self) -> None:
        self._pool = WatchedPool()
        self._analyst = FakeAnalyst()
        self.queue = FakeQueue()
        self.store = make_store(redis.Redis(connection_pool=self._pool))
        self.app = create_app(
            make_settings(),
            store=self.store,
            queue=self.queue,
            analyst=self._analyst,
            open_api=True,
        )

    @property
    def touches(self) -> int:
        """How often Redis, QStash or OpenAI was asked for anything."""
        queue = len(self.queue.published) + len(self.queue.cancelled)
        return self._pool.touches + len(self._analyst.calls) + queue


@dataclass(frozen=True)
class Request:
    """What a WSGI server hands on; `path` is decoded, header values hold one byte a character."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    query: str = ""
    chunked: bool = False


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Headers
    body: bytes


def send(app: Flask, request: Request) -> Answer:
    """Call the application as gunicorn would, without a client's own checks in between."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": request.path.encode("utf-8", "surrogateescape").decode("latin-1"),
        "QUERY_STRING": request.query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "3001",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(request.body),
        "wsgi.input_terminated": True,
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if not request.chunked:
        environ["CONTENT_LENGTH"] = str(len(request.body))
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    pieces, status, headers = run_wsgi_app(app, environ)
    return Answer(int(status[:3]), headers, b"".join(pieces))


@contextmanager
def recorded_log() -> Iterator[list[str]]:
    """Collect what the service logs, tracebacks included, instead of printing it."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    collector = Collector()
    loggers = [logging.getLogger(name) for name in ("common", "webhook_service")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(collector)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        yield lines
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(collector)
            logger.setLevel(level)
            logger.propagate = propagate
