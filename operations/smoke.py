"""Check what is configured, then submit one analysis through it and tell each state with its time.

    make smoke

Exit status: 0 when the analysis came back, 1 when it did not, with the reason and what to do.
Nothing is paid before Redis, QStash, the signing keys and the model are known to be right.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from common.connection import StoreUnavailable
from common.environment import SettingsError, load
from common.failures import Failure
from common.logs import start_logging
from common.ports import LimitReached
from common.record import AnalysisRecord, Status
from common.settings import ServiceSettings
from common.submission import Submissions, new_owner_token, new_request_id
from common.task import AnalysisInput
from operations.doctor import FREE_CHECKS, WHAT_TO_DO, Fault, examine, make_clients
from operations.history import connect_history
from operations.limits import connect_limits
from operations.settings import OperationsSettings

POLL_SECONDS = 0.5
INPUT = AnalysisInput(
    name="Smoke test", age=30, description="I check that the whole path works, kindly and often."
)


def follow(submissions: Submissions, request_id: str) -> Iterator[AnalysisRecord]:
    """Read the record whenever it has changed, until it is terminal."""
    seen: tuple[Status, int] | None = None
    while True:
        record = submissions.look_up(request_id)
        if (record.status, record.attempt) != seen:
            seen = (record.status, record.attempt)
            yield record
        if record.status.is_terminal:
            return
        time.sleep(POLL_SECONDS)


def run(say: Callable[[str], None]) -> None:
    """Do it all. Raises: Fault, LimitReached, SettingsError, StoreUnavailable."""
    settings, options = load(ServiceSettings, OperationsSettings)
    start_logging(settings)
    at = make_clients(settings, options)
    with closing(at.analyst):
        for found in examine(at, FREE_CHECKS):
            if isinstance(found, Fault):
                raise found
            say(found)

    submissions = Submissions(
        at.store,
        at.queue,
        settings,
        limits=connect_limits(settings, options, at.store),
        history=connect_history(options, at.store),
    )
    request_id, owner_token = new_request_id(), new_owner_token()
    began = time.monotonic()
    submissions.submit(INPUT, request_id=request_id, owner_token=owner_token)
    for record in follow(submissions, request_id):
        reason = record.failure or record.last_failure
        why = f": {reason.sentence}" if reason and not record.result else ""
        say(f"{time.monotonic() - began:6.1f} s  {record.status}, attempt {record.attempt}{why}")
    submissions.delete(request_id, owner_token)
    if record.result is None:
        todo = WHAT_TO_DO.get(record.failure or Failure.TIMED_OUT, "See the service's log.")
        raise Fault(f"The analysis did not come back. {todo}")
    say(f"{record.model} wrote: {record.result.summary}")


if __name__ == "__main__":
    try:
        run(lambda line: print(line, flush=True))
    except (Fault, LimitReached, SettingsError, StoreUnavailable) as error:
        sys.exit(str(error))
