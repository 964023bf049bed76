"""Traces, sent by real processes to a collector of ours that takes OTLP over HTTP."""

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import redis
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from common.environment import SettingsError, load
from common.settings import DEVELOPMENT_TOKEN
from local_stack import qstash_queue
from operations import packages
from operations.tracing import EXPORT_SECONDS
from operations.tracing_settings import TracingSettings
from tests.conftest import NEIGHBOURS, WEBHOOK_URL
from tests.fakes import ID
from tests.http_server import Behaviour, HttpServer, answer, hang, serve
from tests.model_replies import error
from tests.processes import ROOT, bare_environment, free_port, python_path, wait_for
from tests.product import COMMANDS, Server
from tests.zygote import Zygote

SOON = {"OTEL_BSP_SCHEDULE_DELAY": "100"}  # milliseconds until spans are sent; usually 5 s
AS_THE_PAGE = """
from common.logs import start_logging
from common.options import load_with_options, plug_in, process_started
from common.qstash import Queue
from common.settings import Settings
from common.store import open_store
from common.submission import Submissions, new_request_id
from tests.toy.task import AnalysisInput
settings, chosen = load_with_options(Settings)
start_logging(settings)
process_started("page", chosen)
store = open_store(settings)
plug_in("page", settings, chosen, store)
submissions = Submissions(store, Queue(settings), settings)
input = AnalysisInput(name="Ada", age=36, description="I sketch machines and like long walks.")
"""
SUBMIT_ONCE = AS_THE_PAGE + "submissions.submit(input, request_id=new_request_id())"
SUBMIT_NOW_AND_THEN = f"""{AS_THE_PAGE}
import sys, time
for _ in sys.stdin:
    began = time.monotonic()
    submissions.submit(input, request_id=new_request_id())
    print(time.monotonic() - began, flush=True)
"""


