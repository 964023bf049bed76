"""A development tool: the stand-ins answer this machine's own programs, and no web page elsewhere.

A page in a browser can make its own name lead to loopback (DNS rebinding), or send a simple POST.
"""

from argparse import ArgumentParser

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from common.addresses import is_loopback
from common.environment import bypass_proxies_on_loopback


class LoopbackOnly:
    """Refuses requests for another host's name, and those from another site's page."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            if not is_loopback(f"http://{headers.get('Host', '')}"):
                app = PlainTextResponse("Only loopback names are served here.\n", 421)
            elif not is_loopback(headers.get("Origin", "http://localhost")):
                app = PlainTextResponse("Pages of other sites are refused here.\n", 403)
        await app(scope, receive, send)


def serve(app: ASGIApp) -> None:
    """Serve a stand-in on loopback, at the port that the command line gives."""
    parser = ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    bypass_proxies_on_loopback()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
