"""The only door from the core to `operations/`: what it adds, where it is there.

It is imported by name, so that the folder can be deleted without changing a line of the core.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

from pydantic_settings import BaseSettings

from common.ports import History, Limits, NoHistory, NoLimits
from common.settings import Settings
from common.store import Store

Process = Literal["page", "service"]
Chosen = Sequence[BaseSettings]  # the settings of the options; none where there are no options


@dataclass(frozen=True)
class Options:
    """What the settings have switched on; without any, nothing."""

    limits: Limits = field(default_factory=NoLimits)
    history: History = field(default_factory=NoHistory)
    blueprints: Sequence[Any] = ()  # Flask's, for the webhook service


@cache
def _operations() -> Any:
    return import_module("operations") if find_spec("operations") else None


def option_settings() -> list[type[BaseSettings]]:
    """The classes of the options' settings, to be loaded beside those of the core."""
    operations = _operations()
    return [operations.OperationsSettings] if operations else []


def plug_in(process: Process, settings: Settings, chosen: Chosen, store: Store) -> Options:
    """Start the options that the settings ask for; they may subscribe to the store's events."""
    for each in chosen:
        options: Options = _operations().plug_in(process, settings, each, store)
        return options
    return Options()


def process_started(process: Process, chosen: Chosen) -> None:
    """A process begins to work, after any fork: start what does not outlive one."""
    for each in chosen:
        _operations().process_started(process, each)


def worker_ended(pid: int) -> None:
    """A process that was forked has ended. For gunicorn's master."""
    if operations := _operations():
        operations.worker_ended(pid)


def service_ended() -> None:
    """The service ends. For gunicorn's master."""
    if operations := _operations():
        operations.service_ended()
