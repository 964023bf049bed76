"""What `kill -HUP` does to the running service: it takes all new settings, or keeps all old ones.

gunicorn runs its configuration file again, calls `on_reload`, and replaces its workers. By itself
it would start the new ones with the application that was made before, and end the whole service
when the configuration ends by `sys.exit`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from common.logs import get_logger, start_logging
from common.settings import ServiceSettings, SettingsError, load

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter
    from gunicorn.config import Config

NEED_A_RESTART = ("port", "metrics_dir")  # a socket and files that old and new workers share

log = get_logger(__name__)


class InUse(NamedTuple):
    """What the workers were started with."""

    settings: ServiceSettings
    configuration: Config


_read: ServiceSettings | None = None  # by the latest run of the configuration file
_in_use: InUse | None = None


def read_settings() -> ServiceSettings:
    """Read the settings for gunicorn's configuration; if a reload can't take them, the old ones.

    Raises: SettingsError, at the start alone.
    """
    global _read
    try:
        settings = load(ServiceSettings)
        if _in_use:
            _check_change(_in_use.settings, settings)
        _read = settings
    except SettingsError as error:
        if _in_use is None:
            raise
        log.error("settings not reloaded", cause=str(error))
        _read = _in_use.settings
    return _read


def current_settings() -> ServiceSettings:
    """Those that gunicorn's configuration has read; without gunicorn, read now.

    Raises: SettingsError.
    """
    return _read or load(ServiceSettings)


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
    start_logging(_read, anew=True)


def _check_change(old: ServiceSettings, new: ServiceSettings) -> None:
    """Raises: SettingsError."""
    if changed := [name for name in NEED_A_RESTART if getattr(old, name) != getattr(new, name)]:
        names = ", ".join(name.upper() for name in changed)
        raise SettingsError(f"{names}: changed; restart the service for that")
