"""Settings of the traces."""

from typing import Annotated

from pydantic import Field

from common.environment import Part
from common.setting_types import WebAddress
from operations.packages import needs


class TracingSettings(Part):
    """Traces.

    Needs `pip install -r requirements-operator.txt`.
    """

    otel_exporter_otlp_endpoint: Annotated[WebAddress | None, needs("opentelemetry.sdk")] = Field(
        default=None,
        description="A collector that takes OTLP over HTTP, such as `http://localhost:4318`: "
        "traces go there. Empty: none.",
    )
