"""What operators may add to the core, which never imports it: `common/options.py` is the door.

To delete one of them, delete its files, and the lines here and in `settings.py` that name it.
Nothing is imported before it is asked for: `python -m operations` looks at the task first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from common.options import Options, Process
    from common.settings import Settings
    from common.store import Store
    from operations.settings import OperationsSettings


def plug_in(
    process: Process, settings: Settings, chosen: OperationsSettings, store: Store
) -> Options:
    """Start what the settings ask for, for one process. Connects to nothing yet."""
    from common.options import Options
    from operations import metrics_route
    from operations.history import connect_history
    from operations.limits import connect_limits
    from operations.statistics import connect_statistics

    statistics = connect_statistics(store)
    if chosen.otel_exporter_otlp_endpoint:
        from operations import tracing  # its libraries are the operator's choice

        store.events.subscribe(tracing.note)
    return Options(
        history=connect_history(chosen, store, statistics, in_background=process != "command"),
        limits=connect_limits(settings, chosen, store, statistics),
        blueprints=metrics_route.plug_in(process, chosen, store, statistics),
    )


def process_started(process: Process, chosen: OperationsSettings) -> None:
    """Start what needs threads, which do not outlive a fork."""
    if chosen.otel_exporter_otlp_endpoint:
        from operations import tracing

        tracing.start(chosen.otel_exporter_otlp_endpoint, f"ask-later-{process}")


def worker_ended(pid: int) -> None:
    """A process that was forked has ended. For gunicorn's master."""
    from operations import metrics_route

    metrics_route.worker_ended(pid)


def service_ended() -> None:
    """The service ends. For gunicorn's master."""
    from operations import metrics_route

    metrics_route.service_ended()
