"""Events: what their lines tell, and who watches."""

import json
import logging
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import pytest

from common.events import (
    NOT_OURS,
    Answered,
    AttemptFailed,
    Claimed,
    Deleted,
    DeliveryIgnored,
    DeliveryRefused,
    Discarded,
    Edited,
    Event,
    Events,
    Published,
    PublishFailed,
    RecordEvent,
    RecordNotRead,
    Rejected,
    Reopened,
    Settled,
    StoreFailed,
    Submitted,
    SubmittedAgain,
)
from common.failures import Failure, Limit
from common.qstash import QStashRefused
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.states import Reason, Status
from common.store import Store
from common.submission import Submissions
from common.versions import Unreadable, Why
from tests.fakes import (
    ADA,
    ANALYSIS,
    BOB,
    CALL,
    DEADLINE,
    DELAY,
    ID,
    LEASE,
    NOW,
    TOKENS,
    FakeAnalyst,
    FakeQueue,
    pending,
    with_fields,
)
from webhook_service.answer import AnalysisFailed
from webhook_service.worker import Delivery, Worker

WAITING = pending()
CLAIMED = WAITING.claim("claim-token", of_round=1, now=NOW + DELAY, call=CALL, lease=LEASE)
COMPLETED = CLAIMED.complete("claim-token", ANALYSIS, model="gpt-test", now=NOW + DELAY)
NUMBERS = {"request_id": ID, "round": 1, "attempt": 0}
FIRST = NUMBERS | {"attempt": 1}


def failed(failure: Failure) -> AnalysisRecord:
    return WAITING._fail(failure, NOW)


# Each event, and the line that it writes.
LINES: list[tuple[Event, dict[str, Any]]] = [
    (Submitted(WAITING), {"event": "submitted", **NUMBERS}),
    (SubmittedAgain(WAITING), {"event": "submitted again", **NUMBERS, "was": "pending"}),
    (Edited(WAITING.edit(BOB)), {"event": "edited", **NUMBERS}),
    (Reopened(WAITING), {"event": "reopened", **NUMBERS}),
    (
        Rejected(ID, Limit.WAITING),
        {"event": "rejected", "level": "warning", "request_id": ID, "code": "waiting"},
    ),
    (Published(WAITING, "msg_1"), {"event": "published", **NUMBERS, "message_id": "msg_1"}),
    (
        PublishFailed(WAITING, "TimeoutError"),
        {"event": "publish failed", "level": "warning", **NUMBERS, "cause": "TimeoutError"},
    ),
    (
        Claimed(CLAIMED, "call-id", 0.25),
        {"event": "claimed", **FIRST, "call_id": "call-id", "seconds_after_due": 0.25},
    ),
    (
        Answered(CLAIMED, 1.5, TOKENS),
        {
            "event": "answered",
            **FIRST,
            "seconds": 1.5,
            "input_tokens": 300,
            "output_tokens": 200,
        },
    ),
    (
        AttemptFailed(CLAIMED, 1.5, None, Failure.RATE_LIMITED, "429"),
        {
            "event": "attempt failed",
            "level": "warning",
            **FIRST,
            "seconds": 1.5,
            "code": "rate_limited",
            "cause": "429",
        },
    ),
    (Discarded(CLAIMED, 1.5, TOKENS), {"event": "answer discarded", **FIRST, "seconds": 1.5}),
    (Settled(COMPLETED), {"event": "settled", **FIRST, "status": "completed"}),
    (
        Settled(failed(Failure.NOT_QUEUED), "QStashError: no credit"),
        {
            "event": "settled",
            "level": "error",
            **NUMBERS,
            "status": "failed",
            "code": "not_queued",
            "cause": "QStashError: no credit",
        },
    ),
    (Deleted(ID, COMPLETED, 1), {"event": "deleted", "request_id": ID, "was": "completed"}),
    (Deleted(ID, None, None), {"event": "deleted", "request_id": ID, "was": "unreadable"}),
    (
        DeliveryIgnored(ID, 2, Reason.TERMINAL),
        {"event": "delivery ignored", "request_id": ID, "round": 2, "cause": "already terminal"},
    ),
    (
        DeliveryRefused("wrong url", "wrong url: got 'a', want 'b'"),
        {
            "event": "delivery refused",
            "level": "warning",
            "cause": "wrong url: got 'a', want 'b'",
        },
    ),
    (
        DeliveryRefused(NOT_OURS, f"{NOT_OURS}: ValidationError"),
        {"event": "delivery refused", "level": "error", "cause": f"{NOT_OURS}: ValidationError"},
    ),
    (
        StoreFailed("redis", "Redis: ConnectionError", request_id=ID, round=1),
        {
            "event": "store unavailable",
            "level": "error",
            "request_id": ID,
            "round": 1,
            "cause": "Redis: ConnectionError",
            "store": "redis",
        },
    ),
    (
        StoreFailed("busy_database", "database: …", at="/analyze"),
        {
            "event": "history busy",
            "level": "error",
            "at": "/analyze",
            "cause": "database: …",
            "store": "busy_database",
        },
    ),
    (
        RecordNotRead(Unreadable(ID, Why.NEWER, "status"), 1),
        {
            "event": "record not read",
            "level": "warning",
            "request_id": ID,
            "round": 1,
            "cause": "a stored record can't be read: of a newer version: status",
        },
    ),
    (
        RecordNotRead(Unreadable(None, Why.OLDER, "dueAt", {"requestId": ID})),
        {
            "event": "record not read",
            "level": "error",
            "request_id": ID,
            "cause": "a stored record can't be read: of an older version: dueAt",
        },
    ),
]


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [json.loads(line) for line in caplog.text.splitlines()]


