"""Every fault of QStash at publishing: the record, what the person reads, and one message."""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import fakeredis
import httpx
import pytest
import redis
from werkzeug.serving import make_server

from common.failures import Failure
from common.qstash import Queue
from common.record import AnalysisRecord
from common.settings import ServiceSettings
from common.states import Status
from common.store import Store
from common.submission import Submissions, new_request_id
from tests.conftest import make_settings, make_store
from tests.fakes import ADA, DELAY, ID, FakeAnalyst, pending
from tests.http_server import Behaviour, answer, hang, reset, serve, trickle
from tests.processes import start_stand_in, wait_for
from tests.unit.test_queue import ACCEPTED
from webhook_service import create_app

MAX_SECONDS = 10  # a person is waiting


class Then(NamedTuple):
    """What a fault leads to: the record, and the sentence the person reads."""

    status: Status
    failure: Failure | None
    sentence: str


REFUSED = Then(Status.FAILED, Failure.NOT_QUEUED, "Your request could not be put into the queue.")
UNCLEAR = Then(Status.PENDING, None, "")  # it waits; whoever looks publishes it again

FAULTS: dict[str, tuple[Behaviour | None, Then]] = {
    "400": (answer(400, {"error": "invalid destination"}), REFUSED),
    "401": (answer(401, {"error": "unauthorized"}), REFUSED),
    "burst 429": (answer(429, {"error": "burst"}, Burst_RateLimit_Limit="100"), REFUSED),
    "daily 429": (answer(429, {"error": "daily"}, RateLimit_Limit="1000"), REFUSED),
    "500": (answer(500, b"oops"), REFUSED),
    "refused": (None, REFUSED),
    "reset": (reset, UNCLEAR),
    "not HTTP": (lambda connection: connection.sendall(b"\x00\xff\r\n\r\n"), UNCLEAR),
    "empty": (answer(201, b""), UNCLEAR),
    "HTML": (answer(201, b"<html>"), UNCLEAR),
    "no id": (answer(201, {}), UNCLEAR),
    "id null": (answer(201, {"messageId": None}), UNCLEAR),
    "a list": (answer(201, []), UNCLEAR),
    "text": (answer(201, "text"), UNCLEAR),
    "no answer": (hang, UNCLEAR),
    "a header without end": (trickle(b"HTTP/1.1 201 Created\r\nX: "), UNCLEAR),
}


class Submitted(NamedTuple):
    """What came of a submission."""

    returned: AnalysisRecord
    stored: AnalysisRecord
    seconds: float
    requests: int


def submit_at(behaviour: Behaviour | None, settings: ServiceSettings) -> Submitted:
    store = make_store(fakeredis.FakeRedis(decode_responses=True))
    with serve(behaviour or hang) as server:
        url = server.url if behaviour else "http://127.0.0.1:1"
        settings = settings.model_copy(update={"qstash_url": url})
        began = time.monotonic()
        returned = Submissions(store, Queue(settings), settings).submit(ADA, request_id=ID)
        seconds = time.monotonic() - began
    return Submitted(returned, store.read(ID), seconds, len(server.requests))


def test_every_fault_leaves_a_record_that_says_so_or_waits(settings: ServiceSettings) -> None:
    with ThreadPoolExecutor(len(FAULTS)) as pool:  # two of them wait
        running = {
            name: pool.submit(submit_at, behaviour, settings)
            for name, (behaviour, _) in FAULTS.items()
        }

    for name, (behaviour, then) in FAULTS.items():
        returned, stored, seconds, requests = running[name].result()
        assert returned == stored, name
        assert (stored.status, stored.failure, stored.message_id) == (*then[:2], None), name
        assert (stored.failure.sentence if stored.failure else "") == then.sentence, name
        assert seconds < MAX_SECONDS, name
        assert requests == (behaviour is not None), name


# ── What was unclear becomes clear ──


def let_pass(client: redis.Redis, seconds: int) -> None:
    """Move Redis's clock, as this client sees it."""
    client.set_response_callback("TIME", lambda reply, **_: (int(reply[0]) + seconds, 0))