@dataclass
class Collector:
    """What has been received: each span with the name of its process, and the raw requests."""

    url: str
    spans: list[tuple[str, Span]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def named(self, name: str) -> list[Span]:
        return [span for _, span in list(self.spans) if span.name == name]


@contextmanager
def collect() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            collector.raw.append(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                told = {a.key: a.value.string_value for a in resource.resource.attributes}
                for scope in resource.scope_spans:
                    collector.spans += [(told["service.name"], span) for span in scope.spans]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield collector
    server.shutdown()
    server.server_close()
    thread.join()


def test_one_trace_goes_from_the_click_through_qstash_to_the_model_and_back(
    real_redis: redis.Redis, valkey: str, tmp_path: Path, zygote: Zygote
) -> None:
    """The model refuses the key, so that QStash calls back: that is of the same trace, too."""
    environment = bare_environment(
        tmp_path,
        REDIS_URL=valkey,
        QSTASH_TOKEN=DEVELOPMENT_TOKEN,
        QSTASH_DELAY="1s",
        QSTASH_CURRENT_SIGNING_KEY=qstash_queue.CURRENT_SIGNING_KEY,
        QSTASH_NEXT_SIGNING_KEY=qstash_queue.NEXT_SIGNING_KEY,
        OPENAI_API_KEY="canary-key",
        DATABASE_URL=f"sqlite:///{tmp_path}/history.db",
        **SOON,
    )
    qstash = Server(COMMANDS["qstash"], environment, tmp_path / "qstash.txt", zygote=zygote)
    command = [*COMMANDS["service"][:-1], "webhook_service:create_app(open_api=True)"]
    service = Server(command, environment, tmp_path / "service.txt", zygote=zygote)
    with collect() as collector, serve(answer(401, error("invalid_api_key"))) as openai:
        environment |= {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OPENAI_BASE_URL": f"{openai.url}/v1",
            "QSTASH_URL": qstash.url,
            "QSTASH_WEBHOOK_URL": f"{service.url}/webhook",
        }
        try:
            qstash.start()
            service.start()
            submitted = zygote.run(["-c", SUBMIT_ONCE], ROOT, environment)
            httpx.get(f"{service.url}/analyze/{ID}")  # who polls makes no trace
            wait_for(lambda: len(collector.named("deliver")) == 2)
            wait_for(lambda: collector.named("ask the model"))
        finally:
            service.stop()
            qstash.stop()
            real_redis.flushall()  # the others' submissions would be refused as well

    assert submitted.returncode == 0, submitted.stderr
    logged = [json.loads(line) for line in service.output.splitlines() if line.startswith("{")]
    (submit,) = collector.named("submit")
    by_id = {span.span_id: span for _, span in collector.spans}

    def above(span: Span) -> list[str]:
        parent = by_id.get(span.parent_span_id)
        return [parent.name, *above(parent)] if parent else []

    (ask,) = collector.named("ask the model")
    assert {span.trace_id for _, span in collector.spans} == {submit.trace_id}
    assert above(ask) == ["deliver", "publish", "submit"]
    assert all(above(span) == ["publish", "submit"] for span in collector.named("deliver"))
    assert {service for service, span in collector.spans if span.name == "submit"} == {
        "ask-later-page"
    }
    assert {service for service, span in collector.spans if span.name == "deliver"} == {
        "ask-later-service"
    }
    redis_spans = [span for _, span in collector.spans if span.kind == Span.SPAN_KIND_CLIENT]
    assert {"submit", "deliver"} <= {above(span)[0] for span in redis_spans}
    # With its database: the refusal is written, and once more after QStash's report.
    written = collector.named("INSERT analyses")
    assert {tuple(above(span)) for span in written} == {("deliver", "publish", "submit")}
    assert {(span.kind, len(span.attributes)) for span in written} == {(Span.SPAN_KIND_CLIENT, 0)}
    assert f"traceparent: 00-{submit.trace_id.hex()}-".encode() in openai.requests[0].lower()
    settled = next(line for line in logged if line["event"] == "settled")
    assert settled["trace_id"] == submit.trace_id.hex()
    events = {event.name for _, span in collector.spans for event in span.events}
    assert {"submitted", "published", "claimed", "attempt failed", "settled"} <= events
    seen = b"".join(collector.raw)
    assert settled["request_id"].encode() in seen
    for word in ("Ada", "sketch", "canary-key", qstash_queue.CURRENT_SIGNING_KEY):
        assert word.encode() not in seen


def has_been_asked(server: HttpServer, times: int) -> bool:
    return len(server.requests) >= times


@pytest.mark.parametrize("fault", [answer(400), hang, None], ids=["refuses", "hangs", "closed"])
def test_a_collector_that_is_of_no_use_costs_one_line_and_no_time(
    valkey: str, tmp_path: Path, zygote: Zygote, fault: Behaviour | None
) -> None:
    with (
        serve(fault or answer(400)) as collector,
        serve(answer(201, {"messageId": "msg_1"})) as qstash,
    ):
        url = collector.url if fault else f"http://127.0.0.1:{free_port()}"
        settings = {
            "REDIS_URL": valkey,
            "QSTASH_URL": qstash.url,
            "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
            "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
            "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        }
        clicks, said, log = (tmp_path / name for name in ("clicks", "said", "log"))
        os.mkfifo(clicks)
        environment = bare_environment(tmp_path, **settings, **SOON)
        command = ["-c", SUBMIT_NOW_AND_THEN]
        page = zygote.start(command, ROOT, environment, said, log, reads=clicks)
        with clicks.open("w") as mouse:
            for number in range(1, 4):
                print("click", file=mouse, flush=True)
                wait_for(lambda number=number: len(said.read_text().splitlines()) == number)  # type: ignore[misc]
                if fault:
                    wait_for(partial(has_been_asked, collector, 1 if fault is hang else number))
        began = time.monotonic()
        status = page.wait()

    seconds = [float(line) for line in said.read_text().splitlines()]
    logged = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert max(seconds) < EXPORT_SECONDS
    assert time.monotonic() - began < 10, "a stop does not wait long for the collector"
    assert status == 0
    assert logged.count("traces can't be sent") == 1
    assert set(logged) == {"submitted", "published", "traces can't be sent"}


@pytest.mark.parametrize(
    ("is_installed", "value", "says"),
    [
        (True, "localhost:4318", "write a whole address"),
        (
            False,
            "http://localhost:4318",
            "needs opentelemetry.sdk: pip install -r requirements-operator.txt",
        ),
    ],
)
def test_a_wrong_address_and_a_missing_package_are_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, is_installed: bool, value: str, says: str
) -> None:
    monkeypatch.setattr(packages, "_is_installed", lambda package: is_installed)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", value)

    with pytest.raises(SettingsError, match=f"  OTEL_EXPORTER_OTLP_ENDPOINT: .*{says}"):
        load(TracingSettings)


def test_what_is_not_installed_is_found_out() -> None:
    assert packages._is_installed("opentelemetry.sdk")
    assert not packages._is_installed("opentelemetry.no_such_part")
    assert not packages._is_installed("no_such_package.part")


FAIL_IN_A_SPAN = f"""{AS_THE_PAGE}
from contextlib import suppress
from common.tracing import span
with suppress(ValueError), span("fail"):
    raise ValueError("Ada sketches")
"""


def test_what_an_error_says_is_in_no_span(valkey: str, tmp_path: Path, zygote: Zygote) -> None:
    with collect() as collector:
        settings = {
            "REDIS_URL": valkey,
            "QSTASH_TOKEN": "token",
            "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        environment = bare_environment(tmp_path, **settings)
        ended = zygote.run(["-c", FAIL_IN_A_SPAN], ROOT, environment)

    assert ended.returncode == 0, ended.stderr
    (failed,) = collector.named("fail")
    assert failed.status.message == "ValueError"
    assert b"Ada" not in b"".join(collector.raw)


SUBMIT_OFTEN = """
import random
from common.logs import start_logging
from common.options import load_with_options, process_started
from common.settings import Settings
from common.tracing import headers, span
settings, chosen = load_with_options(Settings)
start_logging(settings)
process_started("page", chosen)
random.seed(1)  # the SDK's ids come from there
for _ in range(300):
    with span("GET", asks_another=True):  # a poll
        pass
    with span("submit"), span("publish"), span("EVALSHA", asks_another=True):
        print(headers()["traceparent"])
"""


@dataclass
class Traced:
    """What a process has sent to a collector, what it has sent on, and what it logged."""

    collector: Collector
    traceparents: list[str]
    log: str


def submit_often(zygote: Zygote, tmp_path: Path, in_env_file: str = "", **settings: str) -> Traced:
    (tmp_path / ".env").write_text(in_env_file)
    with collect() as collector:
        environment = bare_environment(
            tmp_path,
            **NEIGHBOURS,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            PYTHONPATH=python_path(ROOT),
            **settings,
        )
        ended = zygote.run(["-c", SUBMIT_OFTEN], tmp_path, environment)
    assert ended.returncode == 0, ended.stderr
    return Traced(collector, ended.stdout.split(), ended.stderr)


A_TENTH = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
WITH_PARENT = A_TENTH | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}


@pytest.mark.parametrize("settings", [A_TENTH, WITH_PARENT], ids=["each", "by the parent"])
@pytest.mark.parametrize("is_in_env_file", [False, True])
def test_the_sdks_variables_choose_how_many_traces_are_sent_each_of_them_whole(
    tmp_path: Path, zygote: Zygote, settings: dict[str, str], is_in_env_file: bool
) -> None:
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())

    traced = (
        submit_often(zygote, tmp_path, lines)
        if is_in_env_file
        else submit_often(zygote, tmp_path, **settings)
    )

    names = Counter(span.name for _, span in traced.collector.spans)
    sent = names["submit"]
    assert 10 < sent < 60
    assert names == {"submit": sent, "publish": sent, "EVALSHA": sent}
    is_sampled = Counter(int(each.rpartition("-")[2], 16) & 1 for each in traced.traceparents)
    assert is_sampled == {1: sent, 0: 300 - sent}, "QStash and the model are told the same"


def test_without_the_sdks_variables_all_traces_are_sent_and_a_wrong_one_is_told(
    tmp_path: Path, zygote: Zygote
) -> None:
    traced = submit_often(zygote, tmp_path, OTEL_TRACES_SAMPLER="a_tenth")

    assert len(traced.collector.named("submit")) == 300
    assert traced.collector.named("GET") == []
    (line,) = traced.log.splitlines()
    assert json.loads(line)["event"] == "Couldn't recognize sampler a_tenth."


def test_the_operator_can_name_the_service(tmp_path: Path, zygote: Zygote) -> None:
    named = submit_often(zygote, tmp_path, OTEL_SERVICE_NAME="another")

    assert {service for service, _ in named.collector.spans} == {"another"}


SEND_THE_FORM = """
from streamlit.testing.v1 import AppTest
page = AppTest.from_file("streamlit_app.py", default_timeout=20).run()
page.text_input[0].set_value("Ada")
page.number_input[0].set_value(36)
page.text_area[0].set_value("I sketch machines and like long walks.")
page.button("send").click().run()
assert not page.exception
"""


def test_the_real_page_is_traced(valkey: str, tmp_path: Path, zygote: Zygote) -> None:
    with collect() as collector, serve(answer(201, {"messageId": "msg_1"})) as qstash:
        settings = {
            "REDIS_URL": valkey,
            "QSTASH_URL": qstash.url,
            "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
            "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        environment = bare_environment(tmp_path, **settings, **SOON)
        ended = zygote.run(["-c", SEND_THE_FORM], ROOT, environment)

    assert ended.returncode == 0, ended.stderr
    assert [service for service, span in collector.spans if span.name == "submit"] == [
        "ask-later-page"
    ]
    (publish,) = collector.named("publish")
    assert publish.trace_id.hex().encode() in qstash.requests[0].lower()
