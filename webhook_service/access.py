"""Who may use the API, and how often. The only importer of flask_limiter and limits.

Several keys may have one name: whoever holds any of them is the same caller. So a key is rotated
by adding the new one under the old one's name, and removing the old one when nobody sends it.
"""

import hmac
import logging
import time
from datetime import timedelta
from hashlib import sha256

from flask import Blueprint, Flask, Response, request
from flask.typing import ResponseReturnValue
from flask_limiter import Limiter, RequestLimit
from limits.errors import StorageError
from werkzeug.middleware.proxy_fix import ProxyFix

from common.addresses import is_loopback
from common.connection import unavailable
from common.logs import get_logger
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.store import Store
from common.visitors import network
from webhook_service.web import Problem, bearer_token, whole_seconds

OPEN = "open"  # the caller's name where no key is asked for
RATE_KEYS = "LIMITS"  # what the keys in Redis begin with that count the calls

log = get_logger(__name__)


def caller(api_keys: dict[str, str], *, is_open: bool) -> str:
    """Name whose request this is. Raises: Problem."""
    if not api_keys and is_open:
        _refuse_other_sites()
        return OPEN
    if not api_keys:
        raise Problem(403, "The API is switched off here. Set API_KEYS to switch it on.")
    if name := _key_name(api_keys):
        return name
    raise Problem(401, "Send a valid API key as a bearer token.", {"WWW-Authenticate": "Bearer"})


def _refuse_other_sites() -> None:
    """Answer under loopback's names, and no page of another site. Raises: Problem.

    A browser's page can have its own name lead to loopback (DNS rebinding).
    """
    if not is_loopback(f"http://{request.host}"):
        raise Problem(421, "Without API_KEYS this answers to loopback names alone.")
    if not is_loopback(request.headers.get("Origin", "http://localhost")):
        raise Problem(403, "Without API_KEYS this answers no page of another site.")


def may_read(name: str, record: AnalysisRecord) -> bool:
    """Whether a caller made this analysis; one of an older version doesn't say who did."""
    if record.created_by is None:
        return record.owner_hash is None
    return record.created_by == name


def trust_proxies(app: Flask, hops: int) -> None:
    """Take the caller's address from the proxies nearest to us: whatever stands before is theirs.

    Source: https://werkzeug.palletsprojects.com/en/stable/middleware/proxy_fix/
    """
    if hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=0)  # type: ignore[method-assign]


def limit_rate(app: Flask, api: Blueprint, settings: ServiceSettings, store: Store) -> None:
    """Let each key, from each address, call each of the API's routes so often a minute.

    Counted in Redis, over the store's connections and with its time limits; without keys there
    is nobody to limit. Call it before the routes are registered.
    """
    if not settings.api_keys or not settings.api_rate_limit:
        return
    limiter = Limiter(
        lambda: f"{_key_name(settings.api_keys) or ''}@{network(request.remote_addr or '')}",
        app=app,
        storage_uri="redis://",  # what to speak; where to, the connections know
        storage_options={  # handed on
            "connection_pool": store.connection.pool,  # type: ignore[dict-item]
            "key_prefix": f"{store.connection.prefix}{RATE_KEYS}",
            "wrap_exceptions": True,
        },
        strategy="moving-window",
        on_breach=_refuse,
    )
    limiter.logger.setLevel(logging.WARNING)  # its line has the caller's address
    limiter.limit(f"{settings.api_rate_limit}/minute")(api)

    @app.errorhandler(StorageError)
    def failed(error: StorageError) -> ResponseReturnValue:
        return app.handle_user_exception(unavailable(store.connection.pool, error.storage_error))


def _refuse(breached: RequestLimit) -> Response:
    """Raises: Problem, always."""
    log.warning("too many requests", at=request.endpoint)
    rest = whole_seconds(timedelta(seconds=breached.reset_at - time.time()))
    raise Problem(429, "Too many requests with this key. Please wait.", {"Retry-After": rest})


def _key_name(api_keys: dict[str, str]) -> str | None:
    """Compare the key that was sent with every known one, each in the same time.

    No key at all is none of them: settings refuse the hash of an empty one.
    """
    digest = sha256(bearer_token()).digest()
    names = [
        name
        for known, name in api_keys.items()
        if hmac.compare_digest(bytes.fromhex(known), digest)
    ]
    return names[0] if names else None
