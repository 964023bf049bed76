"""What `kill -HUP` does to the running service: it takes all new settings, or keeps all old ones.

gunicorn runs its configuration file again, calls `on_reload`, and replaces its workers. By itself
it would start the new ones with the application that was made before, and end the whole service
when the configuration ends by `sys.exit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from common.environment import Part, SettingsError
from common.logs import get_logger, start_logging
from common.options import load_with_options
from common.settings import ServiceSettings

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.config import Config

# A socket and files that old and new workers share.
NEED_A_RESTART = ("port", "prometheus_multiproc_dir")

log = get_logger(__name__)


class Loaded(NamedTuple):
    """The settings of the service and of its options, which are taken together or not at all."""

    service: ServiceSettings
    options: Part | None


class InUse(NamedTuple):
    """What the workers were started with."""

    settings: Loaded
    configuration: Config


_read: Loaded | None = None  # by the latest run of the configuration file
_in_use: InUse | None = None


def read_settings() -> Loaded:
    """Read the settings for gunicorn's configuration; if a reload can't take them, the old ones.

    Raises: SettingsError, at the start alone.
    """
    global _read
    try:
        settings = _load()
        if _in_use:
            _check_change(_in_use.settings, settings)
        _read = settings
    except SettingsError as error:
        if _in_use is None:
            raise
        log.error("settings not reloaded", cause=str(error))
        _read = _in_use.settings
    return _read


def current_settings() -> Loaded:
    """Those that gunicorn's configuration has read; without gunicorn, read now.

    Raises: SettingsError.
    """
    return _read or _load()


def _load() -> Loaded:
    """Raises: SettingsError."""
    return Loaded(*load_with_options(ServiceSettings))


def note_start(server: Arbiter) -> None:
    """The application is made, and workers are about to start. For gunicorn's master."""
    global _in_use
    assert _read, "the configuration comes first"
    _in_use = InUse(_read, server.cfg)


def make_application_anew(server: Arbiter) -> None:
    """Give the workers that are about to start an application with the settings just read.

    For gunicorn's master. If that fails, the old application and configuration stay.
    """
    global _read, _in_use
    assert _read, "the configuration comes first"
    assert _in_use, "the service has started"
    if _read is _in_use.settings:
        return
    try:
        server.app.callable = server.app.load()
    except Exception as error:  # it would end the master, and so the service
        log.error("settings not reloaded", cause=type(error).__name__)
        _read, server.app.cfg = _in_use
        server.setup(server.app)
        return
    _in_use = InUse(_read, server.cfg)
    log.info("settings reloaded")
    start_logging(_read.service, anew=True)


def _check_change(old: Loaded, new: Loaded) -> None:
    """Raises: SettingsError."""
    changed = [
        name
        for before, after in zip(old, new, strict=True)
        for name in NEED_A_RESTART
        # Where no directory was named, the service has one of its own, which stays.
        if getattr(before, name, None) not in (None, getattr(after, name, None))
    ]
    if changed:
        names = ", ".join(name.upper() for name in changed)
        raise SettingsError(f"{names}: changed; restart the service for that")
