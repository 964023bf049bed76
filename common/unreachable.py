"""Why a server can't be reached, in words of our own: an error's text may hold its address."""

import socket
import ssl
from collections.abc import Iterator

# The first that fits: each is a special kind of what comes later.
REASONS: dict[type[BaseException], str] = {
    ssl.SSLCertVerificationError: "its certificate is not trusted",
    ssl.SSLError: "no TLS with it",
    socket.gaierror: "unknown host",
    ConnectionRefusedError: "connection refused",
    ConnectionError: "connection cut",
    TimeoutError: "no answer in time",
    OSError: "no way there",
}


def reason(error: BaseException) -> str | None:
    """Name what lies beneath a client's error; None when that isn't the network's."""
    beneath = list(_chain(error, set()))
    for kind, words in REASONS.items():
        if any(isinstance(each, kind) for each in beneath):
            return words
    return None


def _chain(error: BaseException | None, seen: set[int]) -> Iterator[BaseException]:
    """The error and all that it came from: several, where a name has several addresses."""
    while error and id(error) not in seen:
        seen.add(id(error))
        yield error
        for each in error.exceptions if isinstance(error, BaseExceptionGroup) else ():
            yield from _chain(each, seen)
        error = error.__cause__ or error.__context__
