"""Check what is configured, then submit one analysis through it and tell each state with its time.

    make smoke

Exit status: 0 when the analysis came back, 1 when it did not, with the reason and what to do.
Nothing is paid before Redis, QStash, the signing keys and the model are known to be right.
"""

import sys
import time
from collections.abc import Callable, Iterator
from urllib.error import URLError
from urllib.request import urlopen

from common.failures import Failure
from common.limits import LimitReached
from common.models import AnalysisInput, AnalysisRecord, Status
from common.queue import QStashRefused, QStashUnclear, Queue
from common.settings import ServiceSettings, SettingsError, load
from common.store import Store, StoreUnavailable, connect
from common.submission import Submissions, new_owner_token, new_request_id
from webhook_service.analyst import AnalysisFailed, Analyst

POLL_SECONDS = 0.5
INPUT = AnalysisInput(
    name="Smoke test", age=30, description="I check that the whole path works, kindly and often."
)
WHAT_TO_DO = {
    Failure.KEY_REFUSED: "Check OPENAI_API_KEY.",
    Failure.MODEL_NOT_FOUND: "Check OPENAI_MODEL, and that your key may use it.",
    Failure.QUOTA_EXCEEDED: "Add credit at OpenAI, or raise the project's limit.",
    Failure.NOT_QUEUED: "The line above tells what QStash said; check QSTASH_TOKEN and the quota.",
    Failure.DELIVERY_FAILED: "Is the service running, and QSTASH_WEBHOOK_URL its public address?",
    Failure.TIMED_OUT: "No delivery came. Is QSTASH_WEBHOOK_URL the service's public address?",
}


class Fault(Exception):
    """Something is not right; the message says what, and what to do."""


def check(settings: ServiceSettings, store: Store, queue: Queue, analyst: Analyst) -> Iterator[str]:
    """Check each neighbour, and say that it is right. Raises: Fault."""
    try:
        store.ping()
    except StoreUnavailable as error:
        raise Fault(
            f"Redis does not answer ({error}). Check REDIS_URL or the Upstash pair."
        ) from None
    yield "Redis answers."
    try:
        theirs = queue.signing_keys()
    except (QStashRefused, QStashUnclear) as error:
        raise Fault(f"QStash refuses ({error}). Check QSTASH_TOKEN and QSTASH_URL.") from None
    ours = (
        settings.qstash_current_signing_key.get_secret_value(),
        settings.qstash_next_signing_key.get_secret_value(),
    )
    if ours == theirs[::-1]:
        raise Fault("The two signing keys are swapped.")
    if theirs[0] not in ours:
        raise Fault("The signing keys are not QStash's (any more). Copy both from its console.")
    yield "QStash takes the token, and signs with a key we know."
    url = settings.qstash_webhook_url.removesuffix("/webhook") + "/health"
    try:
        with urlopen(url, timeout=10):  # noqa: S310 (the scheme was checked with the settings)
            pass
    except (URLError, OSError) as error:
        raise Fault(f"{url} does not answer ({error}). Is the service running there?") from None
    yield "The service answers at its public address."
    try:
        analyst.check_model()
    except AnalysisFailed as failed:
        todo = WHAT_TO_DO.get(failed.failure, "Check OPENAI_BASE_URL, or try again later.")
        raise Fault(f"{failed.failure.sentence} ({failed}) {todo}") from None
    yield f"OpenAI knows the model {settings.openai_model}."


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
    settings = load(ServiceSettings)
    store = Store(connect(settings), ttl=settings.ttl, lease=settings.times.lease)
    queue = Queue(settings)
    for line in check(settings, store, queue, Analyst(settings)):
        say(line)

    submissions = Submissions(store, queue, settings)
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
