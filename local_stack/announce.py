"""A development tool: wait until page and service answer, say where they are, and stay."""

import signal
import sys
import time
from urllib.request import urlopen

POLL_SECONDS = 0.3


def wait_until_healthy(url: str) -> None:
    """Return as soon as a GET is answered with success."""
    while True:
        try:
            with urlopen(url, timeout=5):  # noqa: S310 (our own two addresses)
                return
        except OSError:
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    page, service, *notes = sys.argv[1:]
    wait_until_healthy(f"{page}/_stcore/health")
    wait_until_healthy(f"{service}/health")
    for line in (*notes, f"The page:    {page}", f"The service: {service}", "Ctrl-C ends all."):
        print(line, flush=True)
    signal.pause()
