"""Check everything that is configured, and say in a sentence what is wrong and how to fix it.

`python -m operations doctor` runs all checks; `make smoke` stops at the first fault, before
anything is paid. Wrong and missing settings are named by `common/settings.py`.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from http.client import HTTPException
from typing import Protocol, runtime_checkable
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import urlopen

from common.addresses import is_loopback
from common.connection import NotReached, PasswordRefused, StoreUnavailable
from common.options import Options
from common.ports import HistoryUnavailable, NoLimits
from common.qstash import QStashAway, QStashRefused, QStashUnclear, QStashUnreadable, Queue
from common.settings import ServiceSettings
from common.store import Store, nobodys_id, open_store, record_key, utc_now
from common.unreachable import reason
from operations import plug_in
from operations.hints import HINTS, WAY_THERE
from operations.records import condition
from operations.settings import OperationsSettings
from operations.statistics import Statistics
from webhook_service.access import RATE_KEYS
from webhook_service.analyst import Analyst
from webhook_service.answer import AnalysisFailed

MAX_CLOCK_DIFFERENCE = timedelta(seconds=10)
TOKEN_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND)
BEHIND_A_PROXY = (502, 503, 504)


class Fault(Exception):
    """Something is wrong; the message says what, and what to do."""


@runtime_checkable
class Checkable(Protocol):
    """What an option may bring, so that its check needs no import of the option."""

    def check(self) -> None:
        """Raise StoreUnavailable unless the option can do its work."""


@runtime_checkable
class HasDatabase(Protocol):
    """What an option with a database of its own may bring, too."""

    def check_redis(self) -> None:
        """Raise StoreUnavailable unless Redis does what the option needs of it."""

    def remarks(self) -> list[str]:
        """What the operator should do about it; nothing, usually. Raises: StoreUnavailable."""


@dataclass(frozen=True)
class Clients:
    """What the checks use; `chosen` are the options' settings."""

    settings: ServiceSettings
    chosen: OperationsSettings
    store: Store
    queue: Queue
    analyst: Analyst
    options: Options
    clock: Callable[[], datetime] = utc_now


def make_clients(settings: ServiceSettings, chosen: OperationsSettings) -> Clients:
    """Make a client for each; none connects before its first check."""
    store = open_store(settings)
    options = plug_in("command", settings, chosen, store)
    return Clients(settings, chosen, store, Queue(settings), Analyst(settings), options)


Check = Callable[[Clients], str]


def redis_answers(at: Clients) -> str:
    at.store.now()
    return "Redis answers."


def redis_does_all(at: Clients) -> str:
    """Try all that is done with records, with what is counted, and with what the options count.

    Nothing real is changed, and nothing stays.
    """
    at.store.check()
    at.store.usual_duration()
    Statistics(at.store).check()
    if isinstance(at.options.limits, Checkable):
        at.options.limits.check()
    if isinstance(at.options.history, HasDatabase):
        at.options.history.check_redis()
    with at.store.connection.errors():  # the operator's commands walk all keys
        at.store.connection.client.scan(0, match=record_key(nobodys_id()), count=1)
    if at.settings.api_keys and at.settings.api_rate_limit:
        at.store.connection.script("return KEYS[1]")([f"{RATE_KEYS}:{nobodys_id()}"], [])
    return "Redis does everything that is needed."


def redis_evicts_nothing(at: Clients) -> str:
    evicts = condition(at.store).evicts
    if evicts:
        raise Fault(
            "Redis evicts records when its memory is full: requests would be lost. "
            "Switch eviction off (maxmemory-policy noeviction)."
        )
    return "Redis does not tell whether it evicts." if evicts is None else "Redis evicts nothing."


def redis_persists(at: Clients) -> str:
    persists = condition(at.store).persists
    if persists is False:
        raise Fault("Redis loses everything at a restart. Switch persistence on (appendonly yes).")
    return "Redis persists." if persists else "Redis does not tell whether it persists."


