"""What is counted for Prometheus: events. The only importer of prometheus_client.

Imported only where METRICS_TOKEN or METRICS_PORT is set.
Source: https://prometheus.github.io/client_python/multiprocess/
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import get_args

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    start_http_server,
    values,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from common.events import (
    Answered,
    AttemptFailed,
    Claimed,
    DeliveryIgnored,
    DeliveryRefused,
    Event,
    Events,
    Rejected,
    Reopened,
    Settled,
    StoreFailed,
    StoreName,
    Submitted,
    SubmittedAgain,
)
from common.failures import Failure
from common.logs import get_logger
from common.states import Status

SUBMITTED = Counter("analysis_submitted", "Analyses accepted")
REOPENED = Counter("analysis_reopened", "Failed analyses that were begun again")
SETTLED = Counter("analysis_settled", "Analyses that came to an end", ["status", "code"])
ATTEMPTS = Counter("analysis_attempts", "Attempts begun, each at most one paid call")
FAILED_ATTEMPTS = Counter("analysis_failed_attempts", "Attempts that failed", ["code"])
DUPLICATES = Counter("analysis_duplicates", "Submissions and deliveries with no effect", ["reason"])
REFUSED = Counter("analysis_refused_deliveries", "Deliveries rejected", ["reason"])
REJECTED = Counter("analysis_rejected", "Submissions over a limit", ["limit"])
STORE_ERRORS = Counter("analysis_store_errors", "Times that one was away when needed", ["store"])
TOKENS = Counter("analysis_tokens", "Tokens paid for", ["direction"])
IN_FLIGHT = Gauge("analysis_calls_in_flight", "Model calls now", multiprocess_mode="livesum")
MODEL_SECONDS = Histogram(
    "analysis_model_seconds",
    "How long model calls took",
    ["outcome"],
    buckets=(0.5, 1, 2, 4, 6, 8, 10, 15, 20, 25, 30, 60, 120),
)
START_DELAY = Histogram(
    "analysis_start_delay_seconds",
    "From due to the attempt's start",
    buckets=(0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600),
)
log = get_logger(__name__)


def start(events: Events) -> None:
    """Count these events from now on.

    What alerts watch is there at 0 from the start: of a series that begins at 1, Prometheus can't
    tell that it has increased.
    """
    events.subscribe(count)
    SETTLED.labels(Status.COMPLETED, "")
    for code in Failure:
        SETTLED.labels(Status.FAILED, code)
    for store in get_args(StoreName):
        STORE_ERRORS.labels(store)


def count(event: Event) -> None:
    """Count one event."""
    match event:
        case Submitted():
            SUBMITTED.inc()
        case SubmittedAgain():
            DUPLICATES.labels("submitted again").inc()
        case Reopened():
            REOPENED.inc()
        case Claimed():
            ATTEMPTS.inc()
            IN_FLIGHT.inc()
            START_DELAY.observe(event.seconds_after_due)
        case Answered():
            _count_attempt(event)
        case Settled():
            SETTLED.labels(event.record.status, event.record.failure or "").inc()
        case Rejected():
            REJECTED.labels(event.code).inc()
        case DeliveryIgnored():
            DUPLICATES.labels(event.reason).inc()
        case DeliveryRefused():
            REFUSED.labels(event.reason).inc()
        case StoreFailed():
            STORE_ERRORS.labels(event.store).inc()


def _count_attempt(event: Answered) -> None:
    code = event.code if isinstance(event, AttemptFailed) else None
    IN_FLIGHT.dec()
    MODEL_SECONDS.labels(code or "answered").observe(event.seconds)
    if event.tokens:
        TOKENS.labels("in").inc(event.tokens.input_tokens)
        TOKENS.labels("out").inc(event.tokens.output_tokens)
    if code:
        FAILED_ATTEMPTS.labels(code).inc()


class Unfinished(Collector):
    """What Redis knows when it is asked: how many are not over, and how late the first is."""

    def __init__(self, how_many: int, oldest: timedelta) -> None:
        self._how_many = how_many
        self._oldest = oldest

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("analysis_unfinished", "Analyses not over", self._how_many)
        yield GaugeMetricFamily(
            "analysis_oldest_unfinished_seconds",
            "How long one of them has been due",
            self._oldest.total_seconds(),
        )


def exposition(unfinished: Unfinished | None = None) -> bytes:
    """Write all metrics, summed over gunicorn's workers, as Prometheus reads them."""
    registry = CollectorRegistry()
    if getattr(values.ValueClass, "_multiprocess", False):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    if unfinished:
        registry.register(unfinished)
    return generate_latest(registry)


def forget(pid: int) -> None:
    """A worker is dead: its calls in flight are none. What it has counted stays."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def serve(port: int, events: Events) -> None:
    """Serve this process's metrics on a port of its own; if that can't be, say so and go on."""
    start(events)
    try:
        start_http_server(port)
    except OSError as error:
        log.error("metrics not served", port=port, cause=str(error))
