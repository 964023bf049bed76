"""Behind the deployed proxy: a real nginx, foreign names, and visitors who mean no good."""

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, expect

from common.security_headers import SECURITY_HEADERS
from local_stack import qstash_queue
from tests.chromium import NAME, Visit, open_context
from tests.fakes import ID
from tests.processes import ROOT, Stack, bare_environment, wait_for
from tests.product import Server
from tests.proxy import NGINX_CONF, Proxy, Tls, nginx, nginx_with_tls

HANDSHAKE = (
    "GET /_stcore/stream HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{more}\r\n"
)


@contextmanager
def echo(address: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """A server that answers with the headers it got, and its own address."""

    class Echo(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps({**dict(self.headers), "server": address}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((address, port), Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://{address}:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def echoing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """The proxy before a server that tells what reached it, in place of both processes."""
    with echo() as url, nginx(tmp_path_factory.mktemp("nginx"), url, url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def page_url(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page as it is deployed: it answers to every name."""
    directory = tmp_path_factory.mktemp("page")
    settings = {
        name: value
        for name, value in stack.process_of("gunicorn").environ().items()
        if name.startswith(("REDIS_", "QSTASH_", "OPENAI_"))
    }
    environment = bare_environment(directory, **settings)
    page = Server(["page"], environment, directory / "page.txt")
    page.start()
    yield page.url
    page.stop()


@pytest.fixture(scope="module")
def proxy(stack: Stack, page_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with nginx(tmp_path_factory.mktemp("nginx"), stack.service_url, page_url) as proxy:
        yield proxy


def open_socket(url: str, more: str = "", source: str = "127.0.0.1") -> socket.socket:
    """Begin a websocket from one of this machine's addresses."""
    port = int(url.rpartition(":")[2])
    connection = socket.create_connection(("127.0.0.1", port), 30, (source, 0))
    connection.sendall(HANDSHAKE.format(host=f"{NAME}:{port}", more=more).encode())
    return connection


def status_of(connection: socket.socket) -> int:
    return int(connection.recv(4096).split()[1])


@pytest.mark.browser
def test_a_visitor_comes_from_the_form_to_the_result_at_any_host_name(
    proxy: Proxy, browser: Browser
) -> None:
    url = f"http://{NAME}:{proxy.url.rpartition(':')[2]}"
    visit = Visit(open_context(browser), url)

    visit.submit()

    visit.expect_heading("Your analysis")
    visit.context.close()
    assert visit.foreign_requests == []
    assert visit.trouble == []


@pytest.mark.parametrize("path", ["/", "/_stcore/stream", "/analyze/x"])
def test_what_a_client_claims_about_itself_is_thrown_away(echoing: Proxy, path: str) -> None:
    forged = {"Host": NAME, "X-Forwarded-For": "8.8.8.8", "X-Forwarded-Proto": "https"}

    arrived = httpx.get(f"{echoing.url}{path}", headers=forged).json()

    assert (arrived["Host"], arrived["X-Forwarded-For"], arrived["X-Forwarded-Proto"]) == (
        NAME,
        "127.0.0.1",
        "http",
    )


def test_an_upstream_is_found_when_it_appears_and_when_it_moves(tmp_path: Path) -> None:
    def answered_by(proxy: Proxy, server: str) -> bool:
        answer = httpx.get(proxy.url)
        return answer.status_code == 200 and answer.json()["server"] == server

    with echo() as first, nginx(tmp_path, first, first) as proxy:
        proxy.names.addresses.pop("page")
        wait_for(lambda: httpx.get(proxy.url).status_code == 502)

        proxy.names.addresses["page"] = "127.0.0.1"
        wait_for(lambda: answered_by(proxy, "127.0.0.1"))

        with echo("127.0.0.2", int(first.rpartition(":")[2])):
            proxy.names.addresses["page"] = "127.0.0.2"
            wait_for(lambda: answered_by(proxy, "127.0.0.2"))


def test_two_services_share_the_requests_and_one_that_is_gone_is_passed_over(
    tmp_path: Path,
) -> None:
    def answered_by(proxy: Proxy) -> set[str]:
        answers = [httpx.get(f"{proxy.webhook_url}/health") for _ in range(9)]
        return {answer.json()["server"] for answer in answers if answer.status_code == 200}

    with echo("127.0.0.2") as first, nginx(tmp_path, first, first) as proxy:
        proxy.names.addresses["service"] = "127.0.0.2 127.0.0.3"
        with echo("127.0.0.3", int(first.rpartition(":")[2])):
            wait_for(lambda: answered_by(proxy) == {"127.0.0.2", "127.0.0.3"})

        answers = [httpx.get(f"{proxy.webhook_url}/health") for _ in range(6)]

        assert {(each.status_code, each.json()["server"]) for each in answers} == {
            (200, "127.0.0.2")
        }


def test_each_visitor_keeps_to_one_of_two_pages(tmp_path: Path) -> None:
    block = r"(?s)split_clients \$remote_addr \$page \{\n.*?\}"
    documented = re.findall(block, (ROOT / "docs" / "deploy.md").read_text())[0]

    with echo("127.0.0.2") as first, echo("127.0.0.3") as second:
        two = documented.replace("page-2:8501", f"page-2:{second.rpartition(':')[2]}")
        configured = re.sub(block, lambda _: two, NGINX_CONF)
        with nginx(tmp_path, first, first, configured) as proxy:
            proxy.names.addresses["page-2"] = "127.0.0.3"
            seen = {visitor: pages_of(visitor, proxy) for visitor in range(40, 56)}

    assert all(len(pages) == 1 for pages in seen.values())
    assert {page for pages in seen.values() for page in pages} == {"127.0.0.2", "127.0.0.3"}


def pages_of(visitor: int, proxy: Proxy) -> set[str]:
    """Which pages a visitor gets who comes three times."""
    way = httpx.HTTPTransport(local_address=f"127.0.0.{visitor}")
    with httpx.Client(transport=way) as client:
        return {client.get(proxy.url).json()["server"] for _ in range(3)}


def test_the_pages_files_are_compressed_and_kept_by_the_browser(proxy: Proxy) -> None:
    index = httpx.get(proxy.url)
    script = index.text.partition('src="./static/js/')[2].partition('"')[0]

    # By way of one more proxy, such as a content delivery network.
    file = httpx.get(f"{proxy.url}/static/js/{script}", headers={"Via": "1.1 cdn"})

    assert index.headers["Cache-Control"] == "no-cache"
    assert "immutable" in file.headers["Cache-Control"]
    assert file.headers["Content-Encoding"] == "gzip"
    assert file.num_bytes_downloaded < len(file.content) / 2


def test_the_security_headers_come_through_once(proxy: Proxy) -> None:
    for path in ("/", "/?request=x", "/health", "/analyze/x", "/_stcore/health"):
        headers = httpx.get(f"{proxy.url}{path}").headers
        for name, value in SECURITY_HEADERS.items():
            assert headers.get_list(name) == [value]


def test_a_websocket_of_another_site_never_reaches_the_page(proxy: Proxy, echoing: Proxy) -> None:
    """The page refuses it, too; the other server behind the proxy would take everything."""
    for url, answered in ((proxy.url, 101), (echoing.url, 200)):
        port = url.rpartition(":")[2]
        for origin, status in (
            (f"http://{NAME}:{port}", answered),
            ("https://evil.example", 403),
            (f"http://{NAME}.evil.example:{port}", 403),
            ("null", 403),
        ):
            with open_socket(url, f"Origin: {origin}\r\n") as connection:
                assert status_of(connection) == status, origin


def test_nothing_can_be_uploaded(echoing: Proxy) -> None:
    assert httpx.put(f"{echoing.url}/_stcore/upload_file/a/b", content=b"x").status_code == 403


def test_the_webhook_has_a_way_in_of_its_own(proxy: Proxy) -> None:
    assert httpx.post(f"{proxy.url}/webhook").status_code == 404
    assert httpx.post(f"{proxy.webhook_url}/webhook").status_code == 401
    assert httpx.post(f"{proxy.webhook_url}/analyze").status_code == 404


def test_one_address_that_holds_connections_stops_nobody_else(proxy: Proxy, stack: Stack) -> None:
    with ExitStack() as held:
        sockets = [held.enter_context(open_socket(proxy.url)) for _ in range(210)]
        statuses = [status_of(each) for each in sockets]

        assert statuses.count(101) <= 200
        assert set(statuses) == {101, 429}
        with open_socket(proxy.url, source="127.0.0.9") as other:
            assert status_of(other) == 101
        body = json.dumps({"requestId": ID, "round": 1}).encode()
        key = qstash_queue.CURRENT_SIGNING_KEY
        token = qstash_queue.sign(f"{stack.service_url}/webhook", body, key)
        delivered = httpx.post(
            f"{proxy.webhook_url}/webhook", content=body, headers={"Upstash-Signature": token}
        )
        assert delivered.status_code == 200


def test_requests_are_limited_where_people_come_in_and_nowhere_else(echoing: Proxy) -> None:
    def statuses(url: str, number: int) -> Iterator[int]:
        with httpx.Client() as client:
            for _ in range(number):
                yield client.get(f"{url}/health").status_code

    assert 429 in statuses(echoing.url, 3000)
    assert set(statuses(echoing.webhook_url, 500)) == {200}


@pytest.fixture(scope="module")
def with_tls(
    stack: Stack, page_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Proxy, Tls]]:
    directory = tmp_path_factory.mktemp("nginx")
    with nginx_with_tls(directory, stack.service_url, page_url) as both:
        yield both


def test_with_tls_whoever_comes_without_is_sent_there(with_tls: tuple[Proxy, Tls]) -> None:
    plain, _ = with_tls

    answered = httpx.get(f"{plain.url}/?request=x", headers={"Host": NAME})

    assert answered.status_code == 308
    assert answered.headers["Location"] == f"https://{NAME}/?request=x"


def test_with_tls_both_ways_in_are_what_they_were(with_tls: tuple[Proxy, Tls]) -> None:
    _, tls = with_tls
    with httpx.Client(verify=tls.trust) as client:
        for path in ("/", "/health", "/webhook"):
            headers = client.get(f"{tls.url}{path}").headers
            assert headers.get_list("Strict-Transport-Security") == ["max-age=31536000"]
        assert client.get(f"{tls.url}/health").json() == {"status": "ok"}
        assert client.post(f"{tls.url}/webhook").status_code == 404
        assert client.post(f"{tls.webhook_url}/webhook").status_code == 401
        assert client.post(f"{tls.webhook_url}/analyze").status_code == 404


def test_with_tls_the_proxy_tells_who_comes_and_how(tmp_path: Path) -> None:
    with (
        echo() as url,
        nginx_with_tls(tmp_path, url, url) as (_, tls),
        httpx.Client(verify=tls.trust) as client,
    ):
        arrived = client.get(tls.url, headers={"X-Forwarded-For": "8.8.8.8"}).json()

    assert (arrived["X-Forwarded-For"], arrived["X-Forwarded-Proto"]) == ("127.0.0.1", "https")


@pytest.mark.browser
def test_with_tls_a_browser_gets_the_page_over_http_2(
    with_tls: tuple[Proxy, Tls], browser: Browser
) -> None:
    url = f"https://{NAME}:{with_tls[1].url.rpartition(':')[2]}"
    context = open_context(browser, ignore_https_errors=True)
    page = context.new_page()

    page.goto(url)

    expect(page.get_by_role("textbox").first).to_be_visible()  # its websocket came through
    spoken = page.evaluate("performance.getEntries().map(each => each.nextHopProtocol)")
    context.close()
    assert spoken.count("h2") > 10
    assert not {"http/1.0", "http/1.1"} & {*spoken}
