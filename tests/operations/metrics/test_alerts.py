"""The dashboard and the alerts: they ask for what is exported, and each alert fires in its time."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import fakeredis
import pytest
import yaml
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from common.failures import Failure, Kind
from operations import metrics, metrics_route
from operations.history import connect_history
from operations.statistics import connect_statistics
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
STORE = make_store(fakeredis.FakeRedis(decode_responses=True))
STATISTICS = connect_statistics(STORE)
connect_history(make_options(database_url="sqlite:///none.db"), STORE, STATISTICS)
GAUGES = metrics_route.ask_redis(STATISTICS)
# Each sample that can be exported, with the names of its labels.
EXPORTED = {
    family.name + ending: LABELS.get(family.name, set())
    | ({"le"} if ending == "_bucket" else set())
    for family in [*REGISTRY.collect(), *metrics.Gauges(GAUGES).collect()]
    if family.name.startswith("analysis_")
    for ending in ENDINGS[family.type]
}
DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text())
ALERTS = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text())

# As texts: 0x40 is forty times 0, and no number.
CASES = yaml.load(Path(__file__).with_name("alerts.yml").read_text(), yaml.BaseLoader)

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


def expression_of(alert: str) -> str:
    (expression,) = [rule["expr"] for rule in RULES if rule["alert"] == alert]
    return str(expression)


def named(expression: str, label: str, operator: str) -> set[str]:
    """All values of a label that an expression asks for, or leaves out."""
    values = re.findall(rf'{label}{operator}"([^"]*)"', expression)
    return {each for value in values for each in value.split("|")}


def test_each_failure_that_the_operator_must_mend_pages_the_operator() -> None:
    codes = named(expression_of("OperatorMustAct"), "code", "=~")

    assert codes == {failure for failure in Failure if failure.kind is Kind.OPERATOR}


@pytest.mark.parametrize("alert", ["AnalysesFail", "NothingIsAnalysed"])
def test_what_is_about_a_text_pages_nobody(alert: str) -> None:
    codes = named(expression_of(alert), "code", "!~")

    assert codes == {failure for failure in Failure if failure.kind is Kind.INPUT}


def test_the_reasons_that_an_alert_names_are_there_at_0_from_the_start() -> None:
    reasons = named(expression_of("DeliveriesRefused"), "reason", "=~")

    assert reasons == set(metrics.REASONS_OF_OURS)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(EXPRESSIONS)

    names = [*LABELS, *(gauge.name for gauge in GAUGES)]
    assert [name for name in names if name not in shown] == []


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "todo"}
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_each_alert_has_series_that_fire_it_and_series_that_keep_it_silent() -> None:
    alerts = {rule["alert"] for rule in RULES}

    assert {case["alert"] for case in CASES if "fires" in case} == alerts
    assert {case["alert"] for case in CASES if "silent" in case and "alert" in case} == alerts


def for_promtool(case: dict[str, Any]) -> dict[str, Any]:
    """Write one of our cases as promtool reads them."""
    series = {} if "up{" in str(case["series"]) else {'up{job="ask-later"}': "1x1440"}
    series |= case["series"]

    def firing(expression: str, at: str, alerts: list[str]) -> dict[str, Any]:
        samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in alerts]
        query = f"group by (alertname) ({expression})"
        return {"expr": query, "eval_time": at, "exp_samples": samples}

    now, ever = 'ALERTS{alertstate="firing"}', 'count_over_time(ALERTS{alertstate="firing"}[2d])'
    others = case.get("with", [])
    return {
        "interval": case.get("every", "1m"),
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            firing(now, case["not_at"], []),
            firing(now, case["at"], sorted([case["alert"], *others])),
        ]
        if "fires" in case
        else [firing(ever, case["until"], others)],
    }


def test_each_alert_fires_when_it_should_and_nothing_else_does(tmp_path: Path) -> None:
    """All cases in one start, each in a file that promtool names, if it fails."""
    rules = {"rule_files": [str(ROOT / "deploy" / "alerts.yml")], "evaluation_interval": "1m"}
    paths = []
    for case in CASES:
        name = f"{case.get('alert', 'nothing')} {case.get('fires') or case['silent']}"
        paths.append(tmp_path / f"{name}.yml".replace("/", " "))
        paths[-1].write_text(json.dumps(rules | {"tests": [for_promtool(case)]}))
    assert len({*paths}) == len(CASES)

    promtool("test", "rules", *map(str, paths))


def test_the_alerts_can_be_read() -> None:
    promtool("check", "rules", str(ROOT / "deploy" / "alerts.yml"))


def promtool(*command: str) -> None:
    if (found := shutil.which("promtool")) is None:
        leave_out(
            "tests of the alerts",
            because="promtool is missing",
            remedy="Install it with: apt install prometheus",
        )
    seldom = os.environ | {"GOGC": "1000"}  # it collects garbage
    checked = subprocess.run(
        [found, *command], env=seldom, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