@pytest.mark.parametrize(("event", "line"), LINES, ids=lambda each: type(each).__name__)
def test_an_event_is_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture, event: Event, line: dict[str, Any]
) -> None:
    Events().emit(event)

    (written,) = lines(caplog)
    assert {name: written.pop(name) for name in ("logger", "pid", "time")}
    assert written == {"level": "info", **line}


def test_each_kind_of_event_is_tested() -> None:
    def kinds(of: type[Event]) -> Iterator[type[Event]]:
        for kind in of.__subclasses__():
            yield kind
            yield from kinds(kind)

    of_the_core = {kind for kind in kinds(Event) if kind.__module__ == Event.__module__}
    assert {type(event) for event, _ in LINES} == of_the_core - {RecordEvent}


@pytest.mark.parametrize(("event", "_"), LINES, ids=lambda each: type(each).__name__)
def test_no_event_writes_a_text_or_a_secret_of_its_record(
    caplog: pytest.LogCaptureFixture, event: Event, _: object
) -> None:
    secret = {"owner_hash": "OWNER", "claim_token": "CLAIM", "fingerprint": "PRINT", "nonce": "N0"}
    record = COMPLETED.model_copy(update={"input": ADA, **secret})
    with_record = {f.name: getattr(event, f.name) for f in fields(event)}
    if "record" in with_record:
        event = type(event)(**{**with_record, "record": record})

    Events().emit(event)

    for text in (ADA.name, ADA.description, ANALYSIS.summary, *secret.values()):
        assert text not in caplog.text


@pytest.mark.parametrize(
    ("failure", "level"),
    [
        (Failure.REFUSED_BY_MODEL, "info"),
        (Failure.ATTEMPTS_EXHAUSTED, "error"),
        (Failure.TIMED_OUT, "error"),
        (Failure.DELIVERY_FAILED, "error"),
        (Failure.KEY_REFUSED, "error"),
    ],
)
def test_an_end_is_an_error_where_somebody_must_look(
    caplog: pytest.LogCaptureFixture, failure: Failure, level: str
) -> None:
    Events().emit(Settled(failed(failure)))

    assert lines(caplog)[0]["level"] == level


def test_a_failure_tells_the_cause_of_its_latest_attempt_where_nothing_else_is_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    released = CLAIMED.fail(
        "claim-token",
        Failure.MODEL_TIMEOUT,
        now=NOW + DELAY,
        retry_after=DELAY,
        longest_wait=DEADLINE,
    )

    Events().emit(Settled(released.time_out(now=released.deadline_at)))
    Events().emit(Settled(with_fields(released, status=Status.COMPLETED)))

    timed_out, completed = lines(caplog)
    assert (timed_out["code"], timed_out["cause"]) == ("timed_out", "model_timeout")
    assert "cause" not in completed


def test_what_qstash_and_the_model_said_is_the_cause_of_the_end(
    caplog: pytest.LogCaptureFixture, store: Store, queue: FakeQueue, settings: ServiceSettings
) -> None:
    queue.trouble = QStashRefused("QStashError: no credit")
    Submissions(store, queue, settings).submit(ADA, request_id=ID)
    store.delete(ID)
    store.create(pending(store.now() - DELAY))
    analyst = FakeAnalyst(AnalysisFailed(Failure.KEY_REFUSED, "401 invalid_api_key"))
    Worker(store, analyst, settings.times).process(Delivery(request_id=ID, round=1))

    ends = [line for line in lines(caplog) if line["event"] == "settled"]

    assert [(end["code"], end["cause"]) for end in ends] == [
        ("not_queued", "QStashError: no credit"),
        ("key_refused", "401 invalid_api_key"),
    ]


def test_all_subscribers_are_told_in_the_order_in_which_they_came() -> None:
    bus, told = Events(), list[str]()
    bus.subscribe(lambda event: told.append(f"first: {event.line}"))
    bus.subscribe(lambda event: told.append(f"second: {event.line}"))

    bus.emit(Submitted(WAITING))

    assert told == ["first: submitted", "second: submitted"]


def test_an_error_of_a_subscriber_is_logged_once_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(event: Event) -> None:
        raise ValueError(ADA.name)

    bus, told = Events(), list[Event]()
    bus.subscribe(broken)
    bus.subscribe(told.append)

    for _ in range(3):
        bus.emit(Submitted(WAITING))

    errors = [line for line in lines(caplog) if line["event"] == "subscriber failed"]
    assert len(told) == 3
    assert [(each["cause"], each["during"]) for each in errors] == [("ValueError", "submitted")]
    assert __file__ in errors[0]["at"]
    assert ADA.name not in caplog.text


def test_a_subscriber_can_not_stop_a_submission(
    store: Store, queue: FakeQueue, settings: ServiceSettings
) -> None:
    def broken(event: Event) -> None:
        raise OSError

    store.events.subscribe(broken)

    record = Submissions(store, queue, settings).submit(ADA, request_id=ID)

    assert record.message_id
    assert store.read(ID) == record