def submissions_at(url: str, store: Store, **changes: object) -> Submissions:
    settings = make_settings(qstash_url=url, **changes)
    return Submissions(store, Queue(settings), settings, clock=store.now)


def test_a_crash_between_record_and_publish_heals_after_15_seconds(
    store: Store, fake_redis: redis.Redis
) -> None:
    with serve(ACCEPTED) as server:
        submissions = submissions_at(server.url, store)
        store.create(pending(store.now(), DELAY))

        let_pass(fake_redis, 13)
        early = submissions.look_up(ID)
        requests_before = len(server.requests)
        let_pass(fake_redis, 16)
        healed = submissions.look_up(ID)
        submissions.look_up(ID)

    assert (early.message_id, requests_before) == (None, 0)
    assert (healed.message_id, len(server.requests)) == ("msg_1", 1)
    assert b"Upstash-Deduplication-Id: %s-1" % ID.encode() in server.requests[0]


def test_a_refused_second_publish_waits_for_what_the_first_may_bring(
    store: Store, fake_redis: redis.Redis
) -> None:
    with serve(reset) as server:
        submissions_at(server.url, store).submit(ADA, request_id=ID)
    with serve(answer(429, {"error": "daily"}, RateLimit_Limit="1000")) as server:
        submissions = submissions_at(server.url, store)
        let_pass(fake_redis, 16)
        early = submissions.look_up(ID)
        let_pass(fake_redis, round(DELAY.total_seconds()) + 16)
        late = submissions.look_up(ID)

    assert len(server.requests) == 2
    assert early.status is Status.PENDING
    assert late.failure is Failure.NOT_QUEUED


class Service(NamedTuple):
    """The service on a port of its own, with a model that counts; it serves once it is opened."""

    settings: ServiceSettings
    analyst: FakeAnalyst
    opened: threading.Event
    delivered: set[str]  # ids of the messages that have come


@contextmanager
def run_service(store: Store) -> Iterator[Service]:
    analyst, opened, delivered = FakeAnalyst(), threading.Event(), set[str]()
    settings = make_settings()
    server = make_server("127.0.0.1", 0, lambda *_: [], threaded=True)
    url = f"http://127.0.0.1:{server.port}/webhook"
    settings = settings.model_copy(update={"qstash_webhook_url": url})
    app = create_app(settings, store=store, analyst=analyst)

    def serve_once_opened(environ: Any, start_response: Any) -> Iterable[bytes]:
        delivered.add(environ["HTTP_UPSTASH_MESSAGE_ID"])
        opened.wait()
        return app(environ, start_response)

    server.app = serve_once_opened
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Service(settings, analyst, opened, delivered)
    finally:
        opened.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def qstash_url() -> Iterator[str]:
    with start_stand_in("qstash_server") as url:
        yield url


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"seconds": 5}, id="accepted after we stopped waiting"),
        pytest.param({"is_reply_dropped": True}, id="accepted, and the reply lost"),
        pytest.param({"is_duplicated": True}, id="delivered twice"),
    ],
)
def test_a_message_taken_without_our_knowing_makes_one_message_and_one_result(
    real_redis: redis.Redis, qstash_url: str, fault: dict[str, object]
) -> None:
    store, request_id = make_store(real_redis), new_request_id()
    assert httpx.post(f"{qstash_url}/faults", json=fault).status_code == 200
    with run_service(store) as service:
        settings = service.settings.model_copy(
            update={"qstash_url": qstash_url, "qstash_delay": timedelta(seconds=1)}
        )
        queue = Queue(settings)
        submissions = Submissions(store, queue, settings, clock=store.now)

        unclear = submissions.submit(ADA, request_id=request_id)
        wait_for(lambda: service.delivered)
        let_pass(real_redis, 16)
        healed = submissions.look_up(request_id)
        service.opened.set()
        wait_for(lambda: store.read(request_id).status is Status.COMPLETED)

        (message,) = service.delivered
        assert unclear.message_id == (message if "is_duplicated" in fault else None)
        assert healed.message_id == message
        assert len(service.analyst.calls) == 1
    queue.close()  # the stand-in keeps connections open
