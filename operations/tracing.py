"""OpenTelemetry: spans, sent to a collector over HTTP. The only importer of opentelemetry.

Imported only where OTEL_EXPORTER_OTLP_ENDPOINT is set. No span holds personal text or a secret: our
own carry what is logged, Redis's the names of commands.
Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from common.logs import Event, get_logger, observe

EXPORT_SECONDS = 2.0
PROPAGATOR = TraceContextTextMapPropagator()

log = get_logger(__name__)


class Otlp:
    """Traces one process. Its spans wait in memory, a few thousand at most, for a thread that
    sends them: no request waits for the collector.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # see Exporter
        exporter = OTLPSpanExporter(
            endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_SECONDS
        )
        resource = Resource.create({SERVICE_NAME: service})
        self.provider = TracerProvider(sampler=ParentBased(OurTraces()), resource=resource)
        self.provider.add_span_processor(BatchSpanProcessor(Exporter(exporter)))
        self._tracer = self.provider.get_tracer("ask-later")
        RedisInstrumentor().instrument(tracer_provider=self.provider)
        observe(_note)

    def span(self, name: str, traceparent: str | None) -> Iterator[None]:
        """Begin a span, as a child of the one named, else of the current one."""
        parent = PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
        with self._tracer.start_as_current_span(
            name, parent, record_exception=False, set_status_on_exception=False
        ) as current:
            try:
                yield
            except Exception as error:  # what it says may be personal
                current.set_status(trace.StatusCode.ERROR, type(error).__name__)
                raise

    def headers(self) -> dict[str, str]:
        """Name the current span, as W3C's Trace Context has it."""
        carrier: dict[str, str] = {}
        PROPAGATOR.inject(carrier)
        return carrier


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


def _note(event: Event) -> None:
    """Put a logged event on the current span, and the trace's id on the event."""
    current = trace.get_current_span()
    if not current.is_recording():
        return
    fields = {name: str(value) for name, value in event.items() if value is not None}
    current.add_event(fields.pop("event"), fields)
    if "request_id" in event:
        current.set_attribute("request_id", event["request_id"])
    event["trace_id"] = trace.format_trace_id(current.get_span_context().trace_id)
