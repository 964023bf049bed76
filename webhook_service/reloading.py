"""`kill -HUP`: new settings from `.env` and files, or, if any is wrong, all the old ones."""

import gc

from gunicorn.arbiter import Arbiter

from common.logs import get_logger
from common.settings import ServiceSettings, SettingsError, load

log = get_logger(__name__)

_settings: ServiceSettings | None = None
_port = 0
_is_changed = False


def load_or_keep() -> tuple[ServiceSettings, int]:
    """The settings, and the port of the start: a reload that finds another taken would end all.

    Raises: SettingsError at the start alone.
    """
    global _settings, _port, _is_changed
    try:
        new = load(ServiceSettings)
    except SettingsError as error:
        if _settings is None:
            raise
        _is_changed = False
        log.error("settings not reloaded, all old ones kept", cause=" ".join(str(error).split()))
        return _settings, _port
    _is_changed = _settings is not None
    _port = _port or new.port
    _settings = new
    return new, _port


def rebuild_app(server: Arbiter) -> None:
    """Replace the preloaded application, which new workers would take otherwise."""
    if not _is_changed:
        return
    old = server.app.callable
    server.app.callable = None
    try:
        server.app.wsgi()
    except Exception as error:
        server.app.callable = old
        log.error("settings not reloaded, all old ones kept", cause=type(error).__name__)
        return
    gc.unfreeze()  # so that the old application can be collected
    log.info("settings reloaded")
