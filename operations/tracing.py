"""OpenTelemetry: spans, sent to a collector over HTTP. The only importer of its SDK.

Imported only where OTEL_EXPORTER_OTLP_ENDPOINT is set. No span holds personal text or a secret: our
own carry what is logged, Redis's the names of commands.
Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import logging
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult

from common.events import Event
from common.logs import get_logger

EXPORT_SECONDS = 2.0

log = get_logger(__name__)


def start(endpoint: str, service: str) -> None:
    """Trace this process from now on. Call it after any fork; a second call changes nothing.

    Spans wait in memory, a few thousand at most, for a thread that sends them: no request waits
    for the collector.
    """
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # see Exporter
    exporter = OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS
    )
    resource = Resource.create({SERVICE_NAME: service})
    provider = TracerProvider(sampler=ParentBased(OurTraces()), resource=resource)
    provider.add_span_processor(BatchSpanProcessor(Exporter(exporter)))
    trace.set_tracer_provider(provider)
    RedisInstrumentor().instrument(tracer_provider=provider)


class OurTraces(Sampler):
    """Begin no trace with a Redis command: whoever waits polls."""

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        *_: Any,
        **__: Any,
    ) -> SamplingResult:
        is_wanted = kind is not trace.SpanKind.CLIENT
        return SamplingResult(Decision.RECORD_AND_SAMPLE if is_wanted else Decision.DROP)

    def get_description(self) -> str:
        return "OurTraces"


class Exporter(SpanExporter):
    """Sends spans, and logs when that stops working and when it works again, not each failure."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_working = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        is_working = result is SpanExportResult.SUCCESS
        if is_working and not self._is_working:
            log.info("traces are sent again")
        elif self._is_working and not is_working:
            log.warning("traces can't be sent", cause="the collector does not take them")
        self._is_working = is_working
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def note(event: Event) -> None:
    """Put an event on the current span: a subscriber."""
    current = trace.get_current_span()
    if not current.is_recording():
        return
    fields = {name: str(value) for name, value in event.fields().items() if value is not None}
    current.add_event(event.line, fields)
    if "request_id" in fields:
        current.set_attribute("request_id", fields["request_id"])
