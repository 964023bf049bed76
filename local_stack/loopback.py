"""A development tool: loopback names alone, for what stands in.

A web page elsewhere can give its own name our address (DNS rebinding); its browser then sends that
name as the `Host`.
"""

from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

LOOPBACK_NAMES_ONLY = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
