"""Traces, sent by real processes to a collector of ours that takes OTLP over HTTP."""

import json
import subprocess
import sys
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
from tests.processes import (
    ROOT,
    Stack,
    bare_environment,
    free_port,
    python_path,
    start_stack,
    wait_for,
)

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


def submit_as_the_page(stack: Stack, tmp_path: Path, collector: Collector) -> None:
    given = stack.process_of("gunicorn").environ()
    settings = {k: v for k, v in given.items() if k.startswith(("REDIS_", "QSTASH_", "OPENAI_"))}
    settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    environment = bare_environment(tmp_path, **settings)
    subprocess.run([sys.executable, "-c", SUBMIT_ONCE], cwd=ROOT, env=environment, check=True)


def test_one_trace_goes_from_the_click_through_qstash_to_the_model_and_back(
    tmp_path: Path,
) -> None:
    """The model refuses the key, so that QStash calls back: that is of the same trace, too."""
    with collect() as collector, serve(answer(401, error("invalid_api_key"))) as openai:
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OPENAI_BASE_URL": f"{openai.url}/v1",
            "OPENAI_API_KEY": "canary-key",
            "QSTASH_DELAY": "1s",
        }
        with start_stack(tmp_path, **settings, **SOON) as stack:
            submit_as_the_page(stack, tmp_path, collector)
            httpx.get(f"{stack.service_url}/analyze/{ID}")  # who polls makes no trace
            wait_for(lambda: len(collector.named("deliver")) == 2)
            lines = [line.partition("| ")[2] for line in stack.output.splitlines()]
            logged = [json.loads(line) for line in lines if line.startswith("{")]
            wait_for(lambda: collector.named("ask the model"))

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
    valkey: str, tmp_path: Path, fault: Behaviour | None
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
        page = subprocess.Popen(
            [sys.executable, "-c", SUBMIT_NOW_AND_THEN],
            cwd=ROOT,
            env=bare_environment(tmp_path, **settings, **SOON),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert page.stdin
        assert page.stdout
        seconds = []
        for number in range(1, 4):
            page.stdin.write("submit\n")
            page.stdin.flush()
            seconds.append(float(page.stdout.readline()))
            if fault:
                wait_for(partial(has_been_asked, collector, 1 if fault is hang else number))
        began = time.monotonic()
        _, log = page.communicate()

    assert max(seconds) < EXPORT_SECONDS
    assert time.monotonic() - began < 10, "a stop does not wait long for the collector"
    assert log.count("traces can't be sent") == 1
    assert page.returncode == 0
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert set(events) == {"submitted", "published", "traces can't be sent"}


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


def test_what_an_error_says_is_in_no_span(valkey: str, tmp_path: Path) -> None:
    with collect() as collector:
        settings = {
            "REDIS_URL": valkey,
            "QSTASH_TOKEN": "token",
            "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        environment = bare_environment(tmp_path, **settings)
        subprocess.run(
            [sys.executable, "-c", FAIL_IN_A_SPAN], cwd=ROOT, env=environment, check=True
        )

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


def submit_often(tmp_path: Path, in_env_file: str = "", **settings: str) -> Traced:
    (tmp_path / ".env").write_text(in_env_file)
    with collect() as collector:
        environment = bare_environment(
            tmp_path,
            **NEIGHBOURS,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            PYTHONPATH=python_path(ROOT),
            **settings,
        )
        ended = subprocess.run(
            [sys.executable, "-c", SUBMIT_OFTEN],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    return Traced(collector, ended.stdout.split(), ended.stderr)


A_TENTH = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}
WITH_PARENT = A_TENTH | {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio"}


@pytest.mark.parametrize("settings", [A_TENTH, WITH_PARENT], ids=["each", "by the parent"])
@pytest.mark.parametrize("is_in_env_file", [False, True])
def test_the_sdks_variables_choose_how_many_traces_are_sent_each_of_them_whole(
    tmp_path: Path, settings: dict[str, str], is_in_env_file: bool
) -> None:
    lines = "".join(f"{name}={value}\n" for name, value in settings.items())

    traced = submit_often(tmp_path, lines) if is_in_env_file else submit_often(tmp_path, **settings)

    names = Counter(span.name for _, span in traced.collector.spans)
    sent = names["submit"]
    assert 10 < sent < 60
    assert names == {"submit": sent, "publish": sent, "EVALSHA": sent}
    is_sampled = Counter(int(each.rpartition("-")[2], 16) & 1 for each in traced.traceparents)
    assert is_sampled == {1: sent, 0: 300 - sent}, "QStash and the model are told the same"


def test_without_the_sdks_variables_all_traces_are_sent_and_a_wrong_one_is_told(
    tmp_path: Path,
) -> None:
    traced = submit_often(tmp_path, OTEL_TRACES_SAMPLER="a_tenth")

    assert len(traced.collector.named("submit")) == 300
    assert traced.collector.named("GET") == []
    (line,) = traced.log.splitlines()
    assert json.loads(line)["event"] == "Couldn't recognize sampler a_tenth."


def test_the_operator_can_name_the_service(tmp_path: Path) -> None:
    named = submit_often(tmp_path, OTEL_SERVICE_NAME="another")

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


def test_the_real_page_is_traced(valkey: str, tmp_path: Path) -> None:
    with collect() as collector, serve(answer(201, {"messageId": "msg_1"})) as qstash:
        settings = {
            "REDIS_URL": valkey,
            "QSTASH_URL": qstash.url,
            "QSTASH_TOKEN": DEVELOPMENT_TOKEN,
            "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        environment = bare_environment(tmp_path, **settings, **SOON)
        subprocess.run([sys.executable, "-c", SEND_THE_FORM], cwd=ROOT, env=environment, check=True)

    assert [service for service, span in collector.spans if span.name == "submit"] == [
        "ask-later-page"
    ]
    (publish,) = collector.named("publish")
    assert publish.trace_id.hex().encode() in qstash.requests[0].lower()