def clocks_agree(at: Clients) -> str:
    ahead = at.clock() - at.store.now()
    if abs(ahead) > MAX_CLOCK_DIFFERENCE:
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
            "QStash's signing keys were rotated: deliveries are accepted now, and will be refused "
            "after the next rotation. Copy both from its console."
        )
    return "QStash accepts the token, and signs with a key we know."


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
    except HTTPError as error:
        if error.code in BEHIND_A_PROXY:
            raise Fault(
                f"{url} is answered with HTTP {error.code}: a proxy is there, and the service not "
                "behind it. Is the service running?"
            ) from None
        is_ours = False
    except (ValueError, RecursionError, HTTPException):
        is_ours = False
    except OSError as error:
        why = reason(error)
        raise Fault(f"{url} does not answer ({why}). Is the service running there?") from None
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
    if not isinstance(at.options.history, Checkable):
        return "There is no history (DATABASE_URL)."
    try:
        at.options.history.check()
    except HistoryUnavailable as error:
        raise Fault(f"The history can't be written ({error}).") from None
    return "The history can be written."


def history_is_well(at: Clients) -> str:
    told, history = history_answers(at), at.options.history
    if isinstance(history, HasDatabase) and (remarks := history.remarks()):
        raise Fault(f"The history needs something: {'; '.join(remarks)}.")
    return told


def spend_is_limited(at: Clients) -> str:
    """Name what is unlimited; that is no fault, as only an explicit 0 makes it so."""
    if isinstance(at.options.limits, NoLimits):
        return "Nothing limits submissions and spend."
    if unlimited := at.chosen.unlimited:
        return f"Not limited (set to 0): {', '.join(unlimited)}."
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
ALL_CHECKS = [
    *(history_is_well if check is history_answers else check for check in FREE_CHECKS),
    model_answers,
]


def examine(at: Clients, checks: list[Check]) -> Iterator[str | Fault]:
    """Run the checks in turn; each gives a sentence, or a Fault with a hint.

    A Redis that does not answer is one fault, not one for each check that asks it.
    """
    is_redis_away = False
    for check in checks:
        try:
            yield check(at)
        except Fault as fault:
            yield fault
        except StoreUnavailable as error:
            if not is_redis_away:
                yield _redis_fault(error, check)
            is_redis_away |= isinstance(error, NotReached) or check is redis_answers
        except (QStashRefused, QStashUnclear) as error:
            yield _qstash_fault(error)
        except AnalysisFailed as failed:
            hint = HINTS.get(failed.failure, "Try again later.")
            yield Fault(f"{failed.failure.sentence} ({failed}) {hint}")


def _qstash_fault(error: QStashRefused | QStashUnclear) -> Fault:
    status = error.status if isinstance(error, QStashRefused) else None
    if isinstance(error, QStashUnreadable) or (status and status < 400):
        return Fault(f"QSTASH_URL is answered by something else ({error}). Correct it.")
    if isinstance(error, QStashAway | QStashUnclear):
        return Fault(f"QStash does not answer ({error}). Check QSTASH_URL, and {WAY_THERE}.")
    if status in TOKEN_REFUSED:
        return Fault(
            f"QStash refuses the token ({error}). Check QSTASH_TOKEN and QSTASH_URL: a token "
            "belongs to one region, so copy both from the same page of its console."
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Fault(f"QStash takes no more just now ({error}). Wait, or raise your plan.")
    return Fault(f"QStash has a problem of its own ({error}). Try again later.")


def _redis_fault(error: StoreUnavailable, check: Check) -> Fault:
    if isinstance(error, PasswordRefused):
        hint = "Copy REDIS_URL or UPSTASH_REDIS_REST_TOKEN again."
        return Fault(f"Redis refuses the password. {hint}")
    if isinstance(error, NotReached):
        hint = f"Check REDIS_URL or the Upstash pair, and {WAY_THERE}."
        return Fault(f"Redis does not answer ({error}). {hint}")
    if check in (redis_answers, redis_does_all):
        return Fault(f"Redis answers, but can't do everything that is needed: {error}.")
    what = check.__name__.replace("redis", "Redis").replace("_", " ")
    hint = "Try again, and allow REDIS_URL's user INFO and TIME."
    return Fault(f"Could not check that {what} ({error}). {hint}")
