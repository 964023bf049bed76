"""What operators may add to the core, which never imports it: `common/options.py` is the door.

To delete an option, delete its files, its settings in `settings.py`, and its lines here.
"""

from common.options import Options, Process
from common.settings import Settings
from common.store import Store
from operations.history import connect_history
from operations.limits import connect_limits
from operations.metrics_route import make_metrics, service_ended, worker_ended
from operations.settings import OperationsSettings
from operations.statistics import connect_statistics

__all__ = ["OperationsSettings", "plug_in", "process_started", "service_ended", "worker_ended"]


def plug_in(
    process: Process,
    settings: Settings,
    chosen: OperationsSettings,
    store: Store,
) -> Options:
    """Start what the settings ask for, for one process. Connects to nothing yet."""
    limits = connect_limits(settings, chosen, store)
    statistics = connect_statistics(store, are_submissions_added=True)  # the limits add them
    history = connect_history(chosen, store)
    blueprints = []
    if process == "service" and chosen.metrics_token:
        blueprints = make_metrics(chosen, store, statistics)
    if process == "page" and chosen.metrics_port:
        from operations import metrics  # its library is the operator's choice

        metrics.serve(chosen.metrics_port, store.events)
    if chosen.otel_exporter_otlp_endpoint:
        from operations import tracing  # its libraries are the operator's choice

        store.events.subscribe(tracing.note)
    return Options(limits, history, blueprints)


def process_started(process: Process, chosen: OperationsSettings) -> None:
    """Start what needs threads, which do not outlive a fork."""
    if chosen.otel_exporter_otlp_endpoint:
        from operations import tracing

        tracing.start(chosen.otel_exporter_otlp_endpoint, f"ask-later-{process}")
