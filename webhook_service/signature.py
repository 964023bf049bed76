"""Verify that a delivery comes from QStash, is meant for this URL, and carries this body.

The SDK's `Receiver` is not used: its `clock_tolerance` has no effect, and it hides the reason.
A token is never refused for having been seen: idempotent state is the defence against replay.
Source: https://upstash.com/docs/qstash/features/security
"""

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Any

import jwt

CLOCK_LEEWAY_SECONDS = 30
CLAIMS = ["iss", "sub", "exp", "nbf", "body"]


class SignatureRefused(Exception):
    """The delivery is not QStash's: a `reason`, one of few, and details for the log alone."""

    def __init__(self, reason: str, details: str = "") -> None:
        super().__init__(f"{reason}{details}")
        self.reason = reason


def verify(token: str | None, body: bytes, *, url: str, keys: tuple[str, str]) -> None:
    """Check a delivery's `Upstash-Signature` against its raw body.

    `url` is the configured public one: behind a proxy the request's own differs. `keys` are the
    current and the next signing key. Raises: SignatureRefused, whatever the token holds.
    """
    if not token:
        raise SignatureRefused("no Upstash-Signature header")
    claims = _decode(token, keys)
    if claims["sub"] != url:
        raise SignatureRefused("wrong url", f": got {claims['sub']!r:.200}, want {url!r}")
    digest = urlsafe_b64encode(sha256(body).digest()).decode().rstrip("=")
    claimed = claims["body"]
    if not isinstance(claimed, str) or not hmac.compare_digest(
        claimed.rstrip("=").encode("utf-8", "replace"), digest.encode()
    ):
        raise SignatureRefused("body hash does not match")


def _decode(token: str, keys: tuple[str, str]) -> dict[str, Any]:
    for key in keys:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=["HS256"],
                issuer="Upstash",
                leeway=CLOCK_LEEWAY_SECONDS,
                options={"require": CLAIMS, "verify_aud": False},
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.ExpiredSignatureError:
            raise SignatureRefused("expired", " (compare the clocks)") from None
        except jwt.ImmatureSignatureError:
            raise SignatureRefused("not yet valid", " (compare the clocks)") from None
        except jwt.PyJWTError as error:
            raise SignatureRefused("not a QStash token", f": {type(error).__name__}") from None
        except Exception as error:
            # PyJWT lets some malformed tokens raise other errors; none of them is a delivery.
            raise SignatureRefused("unreadable token", f": {type(error).__name__}") from None
    raise SignatureRefused("no known key", " (were the signing keys rotated?)")
