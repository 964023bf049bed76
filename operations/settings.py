"""Settings of all options together."""

from operations.history.settings import HistorySettings
from operations.limit_settings import LimitSettings
from operations.metrics_settings import MetricsSettings
from operations.tracing_settings import TracingSettings


class OperationsSettings(
    HistorySettings,
    LimitSettings,
    MetricsSettings,
    TracingSettings,
):
    """What an operator may switch on."""
