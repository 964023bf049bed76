"""GET /metrics, for the bearer of METRICS_TOKEN.

gunicorn's processes share their counts by files in PROMETHEUS_MULTIPROC_DIR.
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
from common.events import StoreFailed
from common.logs import get_logger
from common.store import Store
from operations.metrics_settings import MetricsSettings
from operations.statistics import Statistics
from webhook_service.web import Problem, bearer_token

log = get_logger(__name__)

_metrics: ModuleType | None = None
_directory: Path | None = None  # as long as the master lives: a reload goes on counting there


def make_metrics(
    settings: MetricsSettings, store: Store, statistics: Statistics
) -> list[Blueprint]:
    """Begin to count, before gunicorn forks, and make the route.

    A directory that can't be written costs the metrics and nothing else.
    """
    assert settings.metrics_token, "without one there is no route"
    global _metrics
    try:
        _prepare_directory(settings.prometheus_multiproc_dir)
    except OSError as error:
        log.error("no metrics: their directory can't be written", cause=str(error))
        return []
    from operations import metrics  # only now: its library reads the environment when imported

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


def _write(store: Store, statistics: Statistics, metrics: ModuleType) -> bytes:
    """All metrics; while Redis is away, those that only it knows are left out.

    What has timed out without anybody reading it is settled first, and so counted.
    """
    try:
        now = store.now()
        statistics.settle_overdue(now)
        number, oldest = statistics.unfinished(now)
    except StoreUnavailable as error:  # counted, so that the alert needs no traffic
        store.events.emit(StoreFailed("redis", str(error), at="/metrics"))
        return bytes(metrics.exposition())
    late = max(now - oldest, timedelta(0)) if oldest else timedelta(0)
    return bytes(metrics.exposition(metrics.Unfinished(number, late)))


def _prepare_directory(chosen: Path | None) -> None:
    """Empty the directory, or make one; once. Raises: OSError.

    Source: https://prometheus.github.io/client_python/multiprocess/
    """
    global _directory
    if _directory is None:
        directory = chosen or Path(tempfile.mkdtemp(prefix="ask-later-metrics-"))
        directory.mkdir(parents=True, exist_ok=True)
        for left_over in directory.glob("*.db"):
            left_over.unlink()
        tempfile.TemporaryFile(dir=directory).close()
        _directory = directory
        os.environ.update(PROMETHEUS_MULTIPROC_DIR=str(directory))


def worker_ended(pid: int) -> None:
    """Forget a worker's calls in flight. For gunicorn's master."""
    if _metrics:
        _metrics.forget(pid)


def service_ended() -> None:
    """Remove what is left. For gunicorn's master."""
    if _directory:
        shutil.rmtree(_directory, ignore_errors=True)
