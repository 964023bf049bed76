"""The page's web server: Streamlit's own, with our headers, and without what the page doesn't use.

`streamlit run streamlit_app.py` draws the same page without any of this, where a host starts it so.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path
from urllib.parse import quote, urlsplit

import streamlit as st
from google.protobuf.message import DecodeError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from streamlit import config
from streamlit.proto.BackMsg_pb2 import BackMsg
from uvicorn.config import LOGGING_CONFIG

from common.addresses import LOOPBACK_NAMES
from common.form import questions
from common.logs import get_logger, quiet_servers
from common.security_headers import NO_INDEX, SECURITY_HEADERS
from common.task import TASK
from page import looks, preload
from page.connection import connect
from page.errors import on_script_error

SCRIPT = Path(__file__).parent.parent / "streamlit_app.py"
STYLE = Path(__file__).parent / "page.css"
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">'
    f'<text y=".9em" font-size="90">{escape(TASK.icon)}</text></svg>'
)
KNOWN_MESSAGES = {"rerun_script", "stop_script", "app_heartbeat"}
POLICY_VIOLATION = 1008  # https://datatracker.ietf.org/doc/html/rfc6455#section-7.4.1

log = get_logger(__name__)


def make_app(*, loopback_names_only: bool = False) -> st.App:
    """Make the ASGI application.

    With `loopback_names_only`, requests for any other host are refused: a page elsewhere could
    otherwise reach this one by a name of its own that leads to 127.0.0.1.
    """
    LOGGING_CONFIG["loggers"].clear()  # its first lines, too, are to be written as ours are
    hosts = LOOPBACK_NAMES if loopback_names_only else ("*",)
    return st.App(
        SCRIPT,
        lifespan=_lifespan,
        on_script_error=on_script_error,
        routes=[Route("/", _index), Route("/robots.txt", _robots)],
        middleware=[
            Middleware(SecurityHeaders),
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False),
            Middleware(GuardedSockets),
        ],
    )


class SecurityHeaders:
    """Adds the headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_link = scope["type"] == "http" and (scope["path"] != "/" or scope["query_string"])
        added = {**SECURITY_HEADERS, **(NO_INDEX if is_link else {})}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                MutableHeaders(scope=message).update(added)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class GuardedSockets:
    """Refuses websockets that another site's page opens, and drops messages that ours never sends.

    Streamlit would refuse such websockets, too, but first asks an outside server for its own public
    address while everybody else waits. It accepts, from anybody, a message that empties the caches
    of the whole process, our connections among them. Looks that find no news are dropped, too.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket" and _is_foreign(Headers(scope=scope)):
            log.warning("websocket of another site refused", cause="Origin is not Host")
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return

        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        socket = looks.open_socket()

        async def receive_wanted() -> Message:
            while True:
                message = await receive()
                if message["type"] != "websocket.receive":
                    return message
                if await _is_wanted(message.get("bytes"), socket):
                    return message

        try:
            await self._app(_named(scope, socket), receive_wanted, send)
        finally:
            looks.close_socket(socket)


def _named(scope: Scope, socket: str) -> Scope:
    """Have the page know its websocket, whatever the browser calls it."""
    name = looks.HEADER.encode()
    others = [header for header in scope["headers"] if header[0] != name]
    return {**scope, "headers": [*others, (name, socket.encode())]}


def _is_foreign(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is None or origin in config.get_option("server.corsAllowedOrigins"):
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    except ValueError:
        return True


async def _is_wanted(frame: bytes | None, socket: str) -> bool:
    """Whether the page's own script sends such messages, and there is something to do.

    What is no message at all is let through: it ends the session.
    """
    if frame is None:
        return True
    try:
        message = BackMsg.FromString(frame)
    except DecodeError:
        return True
    if message.WhichOneof("type") not in KNOWN_MESSAGES:
        return False
    return not await looks.is_needless(socket, message)


@asynccontextmanager
async def _lifespan(app: st.App) -> AsyncIterator[None]:
    """Start what the options serve before the first visitor comes."""
    quiet_servers()
    connect()
    log.info("page started", port=config.get_option("server.port"))
    yield


async def _index(request: Request) -> Response:
    return HTMLResponse(INDEX, headers={"Cache-Control": "no-cache"})


async def _robots(request: Request) -> Response:
    """Allow search engines: they must read the page to learn what not to index."""
    return PlainTextResponse("User-agent: *\nDisallow:\n")


def _make_index() -> str:
    """Streamlit's HTML with our title, description, icon and style, and what makes it load sooner.

    The script sends the style, too, but only once something is to be seen, which would then move.

    Raises: ValueError when Streamlit's file has changed.
    """
    static = Path(st.__file__).parent / "static"
    page = (static / "index.html").read_text()
    replaced = {
        "<title>Streamlit</title>": (
            f"<title>{escape(TASK.name)}</title>\n"
            f'    <meta name="description" content="{escape(TASK.description)}" />\n'
            f'    <meta property="og:title" content="{escape(TASK.name)}" />\n'
            f'    <meta property="og:description" content="{escape(TASK.description)}" />'
        ),
        "</head>": f"<style>{STYLE.read_text()}</style></head>",
        'href="./favicon.png"': f'href="data:image/svg+xml,{quote(ICON)}"',
    }
    for theirs, ours in replaced.items():
        if theirs not in page:
            raise ValueError(f"Streamlit's index.html has no {theirs} any more")
        page = page.replace(theirs, ours)
    return preload.sooner(page, questions(TASK.form), static)


INDEX = _make_index()
