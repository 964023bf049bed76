"""The page's own web server, as `make run` and a deployment start it."""

import resource
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState, WidgetStates
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from common.deadline import run_within
from common.open_files import OPEN_FILES_NEEDED
from common.security_headers import SECURITY_HEADERS
from page.server import GuardedSockets
from tests.fakes import OTHER_ID
from tests.integration.test_proxy import HANDSHAKE
from tests.log_lines import logged
from tests.processes import ROOT, Stack, bare_environment, wait_for
from tests.toy.task import TASK

REFUSED = "websocket of another site refused"
VISITOR = "198.51.100.77"


def handshake(url: str, *, host: str = "", more: str = "") -> str:
    """Ask for a websocket, and return the status line of the answer."""
    address = url.removeprefix("http://")
    with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 30) as asking:
        asking.sendall(HANDSHAKE.format(host=host or address, more=more).encode())
        return asking.recv(4096).decode("latin-1").partition("\r\n")[0]


def test_every_answer_of_the_page_has_the_security_headers(stack: Stack) -> None:
    for path in ("/", f"/?request={OTHER_ID}", "/none", "/_stcore/health", "/robots.txt"):
        headers = httpx.get(f"{stack.page_url}{path}").headers

        assert {name: headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert ("noindex" in headers.get("X-Robots-Tag", "")) == (path != "/")


def test_every_answer_of_the_service_has_them_too(stack: Stack) -> None:
    for method, path in (
        ("GET", "/health"),
        ("GET", "/nothing"),
        ("POST", "/webhook"),
        ("GET", f"/analyze/{OTHER_ID}"),
        ("PUT", "/analyze"),
    ):
        headers = httpx.request(method, f"{stack.service_url}{path}").headers

        assert {name: headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert "noindex" in headers["X-Robots-Tag"]


def test_the_html_of_a_shared_link_says_whose_it_is(stack: Stack) -> None:
    page = httpx.get(f"{stack.page_url}/?request={OTHER_ID}").text

    assert f"<title>{TASK.name}</title>" in page
    assert f'<meta name="description" content="{TASK.description}" />' in page
    assert f'<meta property="og:title" content="{TASK.name}" />' in page
    assert f'<meta property="og:description" content="{TASK.description}" />' in page
    assert 'href="data:image/svg+xml' in page
    assert "favicon.png" not in page
    assert "<title>Streamlit" not in page


def test_robots_txt_is_not_the_page(stack: Stack) -> None:
    answer = httpx.get(f"{stack.page_url}/robots.txt")

    assert answer.headers["Content-Type"].startswith("text/plain")
    assert answer.text.startswith("User-agent: *\n")


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://[", "http://127.0.0.1.evil.example"]
)
def test_a_websocket_of_another_site_is_refused_without_asking_anybody(
    stack: Stack, origin: str
) -> None:
    """By our own line in the log: Streamlit would refuse it, too, once it was asked."""
    before = logged(stack.output, REFUSED)

    refused = handshake(stack.page_url, more=f"Origin: {origin}\r\n")

    assert " 403 " in refused
    wait_for(lambda: len(logged(stack.output, REFUSED)) > len(before))


def test_a_websocket_of_the_page_itself_is_taken(stack: Stack) -> None:
    assert " 101 " in handshake(stack.page_url, more=f"Origin: {stack.page_url}\r\n")


def test_the_local_page_answers_to_loopback_names_alone(stack: Stack) -> None:
    port = stack.page_url.rpartition(":")[2]
    for host, is_served in (
        (f"127.0.0.1:{port}", True),
        (f"localhost:{port}", True),
        ("evil.example", False),
        (f"127.0.0.1.evil.example:{port}", False),
    ):
        answer = httpx.get(stack.page_url, headers={"Host": host})

        assert (answer.status_code == 200) == is_served, host
        assert (" 101 " in handshake(stack.page_url, host=host)) == is_served, host


def test_no_file_is_taken_that_nobody_asked_for(stack: Stack) -> None:
    url = f"{stack.page_url.replace('http', 'ws', 1)}/_stcore/stream"
    with httpx.Client(base_url=stack.page_url) as visitor, connect(url) as session:
        session.send(BackMsg(rerun_script=ClientState()).SerializeToString())
        visitor.get("/_stcore/health")

        answer = visitor.put(
            f"/_stcore/upload_file/{session_id(session)}/file",
            files={"file": b"x" * 100_000},
            headers={"X-Xsrftoken": visitor.cookies["_streamlit_xsrf"]},
        )

    assert answer.status_code == 413


def test_a_message_far_larger_than_the_form_ends_the_session(stack: Stack) -> None:
    """It would stay in memory as long as the session."""
    text = WidgetState(id="description", string_value="x" * 2_000_000)
    state = ClientState(widget_states=WidgetStates(widgets=[text]))
    with connect(f"{stack.page_url.replace('http', 'ws', 1)}/_stcore/stream") as session:
        session.send(BackMsg(rerun_script=state).SerializeToString())

        with pytest.raises(ConnectionClosed) as closed:
            session_id(session)

    assert closed.value.rcvd
    assert closed.value.rcvd.code == 1009


def session_id(session: ClientConnection) -> str:
    while True:
        message = session.recv(timeout=30)
        assert isinstance(message, bytes)
        if known := ForwardMsg.FromString(message).new_session.initialize.session_id:
            return str(known)


def test_the_log_has_neither_a_visitors_address_nor_what_they_opened(stack: Stack) -> None:
    known = {"X-Forwarded-For": VISITOR}
    httpx.get(f"{stack.page_url}/?request={OTHER_ID}", headers=known)
    httpx.get(f"{stack.page_url}/_stcore/health?request={OTHER_ID}", headers=known)
    assert " 101 " in handshake(stack.page_url, more=f"X-Forwarded-For: {VISITOR}\r\n")
    before = logged(stack.output, REFUSED)
    handshake(stack.page_url, more=f"Origin: null\r\nX-Forwarded-For: {VISITOR}\r\n")
    wait_for(
        lambda: len(logged(stack.output, REFUSED)) > len(before)
    )  # so all lines before are there

    for planted in (VISITOR, OTHER_ID, "127.0.0.1:5", '"GET '):
        assert planted not in stack.output


@pytest.mark.parametrize(
    ("message", "is_passed_on"),
    [
        (BackMsg(rerun_script=ClientState()), True),
        (BackMsg(stop_script=True), True),
        (BackMsg(app_heartbeat=True), True),
        (BackMsg(clear_cache=True), False),
        (BackMsg(load_git_info=True), False),
        (BackMsg(set_run_on_save=True), False),
        (BackMsg(debug_shutdown_runtime=True), False),
        (BackMsg(), False),
    ],
    ids=str,
)
def test_only_what_the_page_sends_reaches_streamlit(message: BackMsg, is_passed_on: bool) -> None:
    frames = [message.SerializeToString(), BackMsg(app_heartbeat=True).SerializeToString()]
    coming: list[Message] = [{"type": "websocket.receive", "bytes": frame} for frame in frames]
    arrived: list[object] = []

    async def receive() -> Message:
        return coming.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError

    async def streamlit(scope: Scope, receive: Receive, send: Send) -> None:
        while coming:
            arrived.append((await receive())["bytes"])

    run_within(5, GuardedSockets(streamlit)({"type": "websocket", "headers": []}, receive, send))

    assert (frames[0] in arrived[:1]) == is_passed_on
    assert arrived[-1] == frames[1]


RAISE = """
import resource
from common.logs import start_logging
from common.open_files import raise_open_files
start_logging()
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
raise_open_files()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "limit", "is_logged"),
    [(1024, 4096, 4096, False), (1024, 1024, 1024, True), (4096, 4096, 4096, False)],
)
def test_the_limit_of_open_files_is_raised_and_too_low_a_one_is_logged(
    tmp_path: Path, soft: int, hard: int, limit: int, is_logged: bool
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", RAISE.format(soft=soft, hard=hard)],
        cwd=ROOT,
        env=bare_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
    )

    assert ended.stdout.strip() == str(limit)
    assert bool(logged(ended.stderr, "too few open files allowed")) == is_logged


def test_both_processes_raise_it(stack: Stack) -> None:
    for part in ("page", "gunicorn"):
        soft, hard = stack.process_of(part).rlimit(resource.RLIMIT_NOFILE)

        assert soft == hard or soft >= OPEN_FILES_NEEDED
