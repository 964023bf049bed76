"""Settings of the metrics."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from common.environment import Part
from common.setting_types import MIN_SECRET_LENGTH, Port, Secret
from operations.packages import needs


class MetricsSettings(Part):
    """Metrics.

    Needs `pip install -r requirements-operator.txt`.
    """

    metrics_token: Annotated[Secret | None, needs("prometheus_client")] = Field(
        default=None,
        description="Whoever sends it as a bearer token may `GET /metrics` from the service; 16 "
        "characters or more. Empty: there is no such route.",
    )
    metrics_port: Annotated[Port | None, needs("prometheus_client")] = Field(
        default=None, description="A port where the page serves its own metrics. Empty: none."
    )
    # https://prometheus.github.io/client_python/multiprocess/
    prometheus_multiproc_dir: Path | None = Field(
        default=None,
        description="The directory where the service's processes share their counts. "
        "Empty: a new one where temporary files are.",
    )

    @field_validator("metrics_token")
    @classmethod
    def _is_hard_to_guess(cls, token: SecretStr | None) -> SecretStr | None:
        if token and len(token.get_secret_value()) < MIN_SECRET_LENGTH:
            raise ValueError(f"is too short: use {MIN_SECRET_LENGTH} random characters or more")
        return token
