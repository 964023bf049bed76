"""The only door from the core to `operations/`: what it adds, where it is there.

It is imported by name, so that the folder can be deleted without changing a line of the core. Its
settings go with it: their variables are ignored then, as all that the core doesn't know. Nobody can
tell a DATABASE_URL that asks for a history from one that a host sets for every program.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal, TypeVar

from common.environment import Part, load_all
from common.ports import History, Limits, NoHistory, NoLimits
from common.settings import Settings
from common.store import Store

Process = Literal["page", "service", "command"]  # the last is the operator's, and serves nothing
SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True)
class Options:
    """What the settings have switched on; without any, nothing."""

    limits: Limits = field(default_factory=NoLimits)
    history: History = field(default_factory=NoHistory)
    blueprints: Sequence[Any] = ()  # Flask's, for the webhook service


@cache
def _operations() -> Any:
    spec = find_spec("operations")
    # A folder without a module is what git leaves of a deleted one: compiled files.
    return import_module("operations") if spec and spec.origin else None


def load_with_options(kind: type[SettingsT]) -> tuple[SettingsT, Part | None]:
    """Read and check the settings of one process, and those of the options, if there are any.

    Raises: SettingsError, naming every missing or malformed variable of both.
    """
    more = [import_module("operations.settings").OperationsSettings] if _operations() else []
    settings, chosen = load_all(kind, *more)
    return settings, next(iter(chosen), None)


def plug_in(process: Process, settings: Settings, chosen: Part | None, store: Store) -> Options:
    """Start the options that are `chosen`; they may subscribe to the store's events."""
    if chosen is None:
        return Options()
    options: Options = _operations().plug_in(process, settings, chosen, store)
    return options


def process_started(process: Process, chosen: Part | None) -> None:
    """A process begins to work, after any fork: start what does not outlive one."""
    if chosen:
        _operations().process_started(process, chosen)


def worker_ended(pid: int) -> None:
    """A process that was forked has ended. For gunicorn's master."""
    if operations := _operations():
        operations.worker_ended(pid)


def service_ended() -> None:
    """The service ends. For gunicorn's master."""
    if operations := _operations():
        operations.service_ended()
