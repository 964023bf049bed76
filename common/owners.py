"""Whose an analysis is: that browser's which submitted it, and keeps its owner token."""

import hmac
import secrets
from hashlib import sha256
from typing import Protocol


class Owned(Protocol):
    """Whatever tells whose it is: a record, or what is known of one that can't be read."""

    @property
    def owner_hash(self) -> str | None:
        """SHA-256 of the owner token; None where the API has made it, or nobody knows."""


def new_owner_token() -> str:
    """Make the token that lets the submitter, and nobody else, edit, cancel, retry and delete."""
    return secrets.token_urlsafe(24)


def hash_of(owner_token: str | None) -> str | None:
    """What is stored of it."""
    return sha256(owner_token.encode()).hexdigest() if owner_token else None


def owns(owned: Owned, owner_token: str | None) -> bool:
    """Whether this is its submitter's token: what the API has made has none.

    No Redis command; compared in constant time.
    """
    given = hash_of(owner_token)
    if given is None or owned.owner_hash is None:
        return False
    return hmac.compare_digest(given.encode(), owned.owner_hash.encode())
