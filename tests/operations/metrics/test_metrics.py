"""GET /metrics: what is counted, and who may read it."""

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from pydantic import SecretStr
from werkzeug.test import TestResponse

from common.environment import SettingsError, load
from common.failures import Failure
from common.fields import Tokens
from common.record import AnalysisRecord
from common.store import Store, record_key
from common.submission import Submissions
from operations import metrics_route, packages
from operations.metrics_settings import MetricsSettings
from tests.conftest import WEBHOOK_URL, make_options, make_settings, make_store
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
    with_fields,
)
from tests.monitor import monitored
from tests.operations.plugged import limits_with
from tests.processes import wait_for
from tests.tokens import ANOTHER, FAILURE_URL, MESSAGE, token
from tests.versions import of_newer, of_older
from webhook_service import create_app
from webhook_service.answer import AnalysisFailed, Answer

TOKEN = "a-metrics-token-"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
NOW = timedelta(0)
Samples = dict[str, float]
MakeApp = Callable[..., Flask]


def read(text: str) -> Samples:
    """`{"name{label=value}": 1.0}`"""

    def name(sample: Sample) -> str:
        return sample.name + "".join(f"{{{k}={v}}}" for k, v in sorted(sample.labels.items()))

    families = text_string_to_metric_families(text)
    return {name(sample): sample.value for family in families for sample in family.samples}


@pytest.fixture(autouse=True)
def _no_directory_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")  # and so it is put back
    for name in ("_directory", "_own_directory", "_metrics"):
        monkeypatch.setattr(metrics_route, name, None)


@pytest.fixture
def make_app(store: Store, queue: FakeQueue, tmp_path: Path) -> MakeApp:
    """Make a service that is metered, with more options and these answers of the model."""

    def make(*answers: Answer | Exception, **options: object) -> Flask:
        chosen = make_options(metrics_token=TOKEN, prometheus_multiproc_dir=tmp_path, **options)
        analyst = FakeAnalyst(*answers)
        return create_app(
            make_settings(), chosen, store=store, queue=queue, analyst=analyst, open_api=True
        )

    return make


def scrape(app: Flask) -> Samples:
    return read(app.test_client().get("/metrics", headers=BEARER).text)


def counted_from_now(app: Flask) -> Callable[[], Samples]:
    """What is counted in this process from now on, beside what Redis says at each scrape."""
    before = scrape(app)

    def since(name: str, value: float) -> float:
        from_redis = name.startswith(("analysis_unfinished", "analysis_oldest", "analysis_late"))
        return value if from_redis else value - before.get(name, 0)

    return lambda: {name: since(name, value) for name, value in scrape(app).items()}


def put(store: Store, record: AnalysisRecord) -> None:
    """Store a record as a submission does."""
    limits_with(store).admit(record)
    store.create(record)


def deliver(
    app: Flask, body: bytes = MESSAGE, url: str = WEBHOOK_URL, signature: str | None = None
) -> TestResponse:
    headers = {"Upstash-Signature": signature or token(url, body)}
    path = url.removeprefix("https://service.example")
    return app.test_client().post(path, data=body, headers=headers)


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
    make_app: MakeApp, headers: dict[str, str], status: int
) -> None:
    answer = make_app().test_client().get("/metrics", headers=headers)

    assert answer.status_code == status
    assert (answer.headers.get("WWW-Authenticate") == "Bearer") == (status == 401)


@pytest.mark.parametrize("has_options", [True, False])
def test_without_a_token_there_is_no_such_route(
    store: Store, queue: FakeQueue, has_options: bool
) -> None:
    chosen = make_options() if has_options else None
    app = create_app(make_settings(), chosen, store=store, queue=queue)

    assert app.test_client().get("/metrics", headers=BEARER).status_code == 404


def test_what_alerts_watch_is_there_at_0_from_the_start(make_app: MakeApp) -> None:
    told = scrape(make_app())

    for code in Failure:
        assert f"analysis_settled_total{{code={code}}}{{status=failed}}" in told
    stores = ("redis", "database", "busy_database")
    assert {f"analysis_store_errors_total{{store={s}}}" for s in stores} <= {*told}
    assert "analysis_refused_deliveries_total{reason=no known key}" in told


def test_a_submission_and_its_duplicates_are_counted(
    make_app: MakeApp, store: Store, queue: FakeQueue
) -> None:
    counted = counted_from_now(make_app())
    submissions = Submissions(store, queue, make_settings(), limits=limits_with(store))

    for _ in range(3):
        submissions.submit(ADA, request_id=ID, owner_token="owner")
    waiting = counted()
    submissions.cancel(ID, "owner")

    assert waiting["analysis_submitted_total"] == 1
    assert waiting["analysis_duplicates_total{reason=submitted again}"] == 2
    assert waiting["analysis_unfinished"] == 1
    assert waiting["analysis_oldest_unfinished_seconds"] == 0, "it is not due yet"
    assert counted()["analysis_unfinished"] == 0
    assert counted()["analysis_settled_total{code=}{status=cancelled}"] == 1


