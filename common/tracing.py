"""Traces: what belongs to one submission, over all processes. Off, this costs nothing.

    with span("submit"): …          # or @span("submit")

A span carries the events that are logged within it, with their fields, and the lines of the log
carry its trace id. `OTEL_EXPORTER_OTLP_ENDPOINT` switches it on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from operations.tracing_settings import TracingSettings


class Tracing(Protocol):
    """What `operations/tracing.py` brings, where it is switched on."""

    def span(self, name: str, traceparent: str | None) -> Iterator[None]:
        """Begin a span, and end it."""

    def headers(self) -> dict[str, str]:
        """Name the current span."""


_tracing: Tracing | None = None


def start_tracing(settings: TracingSettings | None, service: str) -> None:
    """Trace from now on, if that is switched on. Call once per process, after any fork."""
    global _tracing
    if settings and settings.otel_exporter_otlp_endpoint and _tracing is None:
        from operations import tracing as otlp

        _tracing = otlp.Otlp(settings.otel_exporter_otlp_endpoint, service)


@contextmanager
def span(name: str, traceparent: str | None = None) -> Iterator[None]:
    """Note what happens within as one step, of the trace that is named, if one is."""
    if _tracing is None:
        yield
    else:
        yield from _tracing.span(name, traceparent)


def headers() -> dict[str, str]:
    """The header that makes who gets it continue this trace; none when there is no trace."""
    return _tracing.headers() if _tracing else {}
