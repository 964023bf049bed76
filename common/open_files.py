"""How many files and connections a process may have open."""

import resource

from common.logs import get_logger

OPEN_FILES_NEEDED = 2048  # 300 people on one page, or 600 deliveries in one worker

log = get_logger(__name__)


def raise_open_files() -> None:
    """Raise the soft limit to the hard one, and log a warning if that is too low.

    Source: https://docs.python.org/3/library/resource.html#resource.RLIMIT_NOFILE
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    # An infinite hard limit can't be taken as it is: the system's own maximum is lower.
    limit = max(soft, OPEN_FILES_NEEDED) if hard == resource.RLIM_INFINITY else hard
    if limit != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    if limit < OPEN_FILES_NEEDED:
        log.warning("too few open files allowed", limit=limit, needed=OPEN_FILES_NEEDED)