def test_attempts_and_what_they_come_to_are_counted(make_app: MakeApp, store: Store) -> None:
    codes = (Failure.RATE_LIMITED, Failure.KEY_REFUSED)
    app = make_app(*(AnalysisFailed(code, "x") for code in codes))
    counted = counted_from_now(app)
    put(store, pending(store.now() - timedelta(seconds=90)))

    deliver(app)
    deliver(app)
    store.update(ID, lambda r, now: with_fields(r, next_attempt_at=now))
    deliver(app)
    deliver(app)
    deliver(app, json.dumps({"requestId": OTHER_ID, "round": 1}).encode())

    told = counted()
    assert told["analysis_attempts_total"] == 2
    assert told["analysis_failed_attempts_total{code=rate_limited}"] == 1
    assert told["analysis_settled_total{code=key_refused}{status=failed}"] == 1
    assert "analysis_settled_total{code=rate_limited}{status=pending}" not in told
    assert told["analysis_duplicates_total{reason=not due yet}"] == 1
    assert told["analysis_duplicates_total{reason=already terminal}"] == 1
    assert told["analysis_duplicates_total{reason=no such record}"] == 1
    assert told["analysis_start_delay_seconds_sum"] == pytest.approx(30, abs=1)
    assert told["analysis_calls_in_flight"] == 0


def test_what_is_no_delivery_is_counted_by_its_reason_without_what_differs_each_time(
    make_app: MakeApp,
) -> None:
    app = make_app()
    counted = counted_from_now(app)
    report = json.dumps({"sourceBody": base64.b64encode(b"of another").decode()}).encode()

    deliver(app, signature="x.y.z")
    deliver(app, signature=token("https://elsewhere.example/webhook"))
    deliver(app, signature=token(WEBHOOK_URL, key=ANOTHER))
    deliver(app, b"x" * 100_000)
    deliver(app, b"not ours")
    deliver(app, report, FAILURE_URL)

    told = counted()
    reasons = {
        "not a QStash token": 1,
        "wrong url": 1,
        "no known key": 1,
        "Request Entity Too Large": 1,
        "signed but not ours": 2,
    }
    for reason, times in reasons.items():
        assert told[f"analysis_refused_deliveries_total{{reason={reason}}}"] == times


def test_tokens_and_times_of_calls_are_counted_and_what_limits_reject(
    make_app: MakeApp, store: Store
) -> None:
    busy = AnalysisFailed(Failure.RATE_LIMITED, "x")
    busy.tokens = Tokens(input_tokens=7, output_tokens=0)
    app = make_app(busy, Answer(ANALYSIS, model="fake", tokens=TOKENS), most_waiting=1)
    counted = counted_from_now(app)
    put(store, pending(store.now(), NOW))

    rejected = app.test_client().post("/analyze", json=ADA.model_dump())
    deliver(app)
    store.update(ID, lambda r, now: with_fields(r, next_attempt_at=now))
    deliver(app)

    told = counted()
    assert rejected.status_code == 503
    assert told["analysis_rejected_total{limit=waiting}"] == 1
    assert told["analysis_tokens_total{direction=in}"] == 307
    assert told["analysis_tokens_total{direction=out}"] == 200
    assert told["analysis_model_seconds_count{outcome=rate_limited}"] == 1
    assert told["analysis_model_seconds_count{outcome=answered}"] == 1


def test_a_late_analysis_is_told_by_how_late_it_is_and_from_anew_in_a_new_round(
    make_app: MakeApp, store: Store, queue: FakeQueue
) -> None:
    counted = counted_from_now(make_app())
    put(store, pending(store.now() - timedelta(seconds=400)))  # due a minute later

    late = counted()
    store.update(ID, lambda r, now: r.give_up(of_round=1, now=now, lease=LEASE))
    Submissions(store, queue, make_settings(), is_operator=True).retry(ID, "")
    reopened = counted()

    assert 340 <= late["analysis_oldest_unfinished_seconds"] < 400
    assert reopened["analysis_oldest_unfinished_seconds"] == 0
    assert reopened["analysis_unfinished"] == 1
    assert reopened["analysis_reopened_total"] == 1


def test_those_that_have_been_due_for_more_than_five_minutes_are_late(
    make_app: MakeApp, store: Store
) -> None:
    counted = counted_from_now(make_app())
    for number, minutes in enumerate([0, 5, 7, 8]):  # since they were sent, due a minute later
        record = pending(store.now() - timedelta(minutes=minutes), request_id=f"{number:032x}")
        put(store, record)

    told = counted()

    assert (told["analysis_unfinished"], told["analysis_late"]) == (4, 2)


