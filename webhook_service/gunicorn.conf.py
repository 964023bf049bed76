"""How gunicorn serves the webhook service. Put a buffering proxy in front of it: some dozens of
half-open connections block any gunicorn (https://docs.gunicorn.org/en/stable/deploy.html).
"""

import sys
from pathlib import Path

import gunicorn.glogging
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.workers.base import Worker

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.logs import start_logging, take_over
from common.settings import ServiceSettings, SettingsError, load
from common.tracing import start_tracing
from webhook_service import metrics

try:
    _settings = load(ServiceSettings)
except SettingsError as error:
    # Here, before any worker: a worker that ends so would be started again for ever.
    sys.exit(str(error))


class Logger(gunicorn.glogging.Logger):  # type: ignore[misc]  # carries no types
    """gunicorn's own lines, written as ours are."""

    def setup(self, cfg: Config) -> None:
        super().setup(cfg)
        take_over("gunicorn.error")


start_logging(_settings)
logger_class = Logger
bind = f"0.0.0.0:{_settings.port}"
worker_class = "gthread"  # a delivery waits for the model and needs no CPU meanwhile
workers = 2
threads = 32
preload_app = True  # importing takes a second or two: a worker that died is replaced at once
graceful_timeout = round(_settings.times.graceful_stop.total_seconds())
timeout = 2 * graceful_timeout  # for a worker that hangs as a whole; bounds no single call
control_socket_disable = True
accesslog = None  # our own lines carry the request id


def post_fork(server: Arbiter, worker: Worker) -> None:
    """Here, as threads do not outlive a fork."""
    start_tracing(_settings, "ask-later-service")


def child_exit(server: Arbiter, worker: Worker) -> None:
    metrics.forget(worker.pid)


def on_exit(server: Arbiter) -> None:
    metrics.clean_up()
