"""GET /metrics, for the bearer of METRICS_TOKEN. Without one there is no such route.

gunicorn's processes share their counts by files in a directory that lives as long as the master.
"""

from __future__ import annotations

import hmac
import os
import tempfile
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from flask import Blueprint, Response

from common.logs import get_logger
from common.store import HistoryUnavailable, NotFound, Store, StoreUnavailable, Unreadable
from common.submission import Submissions
from webhook_service.web import Problem, bearer_token

if TYPE_CHECKING:
    from operations.metrics_settings import MetricsSettings

log = get_logger(__name__)
PREFIX = "ask-later-metrics-"  # of a directory that is made here

_metrics: ModuleType | None = None
_directory = ""


def make_metrics(
    settings: MetricsSettings | None, store: Store, submissions: Submissions
) -> Blueprint:
    """Begin to count, before gunicorn forks, and make the route; neither if it is switched off.

    A directory that can't be written costs the metrics and nothing else.
    """
    routes = Blueprint("metrics", __name__)
    if settings is None or settings.metrics_token is None:
        return routes
    try:
        _start(settings)
    except OSError as error:
        log.error("no metrics: PROMETHEUS_MULTIPROC_DIR can't be written", cause=str(error))
        return routes
    token = settings.metrics_token.get_secret_value().encode()

    @routes.get("/metrics")
    def metrics() -> Response:
        if not hmac.compare_digest(bearer_token(), token):
            detail = "Send METRICS_TOKEN as a bearer token."
            raise Problem(401, detail, {"WWW-Authenticate": "Bearer"})
        return Response(_write(store, submissions), mimetype="text/plain")

    return routes


def _write(store: Store, submissions: Submissions) -> bytes:
    """All metrics; while Redis is away, those that only it knows are left out.

    What has timed out without anybody reading it is read here, and so settled and counted.
    """
    assert _metrics, "there is no route before there are metrics"
    try:
        now = store.now()
        for request_id in store.overdue(now):
            with suppress(NotFound, HistoryUnavailable, Unreadable):
                submissions.look_up(request_id)
        number, oldest = store.unfinished(now)
    except StoreUnavailable as error:  # counted, so that the alert needs no traffic
        log.error("store unavailable", at="/metrics", cause=str(error))
        return bytes(_metrics.exposition())
    late = max(now - oldest, timedelta(0)) if oldest else timedelta(0)
    return bytes(_metrics.exposition(_metrics.Unfinished(number, late)))


def _start(settings: MetricsSettings) -> None:
    """Begin once: a reload goes on counting in the same directory. Raises: OSError."""
    global _metrics, _directory
    if not _directory:  # a reload goes on counting where it was
        _directory = _prepare(settings.prometheus_multiproc_dir)
    os.environ.update(PROMETHEUS_MULTIPROC_DIR=_directory)  # before prometheus_client is imported
    from operations import metrics

    metrics.start()
    _metrics = metrics


def _prepare(directory: Path | None) -> str:
    """Wipe the operator's directory, or make one. Raises: OSError.

    Source: https://prometheus.github.io/client_python/multiprocess/
    """
    if directory is None:
        return tempfile.mkdtemp(prefix=PREFIX)
    with tempfile.TemporaryFile(dir=directory):
        _wipe(directory)
    return str(directory)


def _wipe(directory: Path) -> None:
    for path in directory.glob("*.db"):
        path.unlink(missing_ok=True)


def forget(pid: int) -> None:
    """A worker has ended. For gunicorn's master."""
    if _metrics:
        _metrics.forget(pid)


def clean_up() -> None:
    """The service ends. For gunicorn's master."""
    if _metrics:
        _wipe(Path(_directory))
        if Path(_directory).name.startswith(PREFIX):
            Path(_directory).rmdir()
