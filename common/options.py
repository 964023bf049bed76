"""The only door from the core to the options: `operations/` may be missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from operations.settings import OperationsSettings


def option_settings() -> list[type[OperationsSettings]]:
    """The settings classes of the options, where they are installed."""
    spec = find_spec("operations")
    if spec is None or spec.origin is None:  # a deleted folder may leave `__pycache__` behind
        return []
    from operations.settings import OperationsSettings

    return [OperationsSettings]
