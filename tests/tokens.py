"""Tokens as QStash makes them, and as it never would. Made by hand: a library refuses the worst."""

import base64
import hashlib
import hmac
import json
import time

from local_stack import qstash_queue
from tests.conftest import WEBHOOK_URL
from tests.fakes import ID

FAILURE_URL = f"{WEBHOOK_URL}/failure"
CURRENT, NEXT = qstash_queue.CURRENT_SIGNING_KEY, qstash_queue.NEXT_SIGNING_KEY
ANOTHER = "sig_0000000000000000000000000000"
MESSAGE = json.dumps({"requestId": ID, "round": 1}).encode()
CALLBACK = json.dumps({"sourceBody": base64.b64encode(MESSAGE).decode()}).encode()


def token(
    url: str,
    body: bytes = MESSAGE,
    /,
    key: str = CURRENT,
    *,
    header: dict[str, object] | None = None,
    digest: str = "sha256",
    **changes: object,
) -> str:
    """A signed token; `changes` are to its claims, and None leaves a claim out."""
    now = int(time.time())
    claims: dict[str, object] = {
        "iss": "Upstash",
        "sub": url,
        "exp": now + 300,
        "nbf": 0,
        "iat": now,
        "jti": "jwt_1",
        "body": base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode(),
    }
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return sign({"typ": "JWT", "alg": "HS256"} | (header or {}), claims, key, digest)


def sign(header: object, claims: object, key: str, digest: str = "sha256") -> str:
    """Sign whatever is given, sense or not."""
    signed = f"{encode(json.dumps(header).encode())}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(hmac.digest(key.encode(), signed.encode(), digest))}"


def encode(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")