def test_a_scrape_costs_one_redis_command_and_another_while_something_waits(
    real_redis: redis.Redis, queue: FakeQueue, tmp_path: Path
) -> None:
    store = make_store(real_redis)
    chosen = make_options(metrics_token=TOKEN, prometheus_multiproc_dir=tmp_path)
    app = create_app(make_settings(), chosen, store=store, queue=queue, analyst=FakeAnalyst())
    scrape(app)  # loads the script

    with monitored(real_redis) as sent:
        scrape(app)
        assert sent() == ["EVALSHA"]
        put(store, pending(store.now()))
        sent()
        scrape(app)
        assert sent() == ["EVALSHA", "MGET"]


def test_what_times_out_and_nobody_reads_is_settled_counted_and_kept_at_a_scrape(
    make_app: MakeApp, store: Store, fake_redis: redis.Redis, tmp_path: Path
) -> None:
    app = make_app(database_url=SecretStr(f"sqlite:///{tmp_path}/history.db"))
    counted = counted_from_now(app)
    put(store, pending(store.now() - timedelta(minutes=12)))
    put(store, pending(store.now() - timedelta(minutes=12), request_id=OTHER_ID))
    store.delete(OTHER_ID)  # Redis has forgotten it

    told = [counted() for _ in range(2)]
    wait_for(lambda: not fake_redis.exists("unarchived"))
    store.delete(ID)
    kept = app.test_client().get(f"/analyze/{ID}").get_json()

    name = "analysis_settled_total{code=timed_out}{status=failed}"
    assert [each[name] for each in told] == [1, 1]
    assert [each["analysis_unfinished"] for each in told] == [0, 0]
    assert told[0]["analysis_unarchived"] == 1
    assert told[0]["analysis_history_max_outage_seconds"] == 0, "it was told before, too"
    assert kept["status"] == "failed"


def test_a_record_that_can_not_be_read_hides_no_number(
    make_app: MakeApp, store: Store, fake_redis: redis.Redis
) -> None:
    counted = counted_from_now(make_app())
    put(store, pending(store.now() - timedelta(minutes=12)))
    fake_redis.set(f"analysis:{{{ID}}}", "{}")  # of another version, say
    put(store, pending(store.now(), request_id=OTHER_ID))

    told = counted()

    assert told["analysis_unfinished"] == 1
    assert told["analysis_store_errors_total{store=redis}"] == 0


def test_an_analysis_whose_time_is_over_is_counted_once(make_app: MakeApp, store: Store) -> None:
    counted = counted_from_now(make_app())
    put(store, pending(store.now() - timedelta(minutes=12)))

    store.read(ID)
    store.read(ID)

    assert counted()["analysis_settled_total{code=timed_out}{status=failed}"] == 1


def test_a_database_that_is_away_is_told_apart_from_redis(make_app: MakeApp) -> None:
    app = make_app(database_url=SecretStr("postgresql://nobody@127.0.0.1:1/none"))
    counted = counted_from_now(app)

    answers = [deliver(app), app.test_client().get(f"/analyze/{ID}")]

    assert answers[1].status_code == 503
    assert counted()["analysis_store_errors_total{store=database}"] >= 1
    assert counted()["analysis_store_errors_total{store=redis}"] == 0


def test_a_record_that_can_not_be_read_is_no_store_that_is_away(
    make_app: MakeApp, store: Store, fake_redis: redis.Redis
) -> None:
    app = make_app()
    counted = counted_from_now(app)
    before = counted()
    for write in (of_older, of_newer):
        fake_redis.set(record_key(ID), write(pending(store.now())))
        deliver(app)

    told = counted()

    for reason, number in {"older": 1, "newer": 1, "damaged": 0}.items():
        assert told[f"analysis_unreadable_records_total{{reason={reason}}}"] == number
    name = "analysis_store_errors_total{store=redis}"
    assert told[name] == before[name]


def test_while_redis_is_away_the_rest_is_still_told(queue: FakeQueue, tmp_path: Path) -> None:
    chosen = make_options(metrics_token=TOKEN, prometheus_multiproc_dir=tmp_path)
    app = create_app(make_settings(), chosen, queue=queue)

    before, told = scrape(app), scrape(app)

    assert "analysis_submitted_total" in told
    assert "analysis_unfinished" not in told
    name = "analysis_store_errors_total{store=redis}"
    assert told[name] - before[name] == 1


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("METRICS_PORT", "0", "greater than or equal to 1"),
        ("METRICS_TOKEN", "short", "is too short"),
    ],
)
def test_a_wrong_setting_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsError, match=f"  {name}: .*{says}"):
        load(MetricsSettings)


@pytest.mark.parametrize(("name", "value"), [("METRICS_TOKEN", TOKEN), ("METRICS_PORT", "9100")])
def test_a_missing_package_is_named_at_the_start(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setattr(packages, "_is_installed", lambda package: package != "prometheus_client")
    monkeypatch.setenv(name, value)
    needed = f"  {name}: needs prometheus_client: pip install -r requirements-operator.txt"

    with pytest.raises(SettingsError, match=needed):
        load(MetricsSettings)
