"""An id is a capability: what is none gets nowhere, and guessing teaches nothing."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
import redis
from flask.testing import FlaskClient

from common.owners import owns
from common.record import AnalysisRecord
from common.store import NotFound, Store
from common.submission import NotOwner, Submissions
from tests.chaos.target import Untouched
from tests.conftest import WEBHOOK_URL, make_settings
from tests.fakes import ADA, BOB, ID, LEASE, OTHER_ID, FakeAnalyst, FakeQueue, pending
from tests.tokens import FAILURE_URL, token
from webhook_service import create_app

OWNER, OTHER_OWNER = "owner-token", "other-owner-token"
MALFORMED = [
    " ",
    "x",
    "0" * 31,
    "0" * 33,
    "A" * 32,
    "g" * 32,
    f"{ID}\n",
    f"\n{ID}",
    f" {ID}",
    f"{ID}\0",
    f"{ID}:more",
    f"{{{ID}}}",
    f"{ID[:-1]}é",
    "٠" * 32,
    "*" * 32,
    "../" + ID,
    "a" * 10_000,
]


def shortened(request_id: str) -> str:
    return ascii(request_id[:50])


@pytest.fixture
def submissions(store: Store, queue: FakeQueue) -> Submissions:
    return Submissions(store, queue, make_settings())


@pytest.fixture
def client(store: Store, queue: FakeQueue) -> FlaskClient:
    settings = make_settings()
    app = create_app(settings, store=store, queue=queue, analyst=FakeAnalyst(), open_api=True)
    return app.test_client()


ACTS: dict[str, Callable[[Submissions, str], object]] = {
    "look up": lambda s, request_id: s.look_up(request_id),
    "edit": lambda s, request_id: s.edit(request_id, OWNER, BOB),
    "cancel": lambda s, request_id: s.cancel(request_id, OWNER),
    "retry": lambda s, request_id: s.retry(request_id, OWNER),
    "delete": lambda s, request_id: s.delete(request_id, OWNER),
}


@pytest.fixture(scope="module")
def target() -> Untouched:
    return Untouched()


def path_of(request_id: str) -> str:
    """The test client reads a URL, in which these must be written otherwise."""
    return "/analyze/" + quote(request_id, safe="/")


@pytest.mark.parametrize("request_id", ["", *MALFORMED], ids=shortened)
def test_what_is_no_id_never_reaches_redis_whatever_a_person_does(
    target: Untouched, request_id: str
) -> None:
    submissions = Submissions(target.store, target.queue, make_settings())
    before = target.touches

    for act in ACTS.values():
        with pytest.raises(NotFound):
            act(submissions, request_id)

    assert target.touches == before


@pytest.mark.parametrize("request_id", ["", *MALFORMED], ids=shortened)
def test_nothing_is_submitted_under_what_is_no_id(
    submissions: Submissions, fake_redis: redis.Redis, queue: FakeQueue, request_id: str
) -> None:
    with pytest.raises(ValueError, match="request_id"):
        submissions.submit(ADA, request_id=request_id)

    assert (fake_redis.keys("*"), queue.published) == ([], [])


@pytest.mark.parametrize("request_id", MALFORMED, ids=shortened)
def test_what_is_no_id_never_reaches_redis_over_http(target: Untouched, request_id: str) -> None:
    client = target.app.test_client()
    message = json.dumps({"requestId": request_id, "round": 1}).encode()
    report = json.dumps({"sourceBody": base64.b64encode(message).decode()}).encode()
    before = target.touches

    statuses = [
        client.get(path_of(request_id)).status_code,
        client.post(
            "/webhook", data=message, headers={"Upstash-Signature": token(WEBHOOK_URL, message)}
        ).status_code,
        client.post(
            "/webhook/failure",
            data=report,
            headers={"Upstash-Signature": token(FAILURE_URL, report)},
        ).status_code,
    ]

    assert statuses == [404, 489, 489]
    assert target.touches == before


def test_a_real_id_does_reach_redis(target: Untouched) -> None:
    """The proof that the tests before can fail."""
    before = target.touches

    assert target.app.test_client().get(path_of(ID)).status_code == 503
    assert target.touches > before


# What holds a slash is the path of nothing: 404 as well, in other words.
@pytest.mark.parametrize(
    "malformed", [request_id for request_id in MALFORMED if "/" not in request_id], ids=shortened
)
def test_unknown_expired_and_malformed_are_answered_alike_to_the_byte(
    client: FlaskClient, store: Store, fake_redis: redis.Redis, malformed: str
) -> None:
    def answer(request_id: str) -> tuple[int, bytes, list[tuple[str, str]]]:
        found = client.get(path_of(request_id))
        return found.status_code, found.data, [h for h in found.headers if h[0] != "Date"]

    store.create(pending(store.now()))
    known = answer(ID)
    fake_redis.pexpire(f"analysis:{{{ID}}}", timedelta(0))

    assert known[0] == 200
    assert answer(ID) == answer(OTHER_ID) == answer(malformed)
    assert answer(ID)[0] == 404


def submit_two(submissions: Submissions) -> tuple[AnalysisRecord, AnalysisRecord]:
    return (
        submissions.submit(ADA, request_id=ID, owner_token=OWNER),
        submissions.submit(BOB, request_id=OTHER_ID, owner_token=OTHER_OWNER),
    )


STRANGERS: dict[str, Callable[[AnalysisRecord], Any]] = {
    "another analysis's": lambda _: OTHER_OWNER,
    "the id itself": lambda record: record.request_id,
    "the hash in the record": lambda record: record.owner_hash,
    "in upper case": lambda _: OWNER.upper(),
    "NUL behind it": lambda _: OWNER + "\0",
    "cut off": lambda _: OWNER[:-1],
    "missing": lambda _: None,
}


@pytest.mark.parametrize("stranger", STRANGERS)
@pytest.mark.parametrize("act", ["edit", "cancel", "retry", "delete"])
def test_a_reader_without_the_owner_token_changes_nothing(
    submissions: Submissions, store: Store, queue: FakeQueue, act: str, stranger: str
) -> None:
    submit_two(submissions)
    texts = [BOB] if act == "edit" else []
    if act == "retry":
        store.update(ID, lambda r, now: r.give_up(of_round=1, now=now, lease=LEASE))
    before, published = store.read(ID), list(queue.published)

    with pytest.raises(NotOwner):
        getattr(submissions, act)(ID, STRANGERS[stranger](before), *texts)

    assert not owns(before, STRANGERS[stranger](before))
    assert store.read(ID) == before
    assert (queue.published, queue.cancelled) == (published, [])
