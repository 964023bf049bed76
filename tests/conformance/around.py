"""What Upstash's suites need around the stand-in, on loopback: everything but what they test.

They name servers on the net as destinations. The stand-in is told that a proxy leads there, and
whom to trust, so the suites stay as they are and nothing leaves the machine. And they tidy up, and
look at a log, with what the stand-in leaves out: `Front` stands before it and answers that itself.
"""

import json
import re
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

Certificate = Callable[[str], ssl.SSLContext]
TIDYING = [  # method, path, and what is answered: none of it is what a chosen test is about
    ("GET", r"/v2/queues", []),
    ("(POST|DELETE)", r"/v2/topics/.*", {}),
    ("DELETE", r"/v2/messages(\?count=100)?", {"cancelled": 0}),
    ("DELETE", r"/v2/dlq(\?.*|/.*)?", {"deleted": 0}),
]


class Server(ThreadingHTTPServer):
    """A stand-in that is stopped breaks its connections off: nothing to tell."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


class Handler(BaseHTTPRequestHandler):
    """Reads a body, answers JSON or text."""

    protocol_version = "HTTP/1.1"

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def answer(self, status: int, content: bytes, kind: str = "text/plain") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing: the table is what is to be read."""


class Destination(Handler):
    """Is any server: answers in the tunnel with the status in the path, or "not found"."""

    certificate: Certificate
    arrived: dict[str, str]

    def do_CONNECT(self) -> None:
        self.send_response(200)
        self.end_headers()
        name = self.path.rpartition(":")[0]
        self.connection = type(self).certificate(name).wrap_socket(self.connection, True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)

    def deliver(self) -> None:
        self.body()
        address = urlsplit(self.path)
        named = re.search(r"/(\d{3})$", address.path)
        status = HTTPStatus(int(named[1]) if named else 404)
        time.sleep(int(parse_qs(address.query).get("sleep", ["0"])[0]) / 1000)
        if status < 300:
            self.arrived[self.headers["Upstash-Message-Id"]] = self.path
        self.answer(status, f"{status.value} {status.phrase}".encode())

    do_GET = do_POST = deliver  # noqa: N815 (their names are http.server's)


class Front(Handler):
    """Passes requests on to the stand-in, byte for byte, except for what is not tested."""

    stand_in: str
    arrived: dict[str, str]

    def pass_on(self) -> None:
        body = self.body()
        for method, path, content in TIDYING:
            if re.fullmatch(method, self.command) and re.fullmatch(path, self.path):
                return self.answer_json(content)
        address = urlsplit(self.path)
        if address.path == "/v2/events":
            return self.answer_json({"events": self.delivered(parse_qs(address.query))})
        connection = HTTPConnection(self.stand_in)
        connection.request(self.command, self.path, body or None, dict(self.headers.items()))
        response = connection.getresponse()
        kind = response.headers.get("Content-Type", "text/plain")
        return self.answer(response.status, response.read(), kind)

    def answer_json(self, content: object) -> None:
        self.answer(200, json.dumps(content).encode(), "application/json")

    def delivered(self, wanted: dict[str, list[str]]) -> list[dict[str, object]]:
        """The log, of what really arrived: more than the stand-in's own word."""
        (message_id,), state = wanted["messageId"], wanted["state"]
        if state != ["DELIVERED"] or message_id not in self.arrived:
            return []
        return [
            {
                "time": 0,
                "messageId": message_id,
                "state": "DELIVERED",
                "url": self.arrived[message_id],
            }
        ]

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815


@contextmanager
def serve(handler: type[Handler], **attributes: object) -> Iterator[str]:
    """Serve in a thread, and tell the address."""
    with Server(("127.0.0.1", 0), type("Serving", (handler,), attributes)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def destinations(folder: Path, arrived: dict[str, str]) -> Iterator[dict[str, str]]:
    """Serve, and tell the environment of a process that is to find them here and nowhere else."""
    import trustme  # which `make conformance` alone installs

    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))

    @cache
    def certificate(name: str) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name).configure_cert(context)
        return context

    serving = serve(Destination, certificate=staticmethod(certificate), arrived=arrived)
    with serving as address:
        proxy = f"http://{address}"
        trusted = str(folder / "authority.pem")
        yield {"HTTPS_PROXY": proxy, "https_proxy": proxy, "SSL_CERT_FILE": trusted}
