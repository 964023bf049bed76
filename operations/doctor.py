"""Check each neighbour that is configured, and say in a sentence what is wrong and how to fix it.

`python -m operations doctor` runs all checks; `make smoke` stops at the first that is not
right, before anything is paid. Wrong and missing settings are named by `common/settings.py`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.client import HTTPException
from urllib.parse import urlsplit
from urllib.request import urlopen

from common.addresses import is_loopback
from common.connection import PasswordRefused, StoreUnavailable
from common.failures import Failure
from common.ports import HistoryUnavailable
from common.qstash import QStashRefused, QStashUnclear, Queue
from common.settings import ServiceSettings
from common.store import Store, open_store, utc_now
from operations.history import connect_history, database_of
from operations.limits import connect_limits
from operations.records import condition
from operations.settings import OperationsSettings
from webhook_service.analyst import Analyst
from webhook_service.answer import AnalysisFailed

CLOCKS_MAY_DIFFER = timedelta(seconds=10)
WHAT_TO_DO = {
    Failure.KEY_REFUSED: "Check OPENAI_API_KEY.",
    Failure.MODEL_NOT_FOUND: "Check OPENAI_MODEL, and that your key may use it.",
    Failure.NO_RESPONSES_API: "Set OPENAI_BASE_URL to a server that has it; see docs/deploy.md.",
    Failure.ONLY_REASONING: "Raise OPENAI_MAX_OUTPUT_TOKENS, or lower OPENAI_REASONING_EFFORT.",
    Failure.REQUEST_REFUSED: "Does the model take OPENAI_REASONING_EFFORT and structured output?",
    Failure.QUOTA_EXCEEDED: "Add credit at OpenAI, or raise the project's limit.",
    Failure.NOT_QUEUED: "The line above tells what QStash said; check QSTASH_TOKEN and the quota.",
    Failure.DELIVERY_FAILED: "Is the service running, and QSTASH_WEBHOOK_URL its public address?",
    Failure.TIMED_OUT: "No delivery came. Is QSTASH_WEBHOOK_URL the service's public address?",
}


class Fault(Exception):
    """Something is not right; the message says what, and what to do."""


@dataclass(frozen=True)
class Clients:
    """Whom the service needs."""

    settings: ServiceSettings
    options: OperationsSettings
    store: Store
    queue: Queue
    analyst: Analyst
    clock: Callable[[], datetime] = utc_now


def make_clients(settings: ServiceSettings, options: OperationsSettings) -> Clients:
    """Make a client for each; none connects before its first check."""
    return Clients(settings, options, open_store(settings), Queue(settings), Analyst(settings))


Check = Callable[[Clients], str]


def redis_answers(at: Clients) -> str:
    try:
        at.store.now()
    except PasswordRefused:
        raise Fault(
            "Redis refuses the password. Copy REDIS_URL or UPSTASH_REDIS_REST_TOKEN again."
        ) from None
    except StoreUnavailable as error:
        raise Fault(
            f"Redis does not answer ({error}). Check REDIS_URL or the Upstash pair."
        ) from None
    return "Redis answers."


def redis_does_all(at: Clients) -> str:
    try:
        at.store.check()
        connect_limits(at.settings, at.options, at.store).check()
    except StoreUnavailable as error:
        raise Fault(f"Redis answers, and can't do all that is needed: {error}.") from None
    return "Redis does all that is needed."


def redis_evicts_nothing(at: Clients) -> str:
    evicts = condition(at.store).evicts
    if evicts:
        raise Fault(
            "Redis evicts records when its memory is full: requests would be lost. "
            "Switch eviction off (maxmemory-policy noeviction)."
        )
    return "Redis evicts nothing." if evicts is False else "Redis does not tell if it evicts."


def redis_persists(at: Clients) -> str:
    persists = condition(at.store).persists
    if persists is False:
        raise Fault("Redis keeps nothing over a restart. Switch persistence on (appendonly yes).")
    return "Redis persists." if persists else "Redis does not tell if it persists."


def clocks_agree(at: Clients) -> str:
    ahead = at.clock() - at.store.now()
    if abs(ahead) > CLOCKS_MAY_DIFFER:
        seconds = round(ahead.total_seconds())
        raise Fault(
            f"This machine's clock is {abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} "
            "Redis's: signatures may be refused. Synchronise it (NTP)."
        )
    return "This machine's clock agrees with Redis's."


def qstash_knows_us(at: Clients) -> str:
    theirs, ours = at.queue.signing_keys(), at.settings.signing_keys
    if ours == theirs[::-1]:
        raise Fault("The two signing keys are swapped. Exchange them.")
    if theirs[0] not in ours:
        raise Fault("The signing keys are not QStash's (any more). Copy both from its console.")
    if ours != theirs:
        raise Fault(
            "QStash's signing keys were rotated: deliveries are taken now, and will be refused "
            "after the next rotation. Copy both from its console."
        )
    return "QStash takes the token, and signs with a key we know."


def service_answers(at: Clients) -> str:
    webhook_url = at.settings.qstash_webhook_url
    if not is_loopback(at.settings.qstash_url):
        if is_loopback(webhook_url):
            raise Fault(
                "QSTASH_WEBHOOK_URL is on this machine, where QStash can't reach it. "
                "Set the service's public address."
            )
        if urlsplit(webhook_url).scheme != "https":
            raise Fault("QSTASH_WEBHOOK_URL is http: anybody on the way can read. Use https.")
    url = webhook_url.removesuffix("/webhook") + "/health"
    try:
        with urlopen(url, timeout=10) as answer:  # noqa: S310 (the scheme was checked with the settings)
            is_ours = json.loads(answer.read(1000)) == {"status": "ok"}
    except (ValueError, RecursionError, HTTPException):
        is_ours = False
    except OSError as error:
        raise Fault(f"{url} does not answer ({error}). Is the service running there?") from None
    if not is_ours:
        raise Fault(f"{url} is answered by something else. Correct QSTASH_WEBHOOK_URL.")
    return "The service answers at its public address."


def model_is_known(at: Clients) -> str:
    server, model = at.settings.openai_host, at.settings.openai_model
    if at.analyst.knows_model():
        return f"{server} knows the model {model}."
    return f"{server} does not tell whether it has the model {model}: an analysis will show it."


def model_answers(at: Clients) -> str:
    at.analyst.check_answer()
    return "The model answers."


def history_answers(at: Clients) -> str:
    if database := database_of(connect_history(at.options, at.store)):
        database.ping()
        return "The history's database answers."
    return "There is no history (DATABASE_URL)."


def spend_is_limited(at: Clients) -> str:
    """Name what is unlimited; that is no fault, as only an explicit 0 makes it so."""
    if unlimited := at.options.unlimited:
        return f"Nothing limits (set to 0): {', '.join(unlimited)}."
    return "Submissions and spend are limited."


FREE_CHECKS: list[Check] = [
    redis_answers,
    redis_does_all,
    redis_evicts_nothing,
    redis_persists,
    clocks_agree,
    qstash_knows_us,
    service_answers,
    history_answers,
    spend_is_limited,
    model_is_known,
]
ALL_CHECKS = [*FREE_CHECKS, model_answers]


def examine(at: Clients, checks: list[Check]) -> Iterator[str | Fault]:
    """Run the checks in turn; each gives a sentence, or a Fault with a hint."""
    redis_answered = True
    for check in checks:
        if check is redis_does_all and not redis_answered:
            continue  # the first check has told
        try:
            yield check(at)
        except Fault as fault:
            redis_answered &= check is not redis_answers
            yield fault
        except HistoryUnavailable as error:
            yield Fault(f"The history can't be written ({error}). Check DATABASE_URL.")
        except StoreUnavailable as error:
            if redis_answered:  # else the first check has told
                what = check.__name__.replace("_", " ")
                yield Fault(
                    f"It could not be checked that {what} ({error}). "
                    "Try again, and let REDIS_URL's user INFO and TIME."
                )
        except (QStashRefused, QStashUnclear) as error:
            yield Fault(
                f"QStash refuses ({error}). Check QSTASH_TOKEN and QSTASH_URL: a token belongs to "
                "one region, so copy both from the same page of its console."
            )
        except AnalysisFailed as failed:
            todo = WHAT_TO_DO.get(failed.failure, "Check OPENAI_BASE_URL, or try again later.")
            yield Fault(f"{failed.failure.sentence} ({failed}) {todo}")
