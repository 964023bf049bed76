"""What a browser never sends, over a real websocket to the real page."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

from tests.processes import Stack

FOR_RERUN = ForwardMsg.FINISHED_EARLY_FOR_RERUN
PATIENCE = 30  # seconds; on a busy machine
QUIET = 0.3  # seconds without a word, after which nothing runs any more


class Tab:
    """A browser tab, as the page's server sees it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._script_hash = ""
        self.ids: dict[str, str] = {}  # of widgets and components, by label or name
        self.fragments: dict[str, str] = {}  # likewise, where they are in one
        self.exceptions = 0  # boxes that Streamlit itself has drawn
        self.run()

    def run(self, fragment: str = "", **states: tuple[str, object]) -> list[int]:
        """Ask for a run with such states, by widget id; return how each run of it ended."""
        message = BackMsg()
        request = message.rerun_script
        request.page_script_hash, request.fragment_id = self._script_hash, fragment
        for widget_id, (field, value) in states.items():
            state = request.widget_states.widgets.add(id=widget_id)
            if isinstance(value, list):
                getattr(state, field).data.extend(value)
            else:
                setattr(state, field, value)
        self.send(message.SerializeToString())
        return self._ends()

    def send(self, message: bytes | str) -> None:
        self._socket.send(message)

    def runs_again(self) -> bool:
        """Whether another run begins by itself."""
        try:
            while self._receive(QUIET).WhichOneof("type") != "new_session":
                pass
        except TimeoutError:
            return False
        return True

    def _receive(self, within_seconds: float) -> ForwardMsg:
        data = self._socket.recv(timeout=within_seconds)
        assert isinstance(data, bytes)
        message: ForwardMsg = ForwardMsg.FromString(data)
        return message

    def _ends(self) -> list[int]:
        ends: list[int] = []
        while not ends or (ends[-1] == FOR_RERUN and len(ends) < 5):
            message = self._receive(PATIENCE)
            kind = message.WhichOneof("type")
            if kind == "new_session":
                self._script_hash = message.new_session.page_script_hash
            elif kind == "delta":
                self._note(message)
            elif kind == "script_finished":
                ends.append(message.script_finished)
        return ends

    def _note(self, message: ForwardMsg) -> None:
        element = message.delta.new_element
        kind = element.WhichOneof("type")
        self.exceptions += kind == "exception"
        drawn = getattr(element, kind or "empty")
        if widget_id := getattr(drawn, "id", ""):
            name = getattr(drawn, "label", "") or getattr(drawn, "component_name", "")
            self.ids[name] = widget_id
            self.fragments[name] = message.delta.fragment_id


@contextmanager
def open_tab(url: str) -> Iterator[Tab]:
    address = f"{url.replace('http', 'ws')}/_stcore/stream"
    with connect(address, subprotocols=["streamlit"], max_size=None) as socket:  # type: ignore[list-item]
        yield Tab(socket)


REQUESTS = "ask_later_requests"


@pytest.mark.parametrize("is_whole", [False, True], ids=["the fragment", "the page"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("json_value", '{"told": NaN}'),
        ("json_value", '{"told": {"wanted": NaN, "unfinished": [NaN]}}'),
        ("json_value", '{"told": [1]}'),
        ("json_value", '{"told": {"wanted": "0"}}'),
        ("json_value", "[1]"),
        ("json_trigger_value", '{"told": {"wanted": "gone with the run"}}'),
        ("trigger_value", True),
    ],
)
def test_whatever_the_list_is_said_to_hold_the_page_runs_once(
    stack: Stack, field: str, value: object, is_whole: bool
) -> None:
    with open_tab(stack.page_url) as tab:
        fragment = "" if is_whole else tab.fragments[REQUESTS]

        ends = tab.run(fragment, **{tab.ids[REQUESTS]: (field, value)})

        assert ends.count(FOR_RERUN) <= (0 if is_whole else 1)
        assert not tab.runs_again()
