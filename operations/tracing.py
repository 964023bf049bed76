"""OpenTelemetry: spans, sent to a collector over HTTP. The only importer of its SDK.

Imported only where OTEL_EXPORTER_OTLP_ENDPOINT is set. No span holds personal text or a secret: our
own carry what is logged, Redis's the names of commands, the database's the operation and the table.
Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import logging
from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from common.environment import pass_on
from common.events import Event
from common.logs import get_logger

EXPORT_SECONDS = 2.0

log = get_logger(__name__)


def start(endpoint: str, service: str) -> None:
    """Trace this process from now on. Call it after any fork; a second call changes nothing.

    Spans wait in memory, a few thousand at most, for a thread that sends them: no request waits
    for the collector. The SDK reads its own variables, OTEL_….
    """
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return
    pass_on("OTEL_")
    named = OTELResourceDetector().detect()  # if the operator has named it otherwise
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}).merge(named))
    provider.sampler = OurTraces(provider.sampler)
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # see Exporter
    exporter = OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS
    )
    provider.add_span_processor(BatchSpanProcessor(Exporter(exporter)))
    trace.set_tracer_provider(provider)
    RedisInstrumentor().instrument(tracer_provider=provider)


class OurTraces(Sampler):
    """Begin no trace with a command to Redis or the database: whoever waits polls."""

    def __init__(self, others: Sampler) -> None:
        self._others = others

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: trace.SpanKind | None = None,
        *more: Any,
        **others: Any,
    ) -> SamplingResult:
        is_first = not trace.get_current_span(parent_context).get_span_context().is_valid
        if is_first and kind is trace.SpanKind.CLIENT:
            return SamplingResult(Decision.DROP)
        return self._others.should_sample(parent_context, trace_id, name, kind, *more, **others)

    def get_description(self) -> str:
        return f"OurTraces({self._others.get_description()})"


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
