"""GET /metrics of the service, for the bearer of METRICS_TOKEN; the page's, on METRICS_PORT.

gunicorn's processes share their counts by files in PROMETHEUS_MULTIPROC_DIR, which its library
reads from the environment when it is imported. So nothing here imports it at the top.
"""

import hmac
import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from types import ModuleType

from flask import Blueprint, Response

from common.connection import StoreUnavailable
from common.environment import unset
from common.events import Events, StoreFailed
from common.logs import get_logger
from common.options import Process
from common.store import Store
from operations.metrics_settings import MetricsSettings
from operations.statistics import Gauge, Statistics

LATE = timedelta(minutes=5)

log = get_logger(__name__)

_metrics: ModuleType | None = None
# As long as the master lives: a reload goes on counting there.
_directory: Path | None = None
_own_directory: Path | None = None


def plug_in(
    process: Process, chosen: MetricsSettings, store: Store, statistics: Statistics
) -> list[Blueprint]:
    """Make the service's route, or serve the page's port, where one is set."""
    if process == "service" and chosen.metrics_token:
        return make_metrics(chosen, store, statistics)
    if process == "page" and chosen.metrics_port:
        serve_metrics(chosen.metrics_port, store.events)
    return []


def make_metrics(
    settings: MetricsSettings, store: Store, statistics: Statistics
) -> list[Blueprint]:
    """Begin to count, before gunicorn forks, and make the route.

    A directory that can't be written costs the metrics and nothing else.
    """
    assert settings.metrics_token, "without one there is no route"
    from webhook_service.web import Problem, bearer_token  # the page's image has no such folder

    global _metrics
    try:
        _prepare_directory(settings.prometheus_multiproc_dir)
    except OSError as error:
        log.error("no metrics: their directory can't be written", cause=str(error))
        return []
    from operations import metrics

    _metrics = metrics
    metrics.start(store.events)
    token = settings.metrics_token.get_secret_value().encode()
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    def exposition() -> Response:
        if not hmac.compare_digest(bearer_token(), token):
            detail = "Send METRICS_TOKEN as a bearer token."
            raise Problem(401, detail, {"WWW-Authenticate": "Bearer"})
        return Response(_write(store, statistics, metrics), mimetype="text/plain")

    return [routes]


def serve_metrics(port: int, events: Events) -> None:
    """Begin to count in the page, a single process, and serve that on a port of its own; once.

    Called again, for the events of another connection, it only counts those, too.
    """
    global _metrics
    unset("PROMETHEUS_MULTIPROC_DIR")  # the service's: the library would share its files
    from operations import metrics

    metrics.start(events)
    if _metrics is None:
        metrics.serve(port)
    _metrics = metrics


def _write(store: Store, statistics: Statistics, metrics: ModuleType) -> bytes:
    """All metrics; while Redis is away, those that only it knows are left out."""
    try:
        gauges = ask_redis(statistics)
    except StoreUnavailable as error:  # counted, so that the alert needs no traffic
        store.events.emit(StoreFailed(error.store, str(error), at="/metrics"))
        gauges = []
    return bytes(metrics.exposition(gauges))


def ask_redis(statistics: Statistics) -> list[Gauge]:
    """What Redis knows, by as few commands as can be: hosts charge for each, at each scrape.

    What has timed out without anybody reading it is settled first, and so counted.
    Raises: StoreUnavailable.
    """
    number, due_at, now, overdue = statistics.unfinished()
    statistics.settle_overdue(overdue)
    waits = [max(now - each, timedelta(0)) for each in due_at]
    oldest = max(waits, default=timedelta(0)).total_seconds()
    late = sum(wait > LATE for wait in waits)
    return [
        Gauge("analysis_unfinished", "Analyses not over", number),
        Gauge("analysis_oldest_unfinished_seconds", "How long one of them has been due", oldest),
        Gauge("analysis_late", "Of the first 20, those due for more than five minutes", late),
        *statistics.gauges(now),
    ]


def _prepare_directory(named: Path | None) -> None:
    """Empty the directory that the operator names, or make one of our own; once. Raises: OSError.

    Source: https://prometheus.github.io/client_python/multiprocess/
    """
    global _directory, _own_directory
    if _directory:
        return
    if named:
        named.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=named):  # it can be written
            for left_over in named.glob("*.db"):
                left_over.unlink()
    else:
        _own_directory = Path(tempfile.mkdtemp(prefix="ask-later-metrics-"))
    _directory = named or _own_directory
    os.environ.update(PROMETHEUS_MULTIPROC_DIR=str(_directory))


def worker_ended(pid: int) -> None:
    """Forget a worker's calls in flight. For gunicorn's master."""
    if _metrics:
        _metrics.forget(pid)


def service_ended() -> None:
    """Remove the directory, if it is our own. For gunicorn's master."""
    if _own_directory:
        shutil.rmtree(_own_directory, ignore_errors=True)
