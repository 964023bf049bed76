"""Traces: what belongs to one submission, over all processes.

    with span("submit"): …          # or @span("submit")

Without OpenTelemetry's SDK, which `operations/tracing.py` brings, all of this does nothing: a trace
that comes with a delivery is not continued either.
Source: https://opentelemetry.io/docs/specs/otel/api/
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

PROPAGATOR = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("ask-later")  # the SDK's, as soon as there is one


@contextmanager
def span(
    name: str, traceparent: str | None = None, *, asks_another: bool = False
) -> Iterator[None]:
    """Note what happens within as one step, of the trace that is named, if one is.

    One that `asks_another` server is noted where there is a trace, and begins none.
    """
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # there is no SDK
        yield
        return
    parent = PROPAGATOR.extract({"traceparent": traceparent}) if traceparent else None
    kind = trace.SpanKind.CLIENT if asks_another else trace.SpanKind.INTERNAL
    with _tracer.start_as_current_span(
        name, parent, kind, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield
        except Exception as error:  # what it says may be personal
            current.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise


def headers() -> dict[str, str]:
    """The header that makes the receiver continue this trace; none when there is no trace."""
    carrier: dict[str, str] = {}
    PROPAGATOR.inject(carrier)
    return carrier


def trace_id() -> str | None:
    """Name the current trace, for the log."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None
