"""Check what is configured, then run one analysis through it and print each state with its time.

    make smoke

Exit status: 0 when the analysis came back, 1 when it did not, with the reason and what to do.
Nothing is paid before Redis, QStash, the signing keys and the model have been checked.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing

from common.connection import StoreUnavailable
from common.environment import SettingsError, load
from common.failures import Failure
from common.logs import start_logging
from common.owners import new_owner_token
from common.ports import LimitReached
from common.record import AnalysisRecord
from common.result import first_text
from common.settings import ServiceSettings
from common.states import Status
from common.submission import OfOtherTask, Submissions, new_request_id
from common.task import TASK
from common.versions import Unreadable
from operations.doctor import FREE_CHECKS, Clients, Fault, examine, make_clients
from operations.hints import HINTS
from operations.settings import OperationsSettings

POLL_SECONDS = 0.5


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
    settings, chosen = load(ServiceSettings, OperationsSettings)
    start_logging(settings)
    at = make_clients(settings, chosen)
    with closing(at.analyst):
        for found in examine(at, FREE_CHECKS):
            if isinstance(found, Fault):
                raise found
            say(found)
    record = _run_one(at, say)
    if record.result is None:
        why = record.failure or Failure.TIMED_OUT, record.last_failure
        hint = next((HINTS[each] for each in why if each in HINTS), "See the service's log.")
        raise Fault(f"The analysis did not come back. {hint}")
    say(f"{record.model} wrote: {first_text(record.result)}")


def _run_one(at: Clients, say: Callable[[str], None]) -> AnalysisRecord:
    """Submit an analysis, follow it to its end, and delete it."""
    limits, history = at.options.limits, at.options.history
    submissions = Submissions(at.store, at.queue, at.settings, limits=limits, history=history)
    request_id, owner_token = new_request_id(), new_owner_token()
    began = time.monotonic()
    submissions.submit(TASK.example, request_id=request_id, owner_token=owner_token)
    try:
        for record in follow(submissions, request_id):
            reason = record.failure or record.last_failure
            why = f": {reason.sentence}" if reason and not record.result else ""
            took = time.monotonic() - began
            say(f"{took:6.1f} s  {record.status}, attempt {record.attempt}{why}")
    except (OfOtherTask, Unreadable):
        submissions.delete(request_id, owner_token)
        raise Fault(f"The answer can't be read. {HINTS[Failure.TASK_CHANGED]}") from None
    submissions.delete(request_id, owner_token)
    return record


if __name__ == "__main__":
    try:
        run(lambda line: print(line, flush=True))
    except (Fault, LimitReached, SettingsError, StoreUnavailable) as error:
        sys.exit(str(error))
