"""GET /metrics: what is counted, by whom, and who may read it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis
import yaml
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from pydantic import SecretStr

from common.failures import Failure, Kind
from common.logs import get_logger
from common.record import Tokens
from common.settings import DEVELOPMENT_TOKEN
from common.store import Store
from common.submission import Submissions
from operations import metrics
from operations.history.database import Archive
from tests.conftest import WEBHOOK_URL, AllSettings, leave_out, make_settings, make_store
from tests.fakes import (
    ADA,
    ANALYSIS,
    ID,
    LEASE,
    OTHER_ID,
    TOKENS,
    FakeAnalyst,
    FakeQueue,
    pending,
)
from tests.http_server import Behaviour, hang, serve
from tests.processes import ROOT, bare_environment, free_port, wait_for
from tests.product import COMMANDS, GOOD, Server
from tests.tokens import CURRENT, NEXT, token
from webhook_service import create_app
from webhook_service.answer import AnalysisFailed, Answer

TOKEN = "a-metrics-token-"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NOW = timedelta(0)
Samples = dict[str, float]


def read(text: str) -> Samples:
    """`{"name{label=value}": 1.0}`"""

    def name(sample: Sample) -> str:
        return sample.name + "".join(f"{{{k}={v}}}" for k, v in sorted(sample.labels.items()))

    families = text_string_to_metric_families(text)
    return {name(sample): sample.value for family in families for sample in family.samples}


@pytest.fixture(autouse=True)
def _no_directory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # and so it is put back
    monkeypatch.setattr("operations.metrics_route._directory", "")


@pytest.fixture
def metered(tmp_path: Path) -> AllSettings:
    return make_settings(metrics_token=TOKEN, prometheus_multiproc_dir=tmp_path)


@pytest.fixture
def scrape(metered: AllSettings, store: Store, queue: FakeQueue) -> Callable[[], Samples]:
    """What has been counted in this process since the test began."""
    app = create_app(metered, options=metered, store=store, queue=queue)

    def now() -> Samples:
        return read(app.test_client().get("/metrics", headers=BEARER).text)

    before = now()
    return lambda: {
        name: value - (before.get(name, 0) if not name.startswith("analysis_u") else 0)
        for name, value in now().items()
    }


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Bearer ünï"}, 401),
        ({"Authorization": f"bearer {TOKEN}"}, 200),
    ],
)
def test_only_the_bearer_of_the_token_reads_the_metrics(
    metered: AllSettings,
    store: Store,
    queue: FakeQueue,
    headers: dict[str, str],
    status: int,
) -> None:
    app = create_app(metered, options=metered, store=store, queue=queue)

    told = app.test_client().get("/metrics", headers=headers)

    assert told.status_code == status
    assert (told.headers.get("WWW-Authenticate") == "Bearer") == (status == 401)


def test_without_a_token_there_is_no_such_route(store: Store, queue: FakeQueue) -> None:
    app = create_app(make_settings(), store=store, queue=queue)

    assert app.test_client().get("/metrics", headers=BEARER).status_code == 404


def test_a_submission_and_its_duplicates_are_counted(
    scrape: Callable[[], Samples], store: Store, queue: FakeQueue
) -> None:
    submissions = Submissions(store, queue, make_settings())

    for _ in range(3):
        submissions.submit(ADA, request_id=ID, owner_token="owner")
    waiting = scrape()
    submissions.cancel(ID, "owner")

    assert waiting["analysis_submitted_total"] == 1
    assert waiting["analysis_duplicates_total{reason=submitted again}"] == 2
    assert waiting["analysis_unfinished"] == 1
    assert waiting["analysis_oldest_unfinished_seconds"] == 0, "it is not due yet"
    assert scrape()["analysis_unfinished"] == 0
    assert scrape()["analysis_settled_total{code=}{status=cancelled}"] == 1


def test_attempts_and_what_they_come_to_are_counted(
    scrape: Callable[[], Samples], store: Store, queue: FakeQueue
) -> None:
    store.create(pending(store.now() - timedelta(seconds=90)))
    codes = (Failure.RATE_LIMITED, Failure.KEY_REFUSED)
    analyst = FakeAnalyst(*(AnalysisFailed(code, "x") for code in codes))
    client = create_app(make_settings(), store=store, queue=queue, analyst=analyst).test_client()
    headers = {"Upstash-Signature": token(WEBHOOK_URL)}
    message = json.dumps({"requestId": ID, "round": 1}).encode()

    client.post("/webhook", data=message, headers=headers)
    client.post("/webhook", data=message, headers=headers)
    store.update(ID, lambda r, now: r._evolve(next_attempt_at=now))
    client.post("/webhook", data=message, headers=headers)
    client.post("/webhook", data=message, headers=headers)
    client.post("/webhook", data=message, headers={"Upstash-Signature": "x.y.z"})
    client.post("/webhook", data=b"x" * 100_000, headers=headers)

    counted = scrape()
    assert counted["analysis_attempts_total"] == 2
    assert counted["analysis_failed_attempts_total{code=rate_limited}"] == 1
    assert counted["analysis_settled_total{code=key_refused}{status=failed}"] == 1
    assert "analysis_settled_total{code=rate_limited}{status=pending}" not in counted
    assert counted["analysis_duplicates_total{reason=not due yet}"] == 1
    assert counted["analysis_duplicates_total{reason=already terminal}"] == 1
    assert counted["analysis_refused_deliveries_total{reason=not a QStash token}"] == 1
    assert counted["analysis_refused_deliveries_total{reason=Request Entity Too Large}"] == 1
    assert counted["analysis_start_delay_seconds_sum"] == pytest.approx(30, abs=1)
    assert counted["analysis_calls_in_flight"] == 0


def test_tokens_and_times_of_calls_are_counted_and_what_limits_keep_out(
    scrape: Callable[[], Samples], store: Store, queue: FakeQueue
) -> None:
    settings = make_settings(most_waiting=1)
    busy = AnalysisFailed(Failure.RATE_LIMITED, "x")
    busy.tokens = Tokens(input_tokens=7, output_tokens=0)
    analyst = FakeAnalyst(busy, Answer(ANALYSIS, model="fake", tokens=TOKENS))
    app = create_app(
        settings, options=settings, store=store, queue=queue, analyst=analyst, open_api=True
    )
    client = app.test_client()
    store.create(pending(store.now(), NOW))
    message = json.dumps({"requestId": ID, "round": 1}).encode()
    headers = {"Upstash-Signature": token(WEBHOOK_URL, message)}

    refused = client.post("/analyze", json=ADA.model_dump())
    client.post("/webhook", data=message, headers=headers)
    store.update(ID, lambda r, now: r._evolve(next_attempt_at=now))
    client.post("/webhook", data=message, headers=headers)

    counted = scrape()
    assert refused.status_code == 503
    assert counted["analysis_rejected_total{limit=waiting}"] == 1
    assert counted["analysis_tokens_total{direction=in}"] == 307
    assert counted["analysis_tokens_total{direction=out}"] == 200
    assert counted["analysis_model_seconds_count{outcome=rate_limited}"] == 1
    assert counted["analysis_model_seconds_count{outcome=answered}"] == 1


def test_a_late_analysis_is_told_by_how_late_it_is_and_from_anew_in_a_new_round(
    scrape: Callable[[], Samples], store: Store, queue: FakeQueue
) -> None:
    store.create(pending(store.now() - timedelta(seconds=400)))  # due a minute later

    late = scrape()
    store.update(ID, lambda r, now: r.give_up(of_round=1, now=now, lease=LEASE))
    Submissions(store, queue, make_settings(), is_operator=True).retry(ID, "")
    reopened = scrape()

    assert 340 <= late["analysis_oldest_unfinished_seconds"] < 400
    assert reopened["analysis_oldest_unfinished_seconds"] == 0
    assert reopened["analysis_unfinished"] == 1
    assert reopened["analysis_reopened_total"] == 1


def test_what_times_out_and_nobody_reads_is_settled_counted_and_kept_at_a_scrape(
    metered: AllSettings, store: Store, queue: FakeQueue, tmp_path: Path
) -> None:
    url = SecretStr(f"sqlite:///{tmp_path}/history.db")
    settings = metered.model_copy(update={"database_url": url})
    client = create_app(settings, options=settings, store=store, queue=queue).test_client()
    name = "analysis_settled_total{code=timed_out}{status=failed}"
    before = read(client.get("/metrics", headers=BEARER).text)
    store.create(pending(store.now() - timedelta(minutes=12)))
    store.create(pending(store.now() - timedelta(days=1), request_id=OTHER_ID))  # it is forgotten

    told = [read(client.get("/metrics", headers=BEARER).text) for _ in range(2)]

    assert [each[name] - before[name] for each in told] == [1, 1]
    assert [each["analysis_unfinished"] for each in told] == [0, 0]
    assert Archive(settings).read(ID).failure is Failure.TIMED_OUT


def test_a_record_that_can_not_be_read_hides_no_number(
    scrape: Callable[[], Samples], store: Store, fake_redis: redis.Redis
) -> None:
    store.create(pending(store.now() - timedelta(minutes=12)))
    fake_redis.set(f"analysis:{{{ID}}}", "{}")  # of another version, say
    store.create(pending(store.now(), request_id=OTHER_ID))

    counted = scrape()

    assert counted["analysis_unfinished"] == 1
    assert counted["analysis_store_errors_total{store=redis}"] == 0


def test_which_store_is_away_is_told_apart(scrape: Callable[[], Samples]) -> None:
    log = get_logger("webhook_service.archiving")
    log.error("store unavailable", cause="Redis: ConnectionError")
    log.error("store unavailable", cause="database: OperationalError")
    log.error("not archived", cause="database: OperationalError")

    counted = scrape()

    assert counted["analysis_store_errors_total{store=redis}"] == 1
    assert counted["analysis_store_errors_total{store=database}"] == 2


def test_an_analysis_whose_time_is_over_is_counted_once(
    scrape: Callable[[], Samples], store: Store
) -> None:
    store.create(pending(store.now() - timedelta(days=1)))

    store.read(ID)
    store.read(ID)

    assert scrape()["analysis_settled_total{code=timed_out}{status=failed}"] == 1


def test_a_refusal_names_no_url_and_nothing_else_that_differs_each_time(
    scrape: Callable[[], Samples],
) -> None:
    log = get_logger("webhook_service.routes")
    log.warning("delivery refused", cause="wrong url: got 'https://a', want 'https://b'")
    log.warning("delivery refused", cause="no known key (were the signing keys rotated?)")

    counted = scrape()

    assert counted["analysis_refused_deliveries_total{reason=wrong url}"] == 1
    assert counted["analysis_refused_deliveries_total{reason=no known key}"] == 1


def test_while_redis_is_away_the_rest_is_still_told(metered: AllSettings, queue: FakeQueue) -> None:
    app = create_app(metered, options=metered, queue=queue)

    before, told = (app.test_client().get("/metrics", headers=BEARER) for _ in range(2))

    assert told.status_code == 200
    assert "analysis_submitted_total" in told.text
    assert "analysis_unfinished" not in told.text
    name = "analysis_store_errors_total{store=redis}"
    assert read(told.text)[name] - read(before.text)[name] == 1


# ── Real gunicorn, two workers ──────────────────────────────────────────────────────────────


@dataclass
class Service:
    """gunicorn with two workers, and what the model answers."""

    server: Server
    store: Store
    model: Behaviour = GOOD

    def deliver(self, request_id: str) -> int:
        self.store.create(pending(self.store.now(), NOW, request_id=request_id))
        body = json.dumps({"requestId": request_id, "round": 1}).encode()
        headers = {"Upstash-Signature": token(WEBHOOK_URL, body), "Connection": "close"}
        url = f"{self.server.url}/webhook"
        return httpx.post(url, content=body, headers=headers, timeout=60).status_code

    def scrape(self) -> Samples:
        return read(httpx.get(f"{self.server.url}/metrics", headers=BEARER, timeout=20).text)

    def log(self) -> list[dict[str, Any]]:
        lines = self.server.output.splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def workers(self) -> set[int]:
        (master,) = {line["pid"] for line in self.log() if "Starting gunicorn" in line["event"]}
        return {child.pid for child in psutil.Process(master).children()}


@pytest.fixture
def start_service(
    tmp_path: Path, real_redis: redis.Redis, valkey: str
) -> Iterator[Callable[..., Service]]:
    with serve(lambda connection: service.model(connection)) as openai:
        environment = bare_environment(
            tmp_path,
            REDIS_URL=valkey,
            QSTASH_TOKEN=DEVELOPMENT_TOKEN,
            QSTASH_URL="http://127.0.0.1:1",
            QSTASH_WEBHOOK_URL=WEBHOOK_URL,
            QSTASH_CURRENT_SIGNING_KEY=CURRENT,
            QSTASH_NEXT_SIGNING_KEY=NEXT,
            OPENAI_BASE_URL=f"{openai.url}/v1",
            OPENAI_API_KEY="test",
            METRICS_TOKEN=TOKEN,
            TMPDIR=str(tmp_path),
        )
        command = [word if word != "1" else "2" for word in COMMANDS["service"]]

        service = Service(
            Server(command, environment, tmp_path / "service.txt"), make_store(real_redis)
        )

        def start(**settings: str) -> Service:
            environment.update(settings)
            service.server.start()
            return service

        yield start
        service.server.stop()


def kill_who_has_claimed(service: Service, request_id: str) -> int:
    """Wait until a worker asks the model for this one, kill it, and tell which it was."""
    wait_for(lambda: service.scrape()["analysis_calls_in_flight"] == 1)
    (victim,) = {line["pid"] for line in service.log() if line.get("request_id") == request_id}
    os.kill(victim, signal.SIGKILL)
    return int(victim)


def test_the_sums_are_right_over_two_workers_and_after_one_was_killed(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = start_service()
    wait_for(lambda: len(service.workers()) == 2)
    first = service.scrape()
    with ThreadPoolExecutor(12) as pool:
        told = list(pool.map(lambda n: service.deliver(f"{n:032x}"), range(24)))
    lines = service.log()
    both = {line["pid"] for line in lines if line["event"] == "settled"}
    before = service.scrape()

    service.model = hang
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(service.deliver, ID)
        victim = kill_who_has_claimed(service, ID)
    assert isinstance(stuck.exception(), httpx.HTTPError)
    wait_for(lambda: service.scrape()["analysis_calls_in_flight"] == 0)
    wait_for(lambda: len(service.workers() - {victim}) == 2)
    service.model = GOOD
    service.deliver("f" * 32)
    after = service.scrape()

    for code in Failure:
        assert first[f"analysis_settled_total{{code={code}}}{{status=failed}}"] == 0, "is there"
    assert set(told) == {200}
    assert len(both) == 2, "both workers had something to count"
    assert before["analysis_settled_total{code=}{status=completed}"] == 24
    assert before["analysis_model_seconds_count{outcome=answered}"] == 24
    assert before["analysis_attempts_total"] == 24
    assert after["analysis_settled_total{code=}{status=completed}"] == 25
    assert after["analysis_attempts_total"] == 26
    assert after["analysis_unfinished"] == 1
    (directory,) = tmp_path.glob("ask-later-metrics-*")
    assert len(list(directory.glob("counter_*.db"))) >= 3

    service.server.stop()

    assert not directory.exists()


def test_a_directory_that_cannot_be_written_costs_the_metrics_alone(
    start_service: Callable[..., Service], tmp_path: Path
) -> None:
    service = start_service(PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "missing"))

    assert service.deliver(ID) == 200
    assert httpx.get(f"{service.server.url}/metrics", headers=BEARER).status_code == 404
    assert service.server.output.count("no metrics: PROMETHEUS_MULTIPROC_DIR can't be written") == 1


def test_gunicorns_own_lines_are_written_as_ours_are(start_service: Callable[..., Service]) -> None:
    service = start_service()

    lines = service.log()

    assert "gunicorn.error" in {line["logger"] for line in lines}


# ── The page, the dashboard, the alerts ─────────────────────────────────────────────────────


PAGE = """
import sys
from operations import metrics
from common.logs import get_logger, start_logging
start_logging()
metrics.serve(int(sys.argv[1]))
get_logger("common.submission").info("submitted", request_id="abc")
print("ready", flush=True)
sys.stdin.read()
"""


def start_page(port: int, tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PAGE, str(port)],
        cwd=ROOT,
        env=bare_environment(tmp_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_page_serves_its_own_on_a_port_and_goes_on_if_that_is_taken(tmp_path: Path) -> None:
    port = free_port()

    first, second = start_page(port, tmp_path), start_page(port, tmp_path)

    told = read(httpx.get(f"http://127.0.0.1:{port}/metrics").text)
    logs = [process.communicate()[1] for process in (first, second)]
    assert told["analysis_submitted_total"] == 1
    assert ["metrics not served" in log for log in logs] == [False, True]
    assert (first.returncode, second.returncode) == (0, 0)


OPEN_THE_PAGE = """
import os, urllib.request
from streamlit.testing.v1 import AppTest
page = AppTest.from_file("streamlit_app.py", default_timeout=20).run()
assert not page.exception
print(urllib.request.urlopen(f"http://127.0.0.1:{os.environ['METRICS_PORT']}").read().decode())
"""


def test_the_real_page_serves_its_metrics(valkey: str, tmp_path: Path) -> None:
    settings = {
        "REDIS_URL": valkey,
        "QSTASH_TOKEN": "token",
        "QSTASH_WEBHOOK_URL": WEBHOOK_URL,
        "METRICS_PORT": str(free_port()),
    }

    told = subprocess.run(
        [sys.executable, "-c", OPEN_THE_PAGE],
        cwd=ROOT,
        env=bare_environment(tmp_path, **settings),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout

    assert read(told)["analysis_submitted_total"] == 0


ENDINGS = {
    "counter": ["_total"],
    "histogram": ["_bucket", "_sum", "_count"],
    "gauge": [""],
}
BUCKETS = {"_bucket": {"le"}}
LABELS = {
    metric._name: set(metric._labelnames)
    for metric in vars(metrics).values()
    if isinstance(metric, Counter | Gauge | Histogram)
}
# Each sample that can be exported, with the names of its labels.
EXPORTED = {
    family.name + ending: LABELS.get(family.name, set())
    | ({"le"} if ending == "_bucket" else set())
    for family in [*REGISTRY.collect(), *metrics.Unfinished(0, NOW).collect()]
    if family.name.startswith("analysis_")
    for ending in ENDINGS[family.type]
}
DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())

RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [
    target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_dashboard_and_the_alerts_ask_for_what_is_exported(expression: str) -> None:
    named = set(re.findall(r"\b(?:analysis_\w+|up)\b", expression))
    asked = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression))
    for grouped in re.findall(r"by \(([^)]*)\)", expression):
        asked |= set(re.findall(r"\w+", grouped))

    assert named
    assert named <= {*EXPORTED, "up"}
    assert asked <= {"instance", "job"}.union(*(EXPORTED.get(name, ()) for name in named))


def test_each_failure_that_the_operator_must_mend_pages_the_operator() -> None:
    (expression,) = [rule["expr"] for rule in RULES if rule["alert"] == "OperatorMustAct"]

    codes = re.findall(r"[a-z_]+", expression.partition('code=~"')[2].partition('"')[0])
    assert set(codes) == {failure for failure in Failure if failure.kind is Kind.OPERATOR}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(EXPRESSIONS)

    assert [name for name in LABELS if name not in shown] == []


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "todo"}
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_each_alert_fires_when_it_should_and_not_before() -> None:
    if (promtool := shutil.which("promtool")) is None:
        leave_out(
            "tests of the alerts",
            because="promtool is missing",
            remedy="Install it with: apt install prometheus",
        )
    cases = yaml.safe_load((ROOT / "tests/operations/metrics/alerts.yml").read_text())["tests"]

    checked = [
        subprocess.run(
            [promtool, what, "rules", path], cwd=ROOT, capture_output=True, text=True, check=False
        )
        for what, path in (
            ("check", "deploy/alerts.yml"),
            ("test", "tests/operations/metrics/alerts.yml"),
        )
    ]

    assert [each.returncode for each in checked] == [0, 0], checked
    assert {case["name"].partition(",")[0] for case in cases} == {rule["alert"] for rule in RULES}
