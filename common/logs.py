"""How both processes log: one line per event, with the request id, to standard error."""

import logging


def start_logging() -> None:
    """Call once per process, before anything is worth a line."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(process)d %(name)s %(message)s")
    for client in ("httpx", "httpx2"):  # they log each request; our own lines say what it meant
        logging.getLogger(client).setLevel(logging.WARNING)
