"""Nonsense over HTTP: nothing breaks, nothing tells about the inside, the next one is served."""

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing

import httpx
import pytest

from tests.chaos.http_fuzz import INSIDE, http_fuzz
from tests.chaos.site import Site, open_site
from tests.fakes import ADA
from tests.processes import wait_for
from tests.tokens import MESSAGE

FORM = ADA.model_dump_json().encode()
JSON = b"Content-Type: application/json\r\n"


def test_requests_of_any_shape_break_nothing() -> None:
    row = http_fuzz(2000, seed=1)

    assert (row.tried, row.wrong) == (2000, 0), row.note
    for status in (200, 202, 400, 401, 404, 405, 413, 415, 422, 429, 489, 503):
        assert f"× {status}" in row.note, "the drill gets everywhere"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A real gunicorn of our own: what is sent here may do harm."""
    app = "webhook_service:create_app(open_api=True)"
    with open_site(tmp_path_factory.mktemp("fuzz"), app) as site:
        wait_for(lambda: len(site.workers()) == 4)
        yield site


def connect(site: Site) -> socket.socket:
    return socket.create_connection(("127.0.0.1", site.service_port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        pass  # an answer all the same, or none: both are seen below
    return data


def post(path: bytes, body: bytes, *, head: bytes = b"", length: bytes | None = None) -> bytes:
    length = str(len(body)).encode() if length is None else length
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", b"Connection: close"]
    return b"\r\n".join(lines) + b"\r\nContent-Length: " + length + b"\r\n" + head + b"\r\n" + body


REFUSED = {400, 501}
RAW = [
    # The request line
    pytest.param(b"\r\n\r\n", REFUSED, id="nothing"),
    pytest.param(b"\0" * 100 + b"\r\n\r\n", REFUSED, id="NUL bytes"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", REFUSED, id="TLS"),
    pytest.param(b"GET\r\n\r\n", REFUSED, id="a method alone"),
    pytest.param(b"GET /health\r\n\r\n", REFUSED, id="no version"),
    pytest.param(b"GET /health HTTP/9.9\r\n\r\n", {400, 505}, id="a version to come"),
    pytest.param(b"G\xc3\x8bT /health HTTP/1.1\r\n\r\n", REFUSED, id="a method not ASCII"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}, id="HTTP/2"),
    pytest.param(b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", {400, 414}, id="a long path"),
    pytest.param(
        b"GET http://other.example/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        {200},
        id="a whole URL, as to a proxy",
    ),
    pytest.param(
        b"GET /%ff%00%0d%0a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        {404},
        id="bytes that are no text",
    ),
    # Headers
    pytest.param(b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", REFUSED, id="no colon"),
    pytest.param(b"GET /health HTTP/1.1\r\nA b: c\r\n\r\n", REFUSED, id="a space in a name"),
    pytest.param(b"GET /health HTTP/1.1\r\nA: b\r\n c\r\n\r\n", REFUSED, id="a folded header"),
    pytest.param(b"GET /health HTTP/1.1\r\nA: b\0c\r\n\r\n", REFUSED, id="NUL in a value"),
    pytest.param(
        b"GET /health HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", {400, 431}, id="200 headers"
    ),
    pytest.param(
        b"GET /health HTTP/1.1\r\nA: " + b"b" * 20_000 + b"\r\n\r\n", {400, 431}, id="20 kB header"
    ),
    pytest.param(
        b"GET //health%0d%0aX-Injected:%201 HTTP/1.1\r\n"
        b"Host: localhost\r\nConnection: close\r\n\r\n",
        {404},
        id="a header in the path",
    ),
    pytest.param(
        b"POST /webhook//failure?%0d%0aX-Injected:%201 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        {308},
        id="a header in a redirect",
    ),
    pytest.param(
        b"GET /health HTTP/1.1\r\nHost: localhost\nX-Injected: 1\r\nConnection: close\r\n\r\n",
        {200, *REFUSED},
        id="a header behind a bare line feed",
    ),
    pytest.param(
        post(b"/webhook", MESSAGE, head=b"Upstash-Signature: \xff\xfe\r\n"), {401}, id="bytes in it"
    ),
    # Lengths and bodies
    pytest.param(post(b"/analyze", FORM, length=b"-1", head=JSON), REFUSED, id="length -1"),
    pytest.param(post(b"/analyze", FORM, length=b"x", head=JSON), REFUSED, id="length x"),
    pytest.param(post(b"/analyze", FORM, length=b"+9", head=JSON), REFUSED, id="length +9"),
    pytest.param(post(b"/analyze", FORM, length=b"9" * 30, head=JSON), {413}, id="endless length"),
    pytest.param(
        post(b"/analyze", FORM, head=JSON + b"Content-Length: 5\r\n"), REFUSED, id="two lengths"
    ),
    pytest.param(post(b"/analyze", FORM, length=b"5", head=JSON), {400}, id="cut by its length"),
    pytest.param(
        post(
            b"/webhook",
            b"0\r\n\r\nGET /health HTTP/1.1\r\n\r\n",
            head=b"Transfer-Encoding: chunked\r\n",
        ),
        {400, 401},
        id="smuggled behind a chunked body",
    ),
    pytest.param(
        b"POST /analyze HTTP/1.1\r\nHost: localhost\r\n"
        + JSON
        + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        REFUSED,
        id="a chunk of no size",
    ),
    pytest.param(
        b"POST /analyze HTTP/1.1\r\nHost: localhost\r\n" + JSON + b"Transfer-Encoding: x\r\n\r\n",
        REFUSED,
        id="an encoding that there isn't",
    ),
]


@pytest.mark.parametrize(("raw", "expected"), RAW)
def test_malformed_http_is_refused_and_the_service_goes_on(
    service: Site, raw: bytes, expected: set[int]
) -> None:
    workers = service.workers()

    with closing(connect(service)) as connection:
        connection.sendall(raw)
        connection.shutdown(socket.SHUT_WR)
        answered = read_all(connection)

    statuses = {int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answered)}
    assert len(statuses) == 1, "one request, one answer"
    assert statuses <= expected, answered
    assert not INSIDE.search(answered)
    assert b"\nX-Injected" not in answered
    assert httpx.get(service.url("/health")).status_code == 200
    assert service.workers() == workers


def test_a_body_that_ends_too_soon_starts_nothing(service: Site) -> None:
    whole = post(b"/analyze", FORM, head=JSON, length=str(len(FORM) + 1).encode())
    with closing(connect(service)) as connection:
        connection.sendall(whole)
        connection.shutdown(socket.SHUT_WR)
        answered = read_all(connection)

    assert answered.startswith(b"HTTP/1.1 400 ")
    assert httpx.get(service.url("/health")).status_code == 200


def test_a_body_that_comes_in_drops_is_read_to_its_end(service: Site) -> None:
    whole = post(b"/analyze", FORM, head=JSON)
    with closing(connect(service)) as connection:
        for at in range(0, len(whole), 5):
            connection.sendall(whole[at : at + 5])
            time.sleep(0.01)
        answered = read_all(connection)

    assert answered.startswith(b"HTTP/1.1 202 ")


def test_whoever_hangs_up_is_forgotten(service: Site) -> None:
    for upto in (1, 20, 100, 1000):
        with closing(connect(service)) as connection:
            connection.sendall(post(b"/webhook", MESSAGE * 20)[:upto])

    assert httpx.get(service.url("/health")).status_code == 200


def test_none_of_it_left_a_traceback_in_the_log(service: Site) -> None:
    """Runs last, on the same service."""
    log = service.service_log_path.read_text()
    events = [json.loads(line)["event"] for line in log.splitlines() if line.startswith("{")]

    assert "delivery refused" in events
    assert "Traceback" not in log
    assert "unexpected error" not in events
