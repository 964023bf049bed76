"""What a browser never sends, over a real websocket to the real page."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from common.task import TASK
from tests.processes import Stack, wait_for

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
        self.boxes: list[str] = []  # that Streamlit itself has drawn for an exception
        self.alerts: list[str] = []
        self.run()

    def run(self, fragment: str = "", **states: tuple[str, object]) -> list[int]:
        """Ask for a run with such states, by widget id; return how each run of it ended."""
        self.ask(fragment, **states)
        return self._ends()

    def ask(self, fragment: str = "", **states: tuple[str, object]) -> None:
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
        if kind == "exception":
            self.boxes.append(str(element.exception))
        if kind == "html" and 'role="alert"' in element.html.body and "note" in element.html.body:
            self.alerts.append(re.sub("<[^>]+>", "", element.html.body))
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


REQUESTS = "page_requests"


@pytest.mark.parametrize("is_whole", [False, True], ids=["the fragment", "the page"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("json_value", '{"reply": NaN}'),
        ("json_value", '{"reply": {"wanted": NaN, "unfinished": [NaN]}}'),
        ("json_value", '{"reply": [1]}'),
        ("json_value", '{"reply": {"wanted": "0"}}'),
        ("json_value", "[1]"),
        ("json_trigger_value", '{"reply": {"wanted": "gone with the run"}}'),
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
        assert tab.alerts == []


TEXT, NUMBER, AREA, SEND = (
    "Name",
    "Age",
    "Short description",
    f"Get my {TASK.noun}",
)
FORM = "page_form"
DEEP = '{"reply": %s}' % ("[" * 100_000 + "]" * 100_000)


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        (REQUESTS, "json_value", "{{"),
        (REQUESTS, "json_value", DEEP),
        (REQUESTS, "json_value", '{"reply": %s}' % ("1" * 5000)),
        (REQUESTS, "string_value", "{{"),
        (REQUESTS, "bool_value", True),
        (REQUESTS, "trigger_value", True),
        (REQUESTS, "double_value", float("nan")),
        (REQUESTS, "int_array_value", [1]),
        (FORM, "json_trigger_value", '{"typed": {"name": NaN, "age": [1]}}'),
        (FORM, "json_trigger_value", '{"typed": ["canary"], "example": -1, "drawn": {}}'),
        (FORM, "json_trigger_value", "[1]"),
        (FORM, "json_value", '{"typed": "canary"}'),
        (FORM, "string_value", "{{"),
        (NUMBER, "string_value", "canary"),
        (NUMBER, "string_array_value", ["canary"]),
        (NUMBER, "json_value", '{"canary": 1}'),
        (SEND, "json_value", "{{"),
        ("canary", "string_value", "x"),
        ("canary" * 10_000, "string_value", "x"),
        ("", "string_value", "x"),
    ],
)
def test_a_forged_value_costs_one_line_at_most_and_shows_no_traceback(
    stack: Stack, name: str, field: str, value: object
) -> None:
    with open_tab(stack.page_url) as tab:
        lines = lines_of(
            stack, tab, lambda: tab.run("", **{tab.ids.get(name, name): (field, value)})
        )

    assert len(lines) <= 1
    assert tab.boxes == []
    for line in lines:
        assert "Traceback" not in line
        assert "canary" not in line
        assert len(line) < 5000


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        (NUMBER, "trigger_value", True),
        (TEXT, "int_value", 3),
        (TEXT, "json_value", '["canary"]'),
        (AREA, "trigger_value", True),
        (AREA, "string_array_value", ["canary"]),
        (SEND, "string_value", "canary"),
    ],
)
def test_a_form_that_holds_a_forged_value_is_refused_in_a_sentence(
    stack: Stack, name: str, field: str, value: object
) -> None:
    with open_tab(stack.page_url) as tab:
        states = {tab.ids[SEND]: ("trigger_value", True), tab.ids[name]: (field, value)}
        lines = lines_of(stack, tab, lambda: tab.run("", **states))

    assert tab.alerts == ["Not sent yet. 3 fields need a look."]
    assert lines == []


def lines_of(stack: Stack, tab: Tab, do: Callable[[], object]) -> list[str]:
    """What the page writes into its log meanwhile, all of it."""
    marks = [f"mark-{uuid4().hex}" for _ in range(2)]
    tab.ask(marks[0])
    do()
    tab.ask(marks[1])
    wait_for(lambda: marks[1] in stack.output)
    written = stack.output.partition(marks[0])[2].partition(marks[1])[0]
    return [line for line in written.splitlines()[1:-1] if " page " in line]


@pytest.mark.parametrize("message", ["canary", b"\xff canary"], ids=["text", "no protocol buffer"])
def test_what_is_no_message_at_all_shows_no_traceback(stack: Stack, message: bytes | str) -> None:
    with open_tab(stack.page_url) as other, open_tab(stack.page_url) as tab:
        lines = "".join(lines_of(stack, other, lambda: send_last(tab, message)))

    assert '"cause"' in lines
    assert "Traceback" not in lines
    assert "canary" not in lines


def send_last(tab: Tab, message: bytes | str) -> None:
    tab.send(message)
    with pytest.raises(ConnectionClosed):
        tab.run()
