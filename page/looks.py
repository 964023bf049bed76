"""Looks for news that need no run of Streamlit.

A page that waits has Streamlit run a fragment every few seconds, which costs many times what the
look itself does. So the page leaves its question with the server here, which asks it when the
browser wants that run, and passes the wish on only when there is something to do.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from secrets import token_hex

from streamlit.proto.BackMsg_pb2 import BackMsg

HEADER = "ask-socket"  # by which the page knows its websocket; only the server sets it
Question = Callable[[], bool]  # whether there is something to do

_threads = ThreadPoolExecutor(64, "look")  # as many of them wait for Redis at once, should it hang


@dataclass
class Socket:
    """A websocket that is open."""

    question: Question | None = None


_sockets: dict[str, Socket] = {}


def open_socket() -> str:
    """Return a name for a new websocket."""
    name = token_hex(16)
    _sockets[name] = Socket()
    return name


def close_socket(name: str) -> None:
    """Forget it, and its question."""
    del _sockets[name]


def leave(name: str | None, question: Question | None) -> None:
    """Have this asked before each run of the fragment from now on; with None, nothing is."""
    if socket := _sockets.get(name or ""):  # it may be closed since
        socket.question = question


async def is_needless(name: str, message: BackMsg) -> bool:
    """Whether the message only asks to look for news, and there are none."""
    question = _sockets[name].question
    if not question or not message.rerun_script.is_auto_rerun:
        return False
    try:
        return not await asyncio.get_running_loop().run_in_executor(_threads, question)
    except Exception:
        return False  # the run meets the same, and says so
