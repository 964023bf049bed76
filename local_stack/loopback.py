"""A development tool: the stand-ins answer this machine's own programs, never a web page elsewhere.

A browser's page can have its own name lead to loopback (DNS rebinding), or send a simple POST.
"""

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from common.addresses import is_loopback


class LoopbackOnly:
    """Refuse a request under a name that isn't loopback's, and one from a page elsewhere."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if not is_loopback(f"http://{headers.get('Host', '')}"):
                app = PlainTextResponse("This answers to loopback names alone.\n", 421)
            elif not is_loopback(headers.get("Origin", "http://localhost")):
                app = PlainTextResponse("This answers no page of another site.\n", 403)
        await app(scope, receive, send)
