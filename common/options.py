"""The only door from the core to `operations/`: what it adds, where it is there.

Its modules are imported by name, so that the folder can be deleted without changing a line here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from pydantic_settings import BaseSettings

from common.ports import History, Limits, NoHistory, NoLimits
from common.settings import Settings
from common.store import Store

OPERATIONS: Any = import_module("operations") if find_spec("operations") else None


@dataclass(frozen=True)
class Options:
    """What the settings have switched on; without any, nothing."""

    limits: Limits = field(default_factory=NoLimits)
    history: History = field(default_factory=NoHistory)
    blueprints: Sequence[Any] = ()  # Flask's, for the webhook service


def option_settings() -> list[type[BaseSettings]]:
    """The settings of the options, to be loaded beside those of the core."""
    return [OPERATIONS.OperationsSettings] if OPERATIONS else []


def plug_in(settings: Settings, chosen: Sequence[BaseSettings], store: Store) -> Options:
    """Start the options that these settings ask for, for one page or service.

    They may subscribe to the store's events.
    """
    return OPERATIONS.plug_in(settings, *chosen, store) if chosen else Options()  # type: ignore[no-any-return]
