"""How both processes log, their libraries included: one line per event, to standard error.

{"time": …, "level": "info", "event": "settled", "request_id": …, "status": "completed", …}

An event is a constant; what differs stands in fields: request_id, message_id, round, attempt, code,
seconds, tokens, cause. Names, texts, answers and secrets are in none of them. Of an exception or a
warning, a library's too, a line has the type and the places, but not what it says.

The only importer of structlog.
"""

import logging
import os
import sys
import threading
import traceback
import warnings
from contextlib import AbstractContextManager
from typing import Any, NoReturn

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from common.environment import SettingsError, load
from common.settings import LogSettings
from common.tracing import trace_id

OURS = ("common", "operations", "page", "webhook_service")
MAX_PLACES = 20
MAX_EVENT = 1000  # characters: a library's may quote what anybody sent
FIRST = ("time", "level", "event", "request_id", "message_id", "round", "attempt")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Make a logger whose calls take an event and fields: `log.info("settled", status=…)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def bound(**fields: str | int) -> AbstractContextManager[None]:
    """Give every line that is logged within, in this thread, these fields."""
    return structlog.contextvars.bound_contextvars(**fields)


def start_logging(settings: LogSettings | None = None, *, anew: bool = False) -> None:
    """Call once per process, before anything is worth a line; without settings, it reads them.

    Leaves alone what is set up, unless it is to be set up `anew`.
    """
    if logging.root.handlers and not anew:
        return
    quiet_servers()
    settings = settings or _read_settings()
    is_json = _is_json(settings)
    if is_json:
        _take_over_python()
    handler = _Lines()
    handler.setFormatter(make_formatter(is_json=is_json))
    # Others' debug lines may quote what a person wrote (openai's do): DEBUG is for ours.
    logging.basicConfig(handlers=[handler], level=max(logging.INFO, settings.level), force=anew)
    for name in OURS:
        logging.getLogger(name).setLevel(settings.level)
    for client in ("httpx", "httpx2"):  # they log each request; our own lines say what it meant
        logging.getLogger(client).setLevel(logging.WARNING)
    if streamlit := sys.modules.get("streamlit.logger"):
        # It gives each logger a handler, those of modules imported later, too.
        vars(streamlit)["setup_formatter"] = lambda logger: take_over(logger.name)
        streamlit.update_formatter()


def end(error: SettingsError) -> NoReturn:
    """End a process that can't start: by a line of the log, or on a terminal by a sentence."""
    start_logging()
    if not _is_json(_read_settings()):
        sys.exit(str(error))
    get_logger(__name__).critical("not set up", cause=str(error))
    sys.exit(1)


def _read_settings() -> LogSettings:
    """What is asked for; while that is wrong, which is told soon, the usual."""
    try:
        return load(LogSettings)
    except SettingsError:
        return LogSettings.model_construct()


def _is_json(settings: LogSettings) -> bool:
    is_terminal = sys.stderr.isatty()
    return settings.log_format == "json" or (settings.log_format == "auto" and not is_terminal)


class _Lines(logging.Handler):
    """Writes each line with one system call, which the kernel keeps in one piece.

    So threads need not wait for one another: with the usual handler's lock, many did in a burst.
    """

    def createLock(self) -> None:  # noqa: N802  # the library's name
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
            while line:  # all of it as a rule, less of it when a signal comes in between
                line = line[os.write(sys.stderr.fileno(), line) :]
        except Exception:
            self.handleError(record)


def quiet_servers() -> None:
    """Let uvicorn write through ours, but no visitor's address and no URL, with a request id in it.

    Call it once more after a server has set up its loggers.
    """
    for name in ("uvicorn", "uvicorn.error"):  # Streamlit has switched off uvicorn.access
        take_over(name)
        logging.getLogger(name).setLevel(logging.WARNING)


def take_over(name: str) -> None:
    """Let a library's logger write through ours, instead of handlers of its own."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True


def _take_over_python() -> None:
    """Write what Python itself would write as lines."""
    warnings.showwarning = _tell_warning
    sys.excepthook = _tell_uncaught
    threading.excepthook = lambda told: _tell_uncaught(told.exc_type, told.exc_value)
    sys.unraisablehook = lambda told: _tell_uncaught(told.exc_type, told.exc_value)


def _tell_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any
) -> None:
    get_logger(__name__).warning("warning", cause=category.__name__, at=f"{filename}:{lineno}")


def _tell_uncaught(kind: type[BaseException], error: BaseException | None, *_: object) -> None:
    log = get_logger(__name__)
    if issubclass(kind, KeyboardInterrupt):
        log.info("interrupted")
    elif not issubclass(kind, SystemExit):
        log.critical("uncaught exception", exc_info=error)


def make_formatter(*, is_json: bool) -> logging.Formatter:
    """Make what turns a record, of ours or of a library, into a JSON object or a coloured line."""
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        _shorten,
        _in_order,
    ]
    if is_json:
        last += [structlog.processors.JSONRenderer()]
    else:
        last += [
            structlog.dev.ConsoleRenderer(sort_keys=False, pad_event_to=0, timestamp_key="time")
        ]
    return structlog.stdlib.ProcessorFormatter(processors=last, foreign_pre_chain=_SHARED)


def _add_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    if current := trace_id():
        event["trace_id"] = current
    return event


def _add_process(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["pid"] = os.getpid()
    return event


def _shorten(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Tell an exception by its type and its places: what it says may be personal, or anybody's."""
    event["event"] = _without_traceback(str(event["event"]))[:MAX_EVENT]
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    elif isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["event"] = event["event"].partition("\n")[0]  # asyncio quotes it on the next
        says_code_alone = isinstance(error, ImportError | NameError)
        event["cause"] = f"{type(error).__name__}{f': {error}' if says_code_alone else ''}"
        frames = traceback.extract_tb(error.__traceback__)[: -MAX_PLACES - 1 : -1]
        event["at"] = " < ".join(f"{frame.filename}:{frame.lineno}" for frame in frames)
    return event


def _without_traceback(text: str) -> str:
    """Of an exception that a library has made a text of, keep the places and the type."""
    if not text.startswith("Traceback (most recent call last)"):
        return text
    lines = text.splitlines()
    places = [line.strip() for line in lines if line.startswith("  File ")][: -MAX_PLACES - 1 : -1]
    kind = next((line for line in lines[1:] if not line.startswith(" ")), "")
    return " < ".join([kind.partition(":")[0], *places])


def _in_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    ordered = {name: event.get(name) for name in (*FIRST, *event)}
    return {name: value for name, value in ordered.items() if value is not None}


_SHARED: list[Processor] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    _add_process,
    structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
]
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        _add_trace,
        *_SHARED,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)
