"""The dashboard and the alerts: they ask for what is exported, and each alert fires in its time."""

import json
import re
import shutil
import subprocess
from datetime import timedelta

import fakeredis
import pytest
import yaml
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from common.failures import Failure, Kind
from common.store import utc_now
from operations import metrics
from operations.history.archive import DatabaseHistory
from tests.conftest import leave_out, make_options, make_store
from tests.processes import ROOT

ENDINGS = {
    "counter": ["_total"],
    "histogram": ["_bucket", "_sum", "_count"],
    "gauge": [""],
}
LABELS = {
    metric._name: set(metric._labelnames)
    for metric in vars(metrics).values()
    if isinstance(metric, Counter | Gauge | Histogram)
}
HISTORY = DatabaseHistory(
    make_options(database_url="sqlite:///none.db"),
    make_store(fakeredis.FakeRedis(decode_responses=True)),
)
OF_OPTIONS = [*HISTORY.gauges(utc_now())]
# Each sample that can be exported, with the names of its labels.
EXPORTED = {
    family.name + ending: LABELS.get(family.name, set())
    | ({"le"} if ending == "_bucket" else set())
    for family in [
        *REGISTRY.collect(),
        *metrics.Unfinished(0, timedelta(0), OF_OPTIONS).collect(),
    ]
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
