"""What is counted for Prometheus: events. The only importer of prometheus_client.

Imported only where METRICS_TOKEN or METRICS_PORT is set.
Source: https://prometheus.github.io/client_python/multiprocess/
"""

from collections.abc import Iterable, Iterator
from typing import get_args, get_type_hints

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
    NOT_OURS,
    Answered,
    AttemptFailed,
    Claimed,
    DeliveryIgnored,
    DeliveryRefused,
    Event,
    Events,
    RecordNotRead,
    Rejected,
    Reopened,
    Settled,
    StoreFailed,
    Submitted,
    SubmittedAgain,
)
from common.failures import Failure
from common.logs import get_logger
from common.states import Status
from common.versions import Why
from operations import statistics

SUBMITTED = Counter("analysis_submitted", "Analyses accepted")
REOPENED = Counter("analysis_reopened", "Failed analyses that were begun again")
SETTLED = Counter("analysis_settled", "Analyses that came to an end", ["status", "code"])
ATTEMPTS = Counter("analysis_attempts", "Attempts begun, each at most one paid call")
FAILED_ATTEMPTS = Counter("analysis_failed_attempts", "Attempts that failed", ["code"])
DUPLICATES = Counter("analysis_duplicates", "Submissions and deliveries with no effect", ["reason"])
REFUSED = Counter("analysis_refused_deliveries", "Deliveries rejected", ["reason"])
REJECTED = Counter("analysis_rejected", "Submissions over a limit", ["limit"])
STORE_ERRORS = Counter("analysis_store_errors", "Times that one was away when needed", ["store"])
UNREADABLE = Counter("analysis_unreadable_records", "Stored ones that were not read", ["reason"])
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
# Why deliveries are refused when a setting of ours is wrong; the others are anybody's requests.
REASONS_OF_OURS = (
    "wrong url",
    "no known key",
    "expired",
    "not yet valid",
    "body hash does not match",
    NOT_OURS,
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
    for store in get_args(get_type_hints(StoreFailed)["store"]):
        STORE_ERRORS.labels(store)
    for why in Why:
        UNREADABLE.labels(why.name.lower())
    for reason in REASONS_OF_OURS:
        REFUSED.labels(reason)


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
        case RecordNotRead():
            UNREADABLE.labels(event.error.why.name.lower()).inc()
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


class Gauges(Collector):
    """What is known when it is asked."""

    def __init__(self, gauges: Iterable[statistics.Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        for gauge in self._gauges:
            yield GaugeMetricFamily(*gauge)


def exposition(gauges: Iterable[statistics.Gauge]) -> bytes:
    """Write all metrics, summed over gunicorn's workers, as Prometheus reads them."""
    registry = CollectorRegistry()
    if getattr(values.ValueClass, "_multiprocess", False):
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(REGISTRY)
    registry.register(Gauges(gauges))
    return generate_latest(registry)


def forget(pid: int) -> None:
    """A worker is dead: its calls in flight are none. What it has counted stays."""
    mark_process_dead(pid)  # type: ignore[no-untyped-call]


def serve(port: int) -> None:
    """Serve this process's metrics on a port of its own; if that can't be, say so and go on."""
    try:
        start_http_server(port)
    except OSError as error:
        log.error("metrics not served", port=port, cause=str(error))
