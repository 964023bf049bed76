"""How gunicorn serves the webhook service. Put a buffering proxy in front of it: each half-open
connection holds a thread, so enough of them block any gunicorn.

Source: https://docs.gunicorn.org/en/stable/deploy.html
"""

import gc
import sys
from pathlib import Path

import gunicorn.glogging
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.workers.base import Worker

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.environment import SettingsError
from common.logs import end, start_logging, take_over
from common.open_files import raise_open_files
from common.tasks import load_task

start_logging()
try:
    load_task()

    # These import the task, which is known to work now. "reload" would be a setting.
    from common.options import process_started, service_ended, worker_ended
    from webhook_service import reloading

    _settings, _options = reloading.read_settings()
except SettingsError as error:
    # Here, before any worker: a worker that ends so would be started again for ever.
    end(error)


class Logger(gunicorn.glogging.Logger):  # type: ignore[misc]  # carries no types
    """gunicorn's own lines, written as ours are."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        take_over("gunicorn.error")


MAX_NEW_OBJECTS = 5_000  # before garbage is looked for: 700, the default, cost a tenth of the CPU

raise_open_files()
logger_class = Logger
bind = f"0.0.0.0:{_settings.port}"
# A delivery holds a thread while it waits for the model, and costs some 3 ms of processor time.
# Measured on 2 cores (docs/reports/performance.md): four processes get in one another's way less
# than two, as fewer threads share one interpreter lock. Threads are made when needed; a call takes
# 170 kB.
worker_class = "gthread"
workers = 4
threads = 512
keepalive = 75  # seconds; routers keep idle connections for 60 and must not send into a closed one
preload_app = True  # imported once: a worker that died is replaced at once, and memory is shared
graceful_timeout = round(_settings.times.graceful_stop.total_seconds())  # the call, and 3 s
timeout = 2 * graceful_timeout  # for a worker that hangs as a whole; bounds no single call
control_socket_disable = True
accesslog = None  # our own lines carry the request id
when_ready = reloading.note_start
on_reload = reloading.make_application_anew


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """Leave what is loaded out of garbage collection, so that workers go on sharing its memory.

    Source: https://docs.python.org/3/library/gc.html#gc.freeze
    """
    gc.freeze()


def post_fork(server: Arbiter, worker: Worker) -> None:
    """Here, as threads do not outlive a fork."""
    gc.set_threshold(MAX_NEW_OBJECTS)
    process_started("service", _options)


def child_exit(server: Arbiter, worker: Worker) -> None:
    worker_ended(worker.pid)


def on_exit(server: Arbiter) -> None:
    service_ended()
