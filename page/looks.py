"""Looks for news that need no run of Streamlit.

A page that waits has Streamlit run a fragment every few seconds, which costs many times what the
look itself does. So the page leaves its question with the server here, which asks it when the
browser wants that run, and passes the wish on only when there is something to do.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex

from streamlit.proto.BackMsg_pb2 import BackMsg

HEADER = "ask-socket"  # by which the page knows its websocket; only the server sets it
Question = Callable[[], bool]  # whether there is something to do

_threads = ThreadPoolExecutor(64, "look")  # as many of them wait for Redis at once, should it hang
_questions: dict[str, Question | None] = {}  # of each websocket that is open


def open_socket() -> str:
    """Return a name for a new websocket."""
    name = token_hex(16)
    _questions[name] = None
    return name


def close_socket(name: str) -> None:
    """Forget it, and its question."""
    del _questions[name]


def leave(name: str | None, question: Question | None) -> None:
    """Have this asked before each run of the fragment from now on; with None, nothing is."""
    if name in _questions:
        _questions[name] = question


async def is_needless(name: str, message: BackMsg) -> bool:
    """Whether the message only asks to look for news, and there are none."""
    question = _questions[name]
    if not question or not message.rerun_script.is_auto_rerun:
        return False
    try:
        return not await asyncio.get_running_loop().run_in_executor(_threads, question)
    except Exception:
        return False  # the run meets the same, and says so
